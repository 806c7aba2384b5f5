//! Machine options, and the guest and machine that they describe.

use super::CliError;
use super::cpus::{CpuChoice, for_guest};
use clap::Args;
use ft_protocol::log::{
    BootProtocol, Counts, CpuKind, GuestImage, Header, MachineConfig, NetConfig,
};
use lockstep_backends::console::{ConsoleChoice, ConsoleInput, ConsoleOutput, Hurry};
use lockstep_backends::live::Direct;
use lockstep_backends::tap::look_after;
use lockstep_backends::{Live, Tap};
use lockstep_ft::unix_ns;
use lockstep_loader::Image;
use lockstep_loader::default_mac;
use lockstep_machine::host_print;
use lockstep_vcpu::CpuBackend;
use std::str::FromStr;
use std::sync::Arc;

/// Default edges per quantum: see `docs/determinism.md` for the measurement.
const DEFAULT_QUANTUM_EDGES: u64 = 100_000;
/// The same where the software CPU runs a guest that counts edges.
const DEFAULT_QUANTUM_EDGES_SOFT: u64 = 20_000;
/// Default instructions per quantum: see there too.
pub const DEFAULT_QUANTUM_INSTRUCTIONS: u64 = 200_000;
/// Default memory, MiB.
const DEFAULT_MEM_MIB: u32 = 64;
/// The same for Linux.
const DEFAULT_LINUX_MEM_MIB: u32 = 512;
/// The guest's default address.
const DEFAULT_IP: [u8; 4] = [10, 77, 0, 2];
const DEFAULT_PREFIX_LEN: u8 = 24;

/// Options that describe the machine and its backends.
#[derive(Args, Clone, Debug)]
pub struct MachineArgs {
    /// Memory, MiB (64 unless told, 512 for Linux).
    #[arg(long, value_name = "MIB")]
    pub mem: Option<u32>,
    /// The CPU: this host's KVM, the one in software, or KVM where it can be used and suits the guest.
    #[arg(long, value_name = "kvm|soft|auto", value_enum, default_value = "auto")]
    pub cpu: CpuChoice,
    /// Branch edges, or instructions if those are counted, after which a computing guest is left once, so
    /// that interrupts reach it; 0 for never. Unless told, 100,000 edges on KVM, 20,000 on the software CPU, and 200,000 instructions.
    #[arg(long, value_name = "COUNT")]
    pub quantum: Option<u64>,
    /// Network: an existing TAP, and what the guest is told.
    #[arg(
        long,
        value_name = "tap=NAME[,mac=…][,ip=CIDR][,gw=…]|none",
        default_value = "none"
    )]
    pub net: NetArg,
    /// The guest's console: stdio, none, or a file that its output is added to.
    #[arg(long, value_name = "stdio|PATH|none", default_value = "stdio")]
    pub console: ConsoleChoice,
}

/// `--net`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetArg {
    /// Name of the TAP; without it there is no network.
    pub tap: Option<String>,
    /// MAC, if given.
    pub mac: Option<[u8; 6]>,
    /// Address and prefix length, if given.
    pub ip: Option<([u8; 4], u8)>,
    /// Gateway, if given.
    pub gateway: Option<[u8; 4]>,
}

impl FromStr for NetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<NetArg, String> {
        let mut net = NetArg::default();
        if text == "none" {
            return Ok(net);
        }
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("tap", name)) if !name.is_empty() => net.tap = Some(name.into()),
                Some(("mac", mac)) => net.mac = Some(parse_mac(mac)?),
                Some(("ip", cidr)) => net.ip = Some(parse_cidr(cidr)?),
                Some(("gw", ip)) => net.gateway = Some(parse_ip(ip)?),
                _ => return Err(format!("`{part}` is not tap=, mac=, ip= or gw=")),
            }
        }
        match net.tap {
            Some(_) => Ok(net),
            None => Err("a network needs tap=NAME".into()),
        }
    }
}

fn parse_ip(text: &str) -> Result<[u8; 4], String> {
    let ip: std::net::Ipv4Addr = text
        .parse()
        .map_err(|_| format!("`{text}` is no IPv4 address"))?;
    Ok(ip.octets())
}

fn parse_cidr(text: &str) -> Result<([u8; 4], u8), String> {
    let bad = || format!("`{text}` is no IPv4 address with a prefix length, like 10.77.0.2/24");
    let (ip, len) = text.split_once('/').ok_or_else(bad)?;
    let len: u8 = len.parse().ok().filter(|len| *len <= 32).ok_or_else(bad)?;
    Ok((parse_ip(ip).map_err(|_| bad())?, len))
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    match <[u8; 6]>::try_from(bytes) {
        Ok(mac) if mac[0] & 1 == 0 && text.len() == 17 => Ok(mac),
        Ok(_) => Err(format!("`{text}` is no address of a single card")),
        Err(_) => Err(format!("`{text}` is no MAC, like 02:00:00:00:00:02")),
    }
}

impl NetArg {
    /// The network configuration for the guest of VM `vm`.
    pub fn config(&self, vm: &str) -> Option<NetConfig> {
        self.tap.as_ref()?;
        let (ip, prefix_len) = self.ip.unwrap_or((DEFAULT_IP, DEFAULT_PREFIX_LEN));
        Some(NetConfig {
            mac: self.mac.unwrap_or_else(|| default_mac(vm)),
            ip,
            prefix_len,
            gateway: self.gateway.unwrap_or_default(),
        })
    }

    /// Opens the TAP, and has a thread watch it from now on.
    pub fn open(&self) -> Result<Option<Arc<Tap>>, CliError> {
        let open = |name| {
            let tap = Arc::new(Tap::open(name)?);
            look_after(&tap)
                .map_err(|e| CliError::failed(format!("cannot start a thread ({e})")))?;
            Ok(tap)
        };
        self.tap.as_deref().map(open).transpose()
    }
}

/// The header of a new machine's log, and the CPU that the machine is to run on.
pub fn new_header(
    vm: &str,
    args: &MachineArgs,
    image: &Image,
) -> Result<(Header, &'static dyn CpuBackend), CliError> {
    let started_ns = unix_ns();
    let (backend, counts) = for_guest(args.cpu.cpus(), image)?;
    let quantum = args.quantum.unwrap_or(match (counts, backend.kind()) {
        (Counts::BranchEdges, CpuKind::Kvm) => DEFAULT_QUANTUM_EDGES,
        (Counts::BranchEdges, CpuKind::Soft { .. }) => DEFAULT_QUANTUM_EDGES_SOFT,
        (Counts::Instructions, _) => DEFAULT_QUANTUM_INSTRUCTIONS,
    });
    let mem = args.mem.unwrap_or(match image.boot() {
        BootProtocol::LockstepAbi => DEFAULT_MEM_MIB,
        BootProtocol::Linux => DEFAULT_LINUX_MEM_MIB,
    });
    let machine = MachineConfig::new(mem)
        .on(backend.kind(), counts)
        .for_boot(image.boot())
        .with_net(args.net.config(vm));
    let header = Header {
        vm: vm.to_string(),
        machine: MachineConfig {
            quantum,
            seed: rand::random(),
            wall_ns: started_ns,
            ..machine
        },
        guest: GuestImage {
            name: image.name().to_string(),
            hash: image.hash(),
        },
        host: host_print(backend)?,
        started_ns,
    };
    Ok((header, backend))
}

/// The live backends of the options.
pub struct Backends {
    /// The TAP, shared by both directions.
    pub tap: Option<Arc<Tap>>,
    console: ConsoleChoice,
    console_output: ConsoleOutput,
}

impl Backends {
    /// Opens them.
    pub fn open(args: &MachineArgs) -> Result<Backends, CliError> {
        let console_output = ConsoleOutput::open(&args.console).map_err(|e| {
            CliError::refused(format!(
                "cannot write the console's file ({e}); give --console another path, stdio or none"
            ))
        })?;
        Ok(Backends {
            tap: args.net.open()?,
            console: args.console.clone(),
            console_output,
        })
    }

    /// From now on the TAP only gives frames for the guest with this network.
    pub fn filter_for(&self, net: Option<NetConfig>) {
        if let (Some(tap), Some(net)) = (&self.tap, net) {
            tap.filter_for(net.mac);
        }
    }

    /// Inputs and outputs of a machine that runs alone, and waits for its console until `hurry` ends
    /// that.
    pub fn live(self, hurry: Hurry) -> Result<(Live, Direct), CliError> {
        self.with(|tap, console| Direct::new(tap, console, hurry))
    }

    /// Inputs and outputs of a member of a pair.
    pub fn live_in_pair(self) -> Result<(Live, Direct), CliError> {
        self.with(Direct::patient)
    }

    fn with(
        self,
        direct: impl FnOnce(Option<Arc<Tap>>, ConsoleOutput) -> Direct,
    ) -> Result<(Live, Direct), CliError> {
        let console = ConsoleInput::open(&self.console);
        let live = Live::new(self.tap.clone(), console)
            .map_err(|e| CliError::failed(format!("cannot make an eventfd ({e})")))?;
        Ok((live, direct(self.tap, self.console_output)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_parsed() {
        let net: NetArg = "tap=t0,mac=02:00:00:00:00:09,ip=10.1.2.3/16,gw=10.1.0.1"
            .parse()
            .unwrap();
        let config = net.config("vm").unwrap();
        assert_eq!(config.mac, [2, 0, 0, 0, 0, 9]);
        assert_eq!((config.ip, config.prefix_len), ([10, 1, 2, 3], 16));
        assert_eq!(config.gateway, [10, 1, 0, 1]);
        assert_eq!("none".parse(), Ok(NetArg::default()));
        let plain: NetArg = "tap=t0".parse().unwrap();
        assert_eq!(plain.config("a").unwrap().ip, DEFAULT_IP);
        assert_ne!(
            plain.config("a").unwrap().mac,
            plain.config("b").unwrap().mac
        );
    }

    #[test]
    fn bad_networks_are_refused() {
        for bad in [
            "",
            "tap=",
            "mac=02:00:00:00:00:09",
            "tap=t,mac=02:00",
            "tap=t,mac=01:00:00:00:00:00",
            "tap=t,mac=002:00:00:00:00:0",
            "tap=t,ip=10.0.0.1",
            "tap=t,ip=10.0.0.1/33",
            "tap=t,gw=x",
            "tap=t,colour=red",
        ] {
            assert!(bad.parse::<NetArg>().is_err(), "{bad}");
        }
    }
}
