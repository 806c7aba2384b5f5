//! The name of the host's CPU.

use std::arch::x86_64::__cpuid;

/// Vendor, family, model and stepping, as CPUID leaves 0 and 1 give them (SDM vol. 2A, CPUID).
pub fn cpu_name() -> String {
    let vendor = __cpuid(0);
    let name: Vec<u8> = [vendor.ebx, vendor.edx, vendor.ecx]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    let version = __cpuid(1).eax;
    let (base_family, base_model) = (version >> 8 & 15, version >> 4 & 15);
    let family = match base_family {
        15 => 15 + (version >> 20 & 255),
        family => family,
    };
    let model = match base_family {
        6 | 15 => base_model | (version >> 16 & 15) << 4,
        _ => base_model,
    };
    format!(
        "{} family {family} model {model} stepping {}",
        String::from_utf8_lossy(&name),
        version & 15
    )
}
