//! `lockstep run`: one machine, unprotected.

use super::options::{Backends, MachineArgs, load_guest, new_header};
use super::{CliError, Status};
use crate::backends::Waker;
use crate::machine::Machine;
use crate::machine::drive::{Driven, drive};
use crate::replay::journal::Journal;
use crate::replay::record::{Controls, Recorder};
use crate::replay::{IfSlow, LogDirWriter};
use clap::Args;
use ft_protocol::log::EndReason;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long a stopped guest has to reach its next position.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// A guest that ships with Lockstep, or the path of an ELF file.
    guest: String,
    #[command(flatten)]
    machine: MachineArgs,
    /// Record the run in this new directory, for `lockstep replay`.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: RunArgs) -> Result<Status, CliError> {
    let image = load_guest(&args.guest)?;
    let backends = Backends::open(&args.machine)?;
    let header = new_header(&args.guest, &args.machine, &image)?;
    backends.filter_for(header.machine.net);
    let mut machine = Machine::new(&header.machine, &image)?;
    let writer = match &args.record {
        Some(dir) => Some(LogDirWriter::create(dir, &header, &image)?),
        None => None,
    };
    let consumers = writer
        .iter()
        .map(|writer| writer.consumer(IfSlow::Wait))
        .collect();
    let journal = Arc::new(Mutex::new(Journal::new(1, consumers)));
    let controls = Arc::new(Controls::default());
    let (live, direct) = backends.live()?;
    let running = stop_on_signal(live.waker(), controls.clone(), journal.clone())?;
    let mut recorder = Recorder::new(live, direct, journal, controls, 0);
    let driven = drive(&mut machine, &mut recorder);
    drop(running);
    let closed = recorder.close();
    let written = writer.map_or(Ok(()), LogDirWriter::finish);
    let driven = driven?;
    closed.and(written).map_err(CliError::failed)?;
    Ok(report(driven))
}

/// Says how the guest ended; its status decides the command's.
pub(super) fn report(driven: Driven) -> Status {
    match driven {
        Driven::Ended(EndReason::Exited { status: 0 }) => Status::Done,
        Driven::Ended(EndReason::Exited { status }) => {
            eprintln!("lockstep: the guest ended with status {status}");
            Status::Failed
        }
        Driven::Ended(EndReason::Dead) => {
            eprintln!(
                "lockstep: the guest died: it halted with interrupts off or its CPU shut down"
            );
            Status::Failed
        }
        Driven::Ended(EndReason::Stopped) | Driven::Stopped => {
            eprintln!("lockstep: stopped");
            Status::Done
        }
    }
}

/// SIGINT and SIGTERM end the machine at its next position, with an end entry. A guest that reaches
/// none in time, or is not waited for (a second signal), is cut off; its log is whole up to there all
/// the same. Nothing is cut off once the sender that is returned is dropped.
fn stop_on_signal(
    waker: Waker,
    controls: Arc<Controls>,
    journal: Arc<Mutex<Journal>>,
) -> Result<oneshot::Sender<()>, CliError> {
    let cannot = |e| CliError::failed(format!("cannot wait for signals ({e})"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    // The handlers are in place before the guest runs, not when the thread gets to run.
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(cannot)?,
            signal(SignalKind::terminate()).map_err(cannot)?,
        )
    };
    let (running, mut ended) = oneshot::channel();
    let wait = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = &mut ended => return,
        }
        controls.stop.store(true, Ordering::Release);
        waker.wake();
        tokio::select! {
            () = tokio::time::sleep(STOP_LIMIT) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = &mut ended => return,
        }
        if let Ok(mut journal) = journal.try_lock() {
            let _written = journal.flush();
        }
        eprintln!("lockstep: the guest reached no position to stop at; it was cut off");
        std::process::exit(Status::Failed as i32);
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(wait))
        .map_err(cannot)?;
    Ok(running)
}
