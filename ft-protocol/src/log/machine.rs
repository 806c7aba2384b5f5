//! The machine of a log. Together with the guest image, this is its whole initial state.

use bincode::{Decode, Encode};
use std::collections::BTreeSet;

/// The version of the machine model: what the parts of a machine do, and which words each of them saves
/// and digests.
///
/// A change of these changes the meaning of old logs, and what a peer of another version computes. So
/// the version goes up by one with any such change. A test has a golden digest of each part, and fails
/// until that is done.
pub const MODEL_VERSION: u32 = 5;

/// The version of the software CPU's model: what its instructions do where the manual leaves a choice, what
/// CPUID answers, and what counts as a step. It is raised like [`MODEL_VERSION`].
pub const SOFT_CPU_MODEL: u32 = 2;

/// The machine's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct MachineConfig {
    /// [`MODEL_VERSION`] of the version of lockstep that made the machine.
    pub model: u32,
    /// The CPU on which the machine was first built. One that counts branch edges may go on another.
    pub cpu: CpuKind,
    /// What is counted within a position, in addition to exits.
    pub counts: Counts,
    /// How the guest is started.
    pub boot: BootProtocol,
    /// The devices, in the order in which they work; the interrupt controllers, the clock page and the
    /// counter are always there.
    pub devices: Vec<DeviceConfig>,
    /// RAM, MiB.
    pub mem_mib: u32,
    /// After so many of what is counted there is an exit: the guest's instrumentation makes it for branch
    /// edges, the CPU for instructions. 0 for never.
    pub quantum: u64,
    /// The random number for the guest.
    pub seed: u64,
    /// Wall clock at boot, nanoseconds since 1970.
    pub wall_ns: u64,
}

/// A CPU backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum CpuKind {
    /// The host's KVM.
    Kvm,
    /// The CPU in software, the same on every host.
    Soft {
        /// [`SOFT_CPU_MODEL`] of the version of lockstep that made the machine.
        model: u32,
    },
}

/// What [`super::Position::edges`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Counts {
    /// Branch edges, which the guest's own instrumentation counts. 0 for a guest without.
    BranchEdges,
    /// Instructions, which the software CPU counts, and iterations of those that repeat.
    Instructions,
}

/// How a guest is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum BootProtocol {
    /// As the crate `lockstep-abi` documents it: an ELF image in long mode.
    LockstepAbi,
    /// A Linux kernel, as its 64-bit boot protocol says, on a PC without PCI.
    Linux,
}

/// A device on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum DeviceConfig {
    /// The 8254.
    Pit,
    /// The 16550.
    Uart,
    /// virtio-console.
    VirtioConsole,
    /// virtio-rng.
    VirtioRng,
    /// virtio-net.
    VirtioNet(NetConfig),
    /// The battery-backed clock.
    Cmos,
    /// The high precision event timer, which can replace the 8254.
    Hpet,
    /// The 8042, without a keyboard.
    Keyboard,
    /// The registers that say how the 8259 pair's lines are triggered.
    Triggers,
    /// ACPI's fixed hardware: power-off, reset and a timer.
    Power,
}

/// The network configuration for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct NetConfig {
    /// MAC address.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub ip: [u8; 4],
    /// Length of the prefix, bits.
    pub prefix_len: u8,
    /// IPv4 gateway, zero if none.
    pub gateway: [u8; 4],
}

impl DeviceConfig {
    /// The device's name.
    pub fn name(&self) -> &'static str {
        match self {
            DeviceConfig::Pit => "8254",
            DeviceConfig::Uart => "16550",
            DeviceConfig::VirtioConsole => "virtio-console",
            DeviceConfig::VirtioRng => "virtio-rng",
            DeviceConfig::VirtioNet(_) => "virtio-net",
            DeviceConfig::Cmos => "CMOS clock",
            DeviceConfig::Hpet => "HPET",
            DeviceConfig::Keyboard => "8042",
            DeviceConfig::Triggers => "ELCR",
            DeviceConfig::Power => "ACPI",
        }
    }
}

impl MachineConfig {
    /// A machine for guests of `lockstep-abi` on KVM, without a network, and with quantum, seed and
    /// clock 0.
    pub fn new(mem_mib: u32) -> MachineConfig {
        MachineConfig {
            model: MODEL_VERSION,
            cpu: CpuKind::Kvm,
            counts: Counts::BranchEdges,
            boot: BootProtocol::LockstepAbi,
            devices: vec![
                DeviceConfig::Pit,
                DeviceConfig::Uart,
                DeviceConfig::VirtioConsole,
                DeviceConfig::VirtioRng,
            ],
            mem_mib,
            quantum: 0,
            seed: 0,
            wall_ns: 0,
        }
    }

    /// The same on this CPU, with this counted.
    pub fn on(mut self, cpu: CpuKind, counts: Counts) -> MachineConfig {
        (self.cpu, self.counts) = (cpu, counts);
        self
    }

    /// The same for a guest that starts in this way.
    pub fn for_boot(mut self, boot: BootProtocol) -> MachineConfig {
        self.boot = boot;
        match boot {
            BootProtocol::LockstepAbi => {}
            BootProtocol::Linux => {
                self.devices.extend([
                    DeviceConfig::Cmos,
                    DeviceConfig::Hpet,
                    DeviceConfig::Keyboard,
                    DeviceConfig::Triggers,
                    DeviceConfig::Power,
                ]);
                // The last that can take the console's input gets it. A shell is on the serial port also
                // where a driver of virtio-console was loaded.
                self.devices.retain(|device| *device != DeviceConfig::Uart);
                self.devices.push(DeviceConfig::Uart);
            }
        }
        self
    }

    /// The same with this network, if there is one.
    pub fn with_net(mut self, net: Option<NetConfig>) -> MachineConfig {
        self.devices.extend(net.map(DeviceConfig::VirtioNet));
        self
    }

    /// Why no CPU here continues what that of the machine counted; `None` if one does.
    fn cpu_refusal(&self) -> Option<String> {
        match (self.counts, self.cpu) {
            (Counts::BranchEdges, CpuKind::Kvm | CpuKind::Soft { .. }) => None,
            (
                Counts::Instructions,
                CpuKind::Soft {
                    model: SOFT_CPU_MODEL,
                },
            ) => None,
            (Counts::Instructions, CpuKind::Soft { model }) => Some(format!(
                "has the software CPU of model {model} and this version of lockstep has model \
                 {SOFT_CPU_MODEL}: use the version of lockstep that made it"
            )),
            (Counts::Instructions, CpuKind::Kvm) => {
                Some("counts instructions on KVM, which counts none".into())
            }
        }
    }

    /// The network, if there is one.
    pub fn net(&self) -> Option<NetConfig> {
        self.devices.iter().find_map(|device| match device {
            DeviceConfig::VirtioNet(net) => Some(*net),
            DeviceConfig::Pit
            | DeviceConfig::Uart
            | DeviceConfig::VirtioConsole
            | DeviceConfig::VirtioRng
            | DeviceConfig::Cmos
            | DeviceConfig::Hpet
            | DeviceConfig::Keyboard
            | DeviceConfig::Triggers
            | DeviceConfig::Power => None,
        })
    }

    /// Why this version of lockstep cannot build the machine; `None` if it can. `source` names the
    /// origin of the configuration.
    pub fn refusal(&self, source: &str) -> Option<String> {
        if self.model != MODEL_VERSION {
            return Some(format!(
                "{source} is of machine model {} and this version of lockstep builds model \
                 {MODEL_VERSION}: use the version of lockstep that made it",
                self.model
            ));
        }
        if (self.boot, self.counts) == (BootProtocol::Linux, Counts::BranchEdges) {
            return Some(format!(
                "{source} boots Linux and counts branch edges, which Linux does not"
            ));
        }
        if let Some(why) = self.cpu_refusal() {
            return Some(format!("{source} {why}"));
        }
        let kinds: BTreeSet<_> = self.devices.iter().map(DeviceConfig::name).collect();
        (kinds.len() != self.devices.len())
            .then(|| format!("{source} has two devices of one kind, which no machine has"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_this_version_cannot_build_is_refused_with_a_sentence() {
        let sound = MachineConfig::new(64);
        assert_eq!(sound.refusal("the log"), None);
        let mut older = sound.clone();
        older.model -= 1;
        let why = older.refusal("the log").unwrap();
        assert!(why.contains("machine model"), "{why}");
        let soft = |model| {
            let kind = CpuKind::Soft { model };
            sound.clone().on(kind, Counts::Instructions)
        };
        assert_eq!(soft(SOFT_CPU_MODEL).refusal("the log"), None);
        let why = soft(SOFT_CPU_MODEL + 1).refusal("the log").unwrap();
        assert!(why.contains("software CPU of model"), "{why}");
        let nobodys = sound.clone().on(CpuKind::Kvm, Counts::Instructions);
        let why = nobodys.refusal("the log").unwrap();
        assert!(why.contains("on KVM"), "{why}");
        let uncounted = sound.clone().for_boot(BootProtocol::Linux);
        let why = uncounted.refusal("the log").unwrap();
        assert!(why.contains("which Linux does not"), "{why}");
        let mut twice = sound;
        twice.devices.push(DeviceConfig::Pit);
        let why = twice.refusal("the log").unwrap();
        assert!(why.contains("two devices"), "{why}");
    }
}
