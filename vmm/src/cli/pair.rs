//! `lockstep pair`: both halves of a pair on this machine, as two processes with a private arbiter.

mod member;
mod watch;

use super::CliError;
use super::guest::GuestArgs;
use super::member::runtime;
use super::options::NetArg;
use clap::Args;
use ft_protocol::arbiter::check_vm_name;
use lockstep_backends::console::Terminal;
use member::Place;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::process::Command;
use watch::Pair;

/// Arguments of `pair`.
#[derive(Args, Debug)]
pub struct PairArgs {
    #[command(flatten)]
    guest: GuestArgs,
    /// Name of the VM: what `lockstep stop` and `lockstep switchover` are told.
    #[arg(long, value_name = "NAME", default_value = "pair")]
    vm: String,
    /// Memory, MiB (64 unless told, 512 for Linux).
    #[arg(long, value_name = "MIB")]
    mem: Option<u32>,
    /// The CPU: this host's KVM, the one in software, or KVM where it can be used and suits the guest.
    #[arg(long, value_name = "kvm|soft|auto", value_parser = ["kvm", "soft", "auto"], default_value = "auto")]
    cpu: String,
    /// Branch edges, or instructions, after which a computing guest is left once; 0 for never.
    #[arg(long, value_name = "COUNT")]
    quantum: Option<u64>,
    /// Network: the primary's TAP, and what the guest is told.
    #[arg(
        long,
        value_name = "tap=NAME[,mac=…][,ip=CIDR][,gw=…]|none",
        default_value = "none"
    )]
    net: String,
    /// Network: the backup's TAP, on the same bridge.
    #[arg(long, value_name = "NAME")]
    backup_tap: Option<String>,
    /// The guest's console: stdio, none, or a file that its output is added to.
    #[arg(long, value_name = "stdio|PATH|none", default_value = "stdio")]
    console: String,
    /// Record into new directories in this one, `primary` and `backup`.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Start a new backup for every member that is lost, so that the VM outlives one failure after the
    /// other.
    #[arg(long)]
    keep: bool,
}

/// Runs the pair to its end. The status is the survivor's, or that of the member which ended last.
pub fn run(args: PairArgs) -> Result<ExitCode, CliError> {
    check_vm_name(&args.vm)?;
    let nets = args.nets()?;
    // Otherwise both sides would report this error.
    args.guest.load()?;
    let place = Place::make().map_err(|e| {
        CliError::refused(format!(
            "cannot prepare an arbiter and a channel for the pair ({e}); see to space and permissions \
             in the directory for sockets or for temporary files"
        ))
    })?;
    // A member that has the terminal may be killed.
    let _as_it_is = Terminal::keep();
    runtime()?.block_on(async {
        let failed = |e: io::Error| CliError::failed(format!("cannot run the pair ({e})"));
        let mut pair = Pair::start(args, nets, place).map_err(failed)?;
        pair.run().await.map_err(failed)
    })
}

impl PairArgs {
    /// `--net` of the primary and of the backup.
    fn nets(&self) -> Result<[String; 2], CliError> {
        let net: NetArg = self.net.parse().map_err(CliError::refused)?;
        match (net.tap, &self.backup_tap) {
            (None, None) => Ok([self.net.clone(), self.net.clone()]),
            (Some(first), Some(second)) if first != *second => {
                let parts = self.net.split(',').map(|part| match part {
                    part if part.starts_with("tap=") => format!("tap={second}"),
                    part => part.to_owned(),
                });
                Ok([self.net.clone(), parts.collect::<Vec<_>>().join(",")])
            }
            (Some(_), _) => Err(CliError::refused(
                "a pair needs a TAP for each side: give --net tap=NAME and --backup-tap with another",
            )),
            (None, Some(_)) => Err(CliError::refused(
                "--backup-tap is of no use to a guest without a network: give --net tap=NAME too",
            )),
        }
    }

    /// A member of this name.
    fn command(&self, role: &str, name: &str, channel: &str, net: &str, place: &Place) -> Command {
        // This path still means the same file after an update.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("lockstep").arg(role).args(self.guest.args());
        command.args(["--vm", &self.vm, "--arbiter", &place.arbiter]);
        command.args(["--channel", channel, "--net", net]);
        command.args(["--console", &self.console, "--cpu", &self.cpu]);
        command.arg("--events").arg(place.events(name));
        for (option, value) in [
            ("--mem", self.mem.map(u64::from)),
            ("--quantum", self.quantum),
        ] {
            if let Some(value) = value {
                command.args([option, &value.to_string()]);
            }
        }
        if let Some(dir) = &self.record {
            command.arg("--record").arg(dir.join(name));
        }
        command.kill_on_drop(true);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        pair: PairArgs,
    }

    fn nets(args: &[&str]) -> Result<[String; 2], String> {
        let line = ["pair", "kv"].iter().chain(args);
        let pair = Cli::parse_from(line).pair;
        pair.nets().map_err(|e| e.message)
    }

    #[test]
    fn the_backup_gets_the_same_network_on_its_own_tap() {
        let net = "ip=10.1.0.2/24,tap=a,mac=02:00:00:00:00:02";
        let theirs = "ip=10.1.0.2/24,tap=b,mac=02:00:00:00:00:02";
        let both = nets(&["--net", net, "--backup-tap", "b"]);
        assert_eq!(both, Ok([net.to_owned(), theirs.to_owned()]));
        assert_eq!(nets(&[]), Ok(["none".to_owned(), "none".to_owned()]));
    }

    #[test]
    fn one_tap_for_two_sides_is_refused() {
        for args in [
            &["--net", "tap=a"][..],
            &["--net", "tap=a", "--backup-tap", "a"],
            &["--backup-tap", "b"],
            &["--net", "tap", "--backup-tap", "b"],
        ] {
            assert!(nets(args).is_err(), "{args:?}");
        }
    }
}
