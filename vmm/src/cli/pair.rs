//! `lockstep pair`: both halves of a pair on this machine, as two processes with an arbiter of their own.

use super::member::runtime;
use super::options::{NetArg, load_guest};
use super::{CliError, Status};
use clap::Args;
use ft_protocol::arbiter::check_vm_name;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// Exit statuses of a process that a signal ended begin after this, as a shell reports them.
const SIGNAL_BASE: u8 = 128;

/// Arguments of `pair`.
#[derive(Args, Debug)]
pub struct PairArgs {
    /// A guest that ships with Lockstep, or the path of an ELF file.
    guest: String,
    /// Name of the VM: what `lockstep stop` and `lockstep switchover` are told.
    #[arg(long, value_name = "NAME", default_value = "pair")]
    vm: String,
    /// Memory, MiB (64 unless told).
    #[arg(long, value_name = "MIB")]
    mem: Option<u32>,
    /// Branch edges after which a computing guest is left once; 0 for never (100,000 unless told).
    #[arg(long, value_name = "EDGES")]
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
}

/// Runs the pair to its end; the status is the survivor's, or that of the member which ended last.
pub fn run(args: &PairArgs) -> Result<ExitCode, CliError> {
    check_vm_name(&args.vm).map_err(CliError::refused)?;
    let nets = args.nets()?;
    // Both sides would say it.
    load_guest(&args.guest)?;
    let place = Place::make().map_err(|e| {
        CliError::refused(format!(
            "cannot prepare an arbiter and a channel for the pair ({e}); see to space and permissions \
             in the directory for temporary files"
        ))
    })?;
    runtime()?.block_on(async {
        let failed = |e: io::Error| CliError::failed(format!("cannot run the pair ({e})"));
        let mut pair = Pair::start(args, &nets, place).map_err(failed)?;
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

    fn command(&self, role: &'static str, net: &str, place: &Place) -> Command {
        // This path means the same file even after an update.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("lockstep").arg(role).arg(&self.guest);
        command.args(["--vm", &self.vm, "--arbiter", &place.arbiter]);
        command.args(["--channel", &place.channel, "--net", net]);
        command.args(["--console", &self.console]);
        command.arg("--events").arg(place.events(role));
        for (option, value) in [
            ("--mem", self.mem.map(u64::from)),
            ("--quantum", self.quantum),
        ] {
            if let Some(value) = value {
                command.args([option, &value.to_string()]);
            }
        }
        if let Some(dir) = &self.record {
            command.arg("--record").arg(dir.join(role));
        }
        command.kill_on_drop(true);
        command
    }
}

/// What the two share. The arbiter goes when this is dropped: nobody may join later.
struct Place {
    dir: TempDir,
    arbiter: String,
    channel: String,
}

impl Place {
    fn make() -> io::Result<Place> {
        let dir = tempfile::Builder::new()
            .prefix("lockstep-pair-")
            .tempdir()?;
        let arbiter = dir.path().join("arbiter");
        fs::create_dir(&arbiter)?;
        // The port is free again for the primary; one that loses it to another says so.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Place {
            arbiter: format!("file:{}", arbiter.display()),
            channel: free.to_string(),
            dir,
        })
    }

    fn events(&self, role: &str) -> PathBuf {
        self.dir.path().join(format!("{role}.events"))
    }

    /// Whether a side has told of this event.
    fn told(&self, role: &str, event: &str) -> bool {
        let text = fs::read_to_string(self.events(role)).unwrap_or_default();
        text.contains(&format!(r#""event":"{event}""#))
    }
}

/// The two processes. Console input is read by the one that runs the guest only.
struct Pair {
    place: Place,
    primary: Side,
    backup: Side,
    terminate: SignalStream,
    interrupt: SignalStream,
    told: bool,
}

struct Side {
    child: Child,
    ended: bool,
}

impl Side {
    fn start(mut command: Command) -> io::Result<Side> {
        Ok(Side {
            child: command.spawn()?,
            ended: false,
        })
    }

    /// Its end; never again once it has ended. Cancel-safe.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        if self.ended {
            std::future::pending::<()>().await;
        }
        let status = self.child.wait().await?;
        self.ended = true;
        Ok(status)
    }

    /// SIGTERM, if it still runs.
    fn terminate(&self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32));
        if let Some(pid) = pid.filter(|_| !self.ended)
            && let Err(e) = kill_process(pid, Signal::TERM)
        {
            tracing::warn!("a member cannot be told to end ({e})");
        }
    }
}

impl Pair {
    fn start(args: &PairArgs, nets: &[String; 2], place: Place) -> io::Result<Pair> {
        Ok(Pair {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            primary: Side::start(args.command("primary", &nets[0], &place))?,
            backup: Side::start(args.command("backup", &nets[1], &place))?,
            place,
            told: false,
        })
    }

    async fn run(&mut self) -> io::Result<ExitCode> {
        let first = self.next_end().await?;
        let (alone, other) = match self.primary.ended {
            true => (self.place.told("primary", "solo"), &mut self.backup),
            false => (self.place.told("backup", "live"), &mut self.primary),
        };
        if alone {
            // The survivor has ended, so the other one hangs, or does not know yet that it lost.
            other.child.kill().await?;
            return Ok(code(first));
        }
        // What ended before the guest ran has said why; there is no pair without it.
        let failed = !self.place.told("primary", "started");
        if failed {
            other.terminate();
        }
        let last = self.next_end().await?;
        Ok(code(if failed { first } else { last }))
    }

    /// Waits until one more of the two has ended.
    async fn next_end(&mut self) -> io::Result<ExitStatus> {
        loop {
            tokio::select! {
                status = self.primary.end() => return status,
                status = self.backup.end() => return status,
                _ = self.terminate.recv() => self.pass_on(),
                // A terminal sends it to the members too; this process stays to see how they end.
                _ = self.interrupt.recv() => {}
            }
        }
    }

    /// SIGTERM goes to the side that runs the guest; a second one to both.
    fn pass_on(&mut self) {
        if !self.primary.ended {
            self.primary.terminate();
        }
        if self.primary.ended || self.told {
            self.backup.terminate();
        } else {
            tracing::info!("the primary is told to end; a second signal tells the backup too");
        }
        self.told = true;
    }
}

/// A process's status as this one's.
fn code(status: ExitStatus) -> ExitCode {
    let byte = |number: i32| u8::try_from(number).ok();
    let code = status.code().and_then(byte);
    let signal = status.signal().and_then(byte);
    let told = code.or_else(|| signal?.checked_add(SIGNAL_BASE));
    ExitCode::from(told.unwrap_or(Status::Failed as u8))
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

    #[test]
    fn a_member_that_a_signal_ended_gives_its_number_as_a_shell_does() {
        for (raw, wanted) in [(0, 0), (3 << 8, 3), (9, 137)] {
            let given = code(ExitStatus::from_raw(raw));
            assert_eq!(given, ExitCode::from(wanted), "{raw}");
        }
    }
}
