//! ACPI tables for a PC with an 8259 pair: the fixed hardware for power and time, and the virtio devices.

use acpi_tables::Aml;
use acpi_tables::aml::{self, Path, ResourceTemplate};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use ft_protocol::log::{DeviceConfig, MachineConfig};
use lockstep_abi::{MMIO_CONSOLE, MMIO_HPET, MMIO_NET, MMIO_RNG, MMIO_STRIDE, irq, port};

const OEM: [u8; 6] = *b"LOCKST";
const OEM_TABLE: [u8; 8] = *b"LOCKSTEP";
const OEM_REVISION: u32 = 1;
/// There are devices of an old PC, but no VGA card, and no 8042 that had a keyboard.
const BOOT_ARCHITECTURE: u16 = 1 | 1 << 2;
/// The register of the CMOS clock that has the century.
const CENTURY: u8 = 0x32;
/// C2 and C3 are not there.
const NO_C_STATE: u16 = 0xffff;

/// All tables, the root pointer first, for this address.
pub fn tables(config: &MachineConfig, address: u64) -> Vec<u8> {
    let mut tables = vec![0; Rsdp::len()];
    // The FACS is the table that must be aligned most.
    let mut add = |table: &dyn Aml| {
        tables.resize(tables.len().next_multiple_of(64), 0);
        let at = address + tables.len() as u64;
        table.to_aml_bytes(&mut tables);
        at
    };
    let facs = add(&FACS::new());
    let dsdt = add(&dsdt(config));
    let fadt = add(&fadt(facs as u32, dsdt));
    let hpet = add(&hpet());
    let mut root = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    root.add_entry(fadt);
    root.add_entry(hpet);
    let root = add(&root);
    let mut pointer = Vec::new();
    Rsdp::new(OEM, root).to_aml_bytes(&mut pointer);
    tables[..pointer.len()].copy_from_slice(&pointer);
    tables
}

fn ports(offset: u16, len: u8, access: AccessSize) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        len * 8,
        0,
        access,
        u64::from(port::POWER + offset),
    )
}

fn fadt(facs: u32, dsdt: u64) -> acpi_tables::fadt::FADT {
    let at = |offset| u32::from(port::POWER + offset).into();
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .firmware_ctrl_32(facs)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.sci_int = u16::from(irq::POWER).into();
    fadt.pm1a_evt_blk = at(port::POWER_EVENTS);
    fadt.pm1a_cnt_blk = at(port::POWER_CONTROL);
    fadt.pm_tmr_blk = at(port::POWER_TIMER);
    (fadt.pm1_evt_len, fadt.pm1_cnt_len, fadt.pm_tmr_len) = (4, 2, 4);
    fadt.x_pm1a_evt_blk = ports(port::POWER_EVENTS, 4, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = ports(port::POWER_CONTROL, 2, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = ports(port::POWER_TIMER, 4, AccessSize::DwordAccess);
    fadt.reset_reg = ports(port::POWER_RESET, 1, AccessSize::ByteAccess);
    fadt.reset_value = port::RESET_VALUE;
    (fadt.p_lvl2_lat, fadt.p_lvl3_lat) = (NO_C_STATE.into(), NO_C_STATE.into());
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = BOOT_ARCHITECTURE.into();
    fadt.finalize()
}

/// Where the HPET is (IA-PC HPET specification 1.0a, section 3.2.4).
fn hpet() -> Sdt {
    let mut table = Sdt::new(*b"HPET", 36, 1, OEM, OEM_TABLE, OEM_REVISION);
    table.append(HPET_BLOCK);
    let at = GAS::new(
        AddressSpace::SystemMemory,
        64,
        0,
        AccessSize::Undefined,
        MMIO_HPET,
    );
    let mut bytes = Vec::new();
    at.to_aml_bytes(&mut bytes);
    table.append_slice(&bytes);
    // Its number; the shortest period in ticks; no page protection.
    table.append(0u8);
    table.append(HPET_SHORTEST);
    table.append(0u8);
    table
}

/// The lower half of its capabilities.
const HPET_BLOCK: u32 = 0x8086_8201;
const HPET_SHORTEST: u16 = 128;

/// Power-off, and what cannot be found otherwise.
fn dsdt(config: &MachineConfig) -> Sdt {
    let mut code = Vec::new();
    let zero = aml::ZERO;
    // SLP_TYP for S5, which the device for power knows.
    let off = aml::Package::new(vec![&S5_TYPE, &S5_TYPE, &zero, &zero]);
    aml::Name::new(Path::new("_S5_"), &off).to_aml_bytes(&mut code);
    for device in &config.devices {
        if let Some((name, unique, window, line)) = virtio(device) {
            add_virtio(&mut code, name, unique, window, line);
        }
    }
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, OEM_REVISION);
    dsdt.append_slice(&code);
    dsdt
}

/// What [`lockstep_abi`]'s control block takes for S5.
const S5_TYPE: u8 = 5;

/// Name, number, window and line of a virtio device.
fn virtio(device: &DeviceConfig) -> Option<(&'static str, u8, u64, u8)> {
    match device {
        DeviceConfig::VirtioNet(_) => Some(("VNET", 0, MMIO_NET, irq::NET)),
        DeviceConfig::VirtioConsole => Some(("VCON", 1, MMIO_CONSOLE, irq::CONSOLE)),
        DeviceConfig::VirtioRng => Some(("VRNG", 3, MMIO_RNG, irq::RNG)),
        DeviceConfig::Pit
        | DeviceConfig::Uart
        | DeviceConfig::Cmos
        | DeviceConfig::Hpet
        | DeviceConfig::Keyboard
        | DeviceConfig::Triggers
        | DeviceConfig::Power => None,
    }
}

fn add_virtio(code: &mut Vec<u8>, name: &str, unique: u8, window: u64, line: u8) {
    let memory = aml::Memory32Fixed::new(true, window as u32, MMIO_STRIDE as u32);
    // A consumer, edge-triggered, active high, for it alone.
    let interrupt = aml::Interrupt::new(true, true, false, false, u32::from(line));
    let resources = ResourceTemplate::new(vec![&memory, &interrupt]);
    let id = aml::Name::new(Path::new("_HID"), &"LNRO0005");
    let number = aml::Name::new(Path::new("_UID"), &unique);
    let resources = aml::Name::new(Path::new("_CRS"), &resources);
    let device = aml::Device::new(Path::new(name), vec![&id, &number, &resources]);
    aml::Scope::new(Path::new("_SB_"), vec![&device]).to_aml_bytes(code);
}
