//! The machine's initial state: image, page tables, boot information.

use super::MachineError;
use super::fingerprint;
use ft_protocol::log::{HostPrint, MachineConfig};
use lockstep_abi::{ABI_VERSION, BOOT_INFO, BOOT_MAGIC, BootInfo, CLOCK_PAGE, ClockPage};
use lockstep_cpu::host;
use lockstep_memory::{Image, Ram, tables};
use std::mem::offset_of;
use xxhash_rust::xxh3::xxh3_64;

/// The MAC of a VM that was given none: locally administered, made from its name, so that it is the
/// same on every host and differs between VMs.
pub fn default_mac(vm: &str) -> [u8; 6] {
    let hash = xxh3_64(vm.as_bytes()).to_le_bytes();
    [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

/// What of this host a log depends on. Runs the self-test guest.
pub fn host_print() -> Result<HostPrint, MachineError> {
    Ok(HostPrint {
        exits: fingerprint::self_test()?.exits,
        cpu: host::cpu_name(),
    })
}

/// Fills `ram` as `lockstep_abi` promises it.
pub fn prepare(ram: &Ram, config: &MachineConfig, image: &Image) -> Result<(), MachineError> {
    image.load(ram)?;
    tables::build(ram, &image.segments(), image.end())?;
    let mut info = BootInfo {
        magic: BOOT_MAGIC,
        version: ABI_VERSION,
        ram_bytes: ram.len() as u64,
        free_start: image.end(),
        seed: config.seed,
        wall_ns: config.wall_ns,
        quantum: config.quantum,
        ..BootInfo::default()
    };
    if let Some(net) = config.net {
        info.has_net = 1;
        info.ip = net.ip;
        info.gateway = net.gateway;
        info.prefix_len = net.prefix_len;
        info.mac = net.mac;
    }
    ram.write(BOOT_INFO, &boot_info_bytes(&info))?;
    let wake_at = offset_of!(ClockPage, wake_at_ns) as u64;
    ram.write_u64(CLOCK_PAGE + wake_at, u64::MAX)?;
    Ok(())
}

/// The bytes of `info` as `repr(C)` lays them out.
fn boot_info_bytes(info: &BootInfo) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<BootInfo>()];
    let mut put = |offset: usize, field: &[u8]| {
        bytes[offset..offset + field.len()].copy_from_slice(field);
    };
    put(offset_of!(BootInfo, magic), &info.magic.to_le_bytes());
    put(offset_of!(BootInfo, version), &info.version.to_le_bytes());
    put(offset_of!(BootInfo, has_net), &info.has_net.to_le_bytes());
    put(
        offset_of!(BootInfo, ram_bytes),
        &info.ram_bytes.to_le_bytes(),
    );
    put(
        offset_of!(BootInfo, free_start),
        &info.free_start.to_le_bytes(),
    );
    put(offset_of!(BootInfo, seed), &info.seed.to_le_bytes());
    put(offset_of!(BootInfo, wall_ns), &info.wall_ns.to_le_bytes());
    put(offset_of!(BootInfo, quantum), &info.quantum.to_le_bytes());
    put(offset_of!(BootInfo, ip), &info.ip);
    put(offset_of!(BootInfo, gateway), &info.gateway);
    put(offset_of!(BootInfo, prefix_len), &[info.prefix_len]);
    put(offset_of!(BootInfo, mac), &info.mac);
    bytes
}
