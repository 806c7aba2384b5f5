//! `lockstep debug`, and `replay --gdb`: a recording under gdb.

use super::cpus::CpuChoice;
use super::replay::{self, Opened, ReplayArgs};
use super::{CliError, Status};
use clap::Args;
use lockstep_debug::{DebugError, Session, serve_pipe};
use lockstep_out as out;
use lockstep_replay::dir::IMAGE_FILE;
use rustix::fs::{MemfdFlags, memfd_create};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `--gdb -`: gdb is at standard input and output.
const PIPE: &str = "-";

/// Arguments of `debug`.
#[derive(Args, Debug)]
pub struct DebugArgs {
    /// The directory that was given to --record.
    dir: PathBuf,
    /// The gdb to start.
    #[arg(long, value_name = "PROGRAM", default_value = "gdb")]
    gdb: PathBuf,
    /// An ELF file with the guest's symbols, if the recording's own image has none.
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,
    /// Memory for the way back, MiB: with more of it, long ways back take less time.
    #[arg(long, value_name = "MIB")]
    gdb_memory: Option<u64>,
    /// Arguments for gdb, after --: commands among them come when it is connected.
    #[arg(last = true, value_name = "ARGUMENT")]
    more: Vec<OsString>,
}

/// Lets gdb debug a recording.
pub fn serve(args: &ReplayArgs, at: &str) -> Result<Status, CliError> {
    if args.cpu == CpuChoice::Kvm {
        return Err(CliError::refused(
            "KVM cannot run a guest step by step: gdb debugs recordings on the software CPU, those of KVM too; \
             leave --cpu out",
        ));
    }
    let Opened {
        log,
        backend,
        machine,
        ..
    } = replay::open(&args.dir, CpuChoice::Soft, None)?;
    let listener = match at {
        PIPE => None,
        at => Some(TcpListener::bind(at).map_err(|e| {
            CliError::refused(format!(
                "cannot listen on {at} ({e}); give --gdb an address of this host, like 127.0.0.1:1234"
            ))
        })?),
    };
    let outlet = Box::new(replay::console(listener.is_none())?);
    let most_bytes = (args.gdb_memory as usize).saturating_mul(1 << 20);
    let session = Session::new(backend, log, machine, outlet, most_bytes)?;
    match listener {
        None => pipe(session)?,
        Some(listener) => {
            let address = listener.local_addr().map_err(DebugError::Connection)?;
            out::say(format_args!(
                "lockstep: waits for gdb: gdb {} -ex 'target remote {address}'",
                args.dir.join(IMAGE_FILE).display()
            ));
            lockstep_debug::serve(session, &listener)?;
        }
    }
    Ok(Status::Done)
}

/// gdb is at the other end of standard input and output.
fn pipe(session: Session) -> Result<(), CliError> {
    let input = io::stdin().as_fd().try_clone_to_owned();
    let output = io::stdout().as_fd().try_clone_to_owned();
    let (input, output) = input
        .and_then(|input| Ok((input, output?)))
        .map_err(DebugError::Connection)?;
    Ok(serve_pipe(session, input, output)?)
}

/// Becomes a gdb that debugs the recording.
pub fn run(args: &DebugArgs) -> Result<Status, CliError> {
    // What is wrong with the recording is said here, not in gdb.
    drop(replay::open(&args.dir, CpuChoice::Soft, None)?);
    let this = std::env::current_exe()
        .map_err(|e| CliError::failed(format!("cannot find this program ({e})")))?;
    let mut server = format!(
        "target remote | exec {} replay {} --gdb {PIPE}",
        quoted(&this)?,
        quoted(&args.dir)?
    );
    if let Some(mib) = args.gdb_memory {
        server += &format!(" --gdb-memory {mib}");
    }
    let image = args.dir.join(IMAGE_FILE);
    let mut command = Command::new(&args.gdb);
    command.args(["-q", "-iex", "set architecture i386:x86-64"]);
    command.arg(args.symbols.as_ref().unwrap_or(&image));
    command.arg("-x").arg(setup()?).args(["-ex", &server]);
    command.args(&args.more);
    let error = command.exec();
    let gdb = args.gdb.display();
    Err(CliError::refused(match error.kind() {
        ErrorKind::NotFound => {
            format!("there is no {gdb} here; install gdb, or name one with --gdb PROGRAM")
        }
        _ => format!("cannot start {gdb} ({error}); name another gdb with --gdb PROGRAM"),
    }))
}

/// What gdb must know of this machine: a `monitor` command may have gone to another moment.
const SETUP: &str = "define hookpost-monitor\nmaintenance flush register-cache\nend\n";

/// A file with that, which lives as long as this process, whatever program it becomes.
fn setup() -> Result<String, CliError> {
    let cannot = |e: io::Error| CliError::failed(format!("cannot make gdb's script ({e})"));
    let file = memfd_create("gdb setup", MemfdFlags::empty()).map_err(|e| cannot(e.into()))?;
    let mut file = File::from(file);
    file.write_all(SETUP.as_bytes()).map_err(cannot)?;
    Ok(format!("/proc/self/fd/{}", file.into_raw_fd()))
}

/// A path for the shell that gdb starts.
fn quoted(path: &Path) -> Result<String, CliError> {
    let text = path.to_str().ok_or_else(|| {
        CliError::refused(format!(
            "{} is no UTF-8, and gdb cannot be told of it; give the directory another name",
            path.display()
        ))
    })?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}
