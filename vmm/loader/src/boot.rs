//! How a machine starts: image, page tables, boot information, and the CPU at the image's entry point.

use crate::image::Content;
use crate::program::Program;
use crate::{Image, ImageError, linux, tables};
use ft_protocol::log::{BootProtocol, Counts, MachineConfig};
use lockstep_abi::{ABI_VERSION, BOOT_INFO, BOOT_MAGIC, BootInfo, CLOCK_PAGE, ClockPage};
use lockstep_memory::{Ram, RamError};
use lockstep_vcpu::CpuState;
use lockstep_vcpu::state::{Attributes, Segment};
use std::mem::offset_of;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Why a guest cannot be put into memory.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The memory.
    #[error(transparent)]
    Ram(#[from] RamError),
}

/// The MAC of a VM for which none was given: a locally administered address made from the VM's name, so
/// that it is the same on every host and differs between VMs.
pub fn default_mac(vm: &str) -> [u8; 6] {
    let hash = xxh3_64(vm.as_bytes()).to_le_bytes();
    [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

/// Fills `ram` as the guest must find it, and gives the state in which its CPU starts.
///
/// # Errors
/// If the guest finds no room, or the image is not for this way of starting.
pub fn prepare(ram: &Ram, config: &MachineConfig, image: &Image) -> Result<CpuState, LoadError> {
    match (image.content(), config.boot) {
        (Content::Program(program), BootProtocol::LockstepAbi) => {
            prepare_program(ram, config, image, program)?;
            Ok(start_state(program.entry()))
        }
        (Content::Linux(linux), BootProtocol::Linux) => {
            linux::prepare(ram, config, image.name(), &linux.parts(image.bytes()))
        }
        (Content::Program(_), BootProtocol::Linux)
        | (Content::Linux(_), BootProtocol::LockstepAbi) => Err(ImageError::OtherBoot {
            name: image.name().to_owned(),
        }
        .into()),
    }
}

/// As `lockstep_abi` documents it.
fn prepare_program(
    ram: &Ram,
    config: &MachineConfig,
    image: &Image,
    program: &Program,
) -> Result<(), LoadError> {
    program.load(image.name(), image.bytes(), ram)?;
    tables::build(ram, &program.segments(), program.end())?;
    let (edges, steps) = match config.counts {
        Counts::BranchEdges => (config.quantum, 0),
        Counts::Instructions => (0, config.quantum),
    };
    let mut info = BootInfo {
        magic: BOOT_MAGIC,
        version: ABI_VERSION,
        ram_bytes: ram.len() as u64,
        free_start: program.end(),
        seed: config.seed,
        wall_ns: config.wall_ns,
        quantum: edges,
        preempts: u8::from(steps != 0),
        ..BootInfo::default()
    };
    if let Some(net) = config.net() {
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

/// The bytes of `info` in the layout of `repr(C)`.
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
    put(offset_of!(BootInfo, preempts), &[info.preempts]);
    bytes
}

/// The CPU's state as `lockstep_abi` documents it: long mode, CPL 0, interrupts off, paging by
/// [`tables`].
pub fn start_state(entry: u64) -> CpuState {
    let code = Segment {
        limit: 0xffff_ffff,
        selector: lockstep_abi::selector::KERNEL_CODE,
        attributes: Attributes {
            type_: 11,
            present: 1,
            s: 1,
            l: 1,
            g: 1,
            ..Attributes::default()
        },
        ..Segment::default()
    };
    let data = Segment {
        selector: lockstep_abi::selector::KERNEL_DATA,
        attributes: Attributes {
            type_: 3,
            l: 0,
            db: 1,
            ..code.attributes
        },
        ..code
    };
    let task = Segment {
        base: 0x2000,
        limit: 0x67,
        selector: tables::TSS_SELECTOR,
        attributes: Attributes {
            type_: 11,
            present: 1,
            ..Attributes::default()
        },
    };
    let ldt = Segment {
        limit: 0xffff,
        attributes: Attributes {
            type_: 2,
            present: 1,
            ..Attributes::default()
        },
        ..Segment::default()
    };
    let mut state = CpuState::default();
    // CS, DS, ES, FS, GS, SS, TR, LDT.
    state.system.segments = [code, data, data, data, data, data, task, ldt];
    state.system.tables = [(tables::GDT, tables::GDT_LIMIT), (0, 0)];
    // CR0: PE MP ET NE WP AM PG. CR4: PAE OSFXSR OSXMMEXCPT. EFER: LME LMA NXE (SDM vol. 3, 2.5 and 2.2.1).
    state.system.control = [0x8005_0033, 0, tables::PML4, 0x620, 0, 0xd00];
    state.registers.rip = entry;
    state.registers.rflags = 2;
    // RSP and RDI.
    state.registers.general[6] = lockstep_abi::BOOT_STACK_TOP;
    state.registers.general[5] = lockstep_abi::BOOT_INFO;
    state
}
