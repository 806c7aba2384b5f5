//! `lockstep run`: runs one machine, unprotected.

use super::options::{Backends, MachineArgs, load_guest, new_header};
use super::{CliError, Status};
use clap::Args;
use ft_protocol::log::EndReason;
use lockstep_backends::Waker;
use lockstep_backends::console::Hurry;
use lockstep_machine::Machine;
use lockstep_machine::drive::{Driven, drive};
use lockstep_out as out;
use lockstep_replay::journal::Journal;
use lockstep_replay::record::{Controls, Recorder};
use lockstep_replay::{IfSlow, LogDirWriter};
use lockstep_signals::Hangup;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long a guest that must stop may take to reach its next position.
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
    let (header, backend) = new_header(&args.guest, &args.machine, &image)?;
    backends.filter_for(header.machine.net());
    let mut machine = Machine::new(backend, &header.machine, &image)?;
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
    let hurry =
        Hurry::new().map_err(|e| CliError::failed(format!("cannot make an eventfd ({e})")))?;
    let (live, direct) = backends.live(hurry.clone())?;
    let running = stop_on_signal(Stop {
        waker: live.waker(),
        hurry,
        controls: controls.clone(),
        journal: journal.clone(),
    })?;
    let mut recorder = Recorder::new(live, direct, journal, controls, 0);
    let driven = drive(&mut machine, &mut recorder);
    drop(running);
    let closed = recorder.close();
    let written = writer.map_or(Ok(()), LogDirWriter::finish);
    let driven = driven?;
    closed.and(written).map_err(CliError::failed)?;
    Ok(report(driven))
}

/// Says how the guest ended. The guest's status decides the command's.
pub(super) fn report(driven: Driven) -> Status {
    match driven {
        Driven::Ended(EndReason::Exited { status: 0 }) => Status::Done,
        Driven::Ended(EndReason::Exited { status }) => {
            out::tell(format_args!("the guest ended with status {status}"));
            Status::Failed
        }
        Driven::Ended(EndReason::Dead) => {
            out::tell("the guest died: it halted with interrupts off or its CPU shut down");
            Status::Failed
        }
        Driven::Ended(EndReason::Stopped) | Driven::Stopped => {
            out::tell("stopped");
            Status::Done
        }
    }
}

/// What is needed to end a machine from another thread.
struct Stop {
    waker: Waker,
    hurry: Hurry,
    controls: Arc<Controls>,
    journal: Arc<Mutex<Journal>>,
}

impl Stop {
    /// Makes the machine end at its next position.
    fn ask(&self) {
        self.controls.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.hurry.up();
    }

    /// Why the machine did not end in time, as a part of a sentence.
    fn cut_off(&self) -> &'static str {
        // If the vCPU's thread waits for the recording's disk, it holds the journal.
        let Ok(mut journal) = self.journal.try_lock() else {
            return "the recording's disk takes nothing, and the guest waited for it";
        };
        let _written = journal.flush();
        match self.hurry.is_waiting() {
            true => "the console takes nothing, and the guest waited for it",
            false => "the guest reached no position to stop at",
        }
    }
}

/// Makes SIGINT, SIGTERM and SIGHUP end the machine at its next position, with an end entry. A guest
/// that reaches no position in time, or gets SIGINT or SIGTERM a second time, is cut off; its log is
/// complete up to there. After the returned sender was dropped, nothing is cut off.
fn stop_on_signal(stop: Stop) -> Result<oneshot::Sender<()>, CliError> {
    let cannot = |e| CliError::failed(format!("cannot wait for signals ({e})"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(cannot)?;
    // The handlers must be in place before the guest runs, not only when the thread runs.
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(cannot)?,
            signal(SignalKind::terminate()).map_err(cannot)?,
            Hangup::listen().map_err(cannot)?,
        )
    };
    let (running, mut ended) = oneshot::channel();
    let wait = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = hangup.recv() => {}
            _ = &mut ended => return,
        }
        stop.ask();
        tokio::select! {
            () = tokio::time::sleep(STOP_LIMIT) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = &mut ended => return,
        }
        let why = stop.cut_off();
        out::tell(format_args!("{why}; it was cut off"));
        out::exit(Status::Failed as i32);
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(wait))
        .map_err(cannot)?;
    Ok(running)
}
