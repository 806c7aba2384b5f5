//! `lockstep run`: runs one machine, unprotected.

mod from;

use super::guest::LinuxArgs;
use super::options::{Backends, MachineArgs, new_header};
use super::{CliError, Status};
use clap::Args;
use from::From;
use ft_protocol::log::{EndReason, Header, LogStart};
use lockstep_backends::Waker;
use lockstep_backends::console::Hurry;
use lockstep_loader::Image;
use lockstep_machine::drive::{Driven, drive};
use lockstep_machine::{Machine, Moment};
use lockstep_out as out;
use lockstep_pulse::{Pulse, PulseWatch, install_kick};
use lockstep_replay::journal::Journal;
use lockstep_replay::record::{Controls, Recorder};
use lockstep_replay::{Fork, IfSlow, LogDirError, LogDirWriter, LogQueue};
use lockstep_signals::Hangup;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How long a guest that must stop may take to reach its next position.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// How long one that is cut off has to come out of its guest, and how often it is kicked.
const CUT_LIMIT: Duration = Duration::from_millis(200);
const KICK_INTERVAL: Duration = Duration::from_millis(5);

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// A guest that ships with Lockstep, or the path of an ELF file or of a Linux kernel.
    #[arg(required_unless_present = "from")]
    guest: Option<String>,
    #[command(flatten)]
    linux: LinuxArgs,
    /// Go on live from where a recording left this exit, instead of starting a guest. The recording stays as it
    /// is.
    #[arg(long, value_name = "DIR@EXIT", conflicts_with_all = ["guest", "initrd", "append", "mem", "quantum"])]
    from: Option<From>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Record the run in this new directory, for `lockstep replay`.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
}

/// Runs it.
pub fn run(args: RunArgs) -> Result<Status, CliError> {
    let backends = Backends::open(&args.machine)?;
    let started = match &args.from {
        Some(from) => from::fork(from, &args.machine)?,
        None => new(&args)?,
    };
    backends.filter_for(started.header.machine.net());
    let writer = args.record.as_deref().map(|dir| started.recorded_in(dir));
    let writer = writer.transpose()?;
    let Started {
        mut machine, fork, ..
    } = started;
    let start = fork.as_ref().map_or(LogStart::default(), |fork| fork.start);
    let consumers = writer
        .iter()
        .map(|writer| writer.consumer(IfSlow::Wait))
        .collect();
    let journal = Journal::new(start.seq + 1, consumers);
    let controls = Arc::new(Controls::default());
    let hurry =
        Hurry::new().map_err(|e| CliError::failed(format!("cannot make an eventfd ({e})")))?;
    let (live, direct) = backends.live(hurry.clone())?;
    let mut live = live.with_line(machine.has_line());
    let mut watch = PulseWatch::new(Pulse::default());
    machine.set_pulse(watch.pulse());
    live.set_pulse(watch.pulse());
    let waker = live.waker();
    if fork.is_some() {
        live = live.continued(machine.view().now_ns);
    }
    let mut recorder = Recorder::new(live, direct, journal, controls.clone(), start.outputs);
    let (begin, begins) = channel();
    let (end, ended) = channel();
    let thread = std::thread::Builder::new().name("vcpu".into());
    let thread = thread.spawn(move || {
        if begins.recv().is_ok() {
            let driven = drive(&mut machine, &mut recorder);
            // The main thread waits for it.
            let _asked = end.send((driven, recorder.close(), machine.moment()));
        }
    });
    let cannot = |e| CliError::failed(format!("cannot start a thread for the vCPU ({e})"));
    watch.attach(thread.map_err(cannot)?);
    let running = stop_on_signal(Stop {
        waker,
        hurry,
        controls,
        disk: writer.as_ref().map(LogDirWriter::queue),
        watch,
    })?;
    let _begun = begin.send(());
    let (driven, closed, moment) = ended.recv().expect("the vCPU's thread tells of its end");
    drop(running);
    let written = writer.map_or(Ok(()), LogDirWriter::finish);
    let driven = driven?;
    closed.and(written).map_err(CliError::failed)?;
    Ok(report_end(driven, moment, args.record.as_deref()))
}

/// Says how the guest ended and where, and how its user looks into that.
fn report_end(driven: Driven, moment: Moment, recording: Option<&Path>) -> Status {
    let (at, rip) = (moment.at, moment.check.rip);
    let status = report_at(driven, &format!(" at position {at}, RIP {rip:#x}"));
    if let (Driven::Ended(EndReason::Dead | EndReason::Reset), Some(dir)) = (driven, recording) {
        out::say(format_args!(
            "lockstep: gdb opens there: lockstep debug {} -- -ex continue",
            dir.display()
        ));
    }
    status
}

/// A machine that is about to run.
struct Started {
    machine: Machine,
    header: Header,
    image: Image,
    /// Where it left a recording.
    fork: Option<Fork>,
}

impl Started {
    /// Has it recorded in this new directory.
    fn recorded_in(&self, dir: &Path) -> Result<LogDirWriter, LogDirError> {
        let (header, image) = (&self.header, &self.image);
        match &self.fork {
            None => LogDirWriter::create(dir, header, image),
            Some(Fork { state, start }) => {
                let machine = (state, self.machine.ram());
                LogDirWriter::create_at(dir, header, image, *start, machine, &|| ())
            }
        }
    }
}

/// A new machine with a guest.
fn new(args: &RunArgs) -> Result<Started, CliError> {
    let guest = args
        .guest
        .as_deref()
        .expect("there is a guest or a recording");
    let image = args.linux.load(guest)?;
    let (header, backend) = new_header(guest, &args.machine, &image)?;
    Ok(Started {
        machine: Machine::new(backend, &header.machine, &image)?,
        header,
        image,
        fork: None,
    })
}

/// Says how the guest ended. The guest's status decides the command's.
pub(super) fn report(driven: Driven) -> Status {
    report_at(driven, "")
}

/// The same, with the place if there is one to tell.
fn report_at(driven: Driven, place: &str) -> Status {
    match driven {
        Driven::Ended(EndReason::Exited { status: 0 }) => Status::Done,
        Driven::Ended(EndReason::Exited { status }) => {
            out::tell(format_args!("the guest ended with status {status}"));
            Status::Failed
        }
        Driven::Ended(EndReason::Dead) => {
            out::tell(format_args!(
                "the guest died{place}: it halted with interrupts off or its CPU shut down"
            ));
            Status::Failed
        }
        Driven::Ended(EndReason::Reset) => {
            out::tell(format_args!(
                "the guest reset its machine{place}, which ends it: a panic or a reboot, as its console says"
            ));
            Status::Failed
        }
        Driven::Ended(EndReason::Stopped) => {
            out::tell("stopped");
            Status::Done
        }
        Driven::Stopped => {
            out::tell("the guest reached no position to stop at; it was cut off");
            Status::Failed
        }
    }
}

/// What is needed to end a machine from another thread.
struct Stop {
    waker: Waker,
    hurry: Hurry,
    controls: Arc<Controls>,
    /// What waits for the recording's disk.
    disk: Option<LogQueue>,
    watch: PulseWatch,
}

impl Stop {
    /// Makes the machine end at its next position.
    fn ask(&self) {
        self.controls.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.hurry.up();
    }

    /// The machine did not end in time, nor comes out of its guest: why, to go on a sentence about it.
    fn cut_off(&self) -> &'static str {
        if self.disk.as_ref().is_some_and(LogQueue::is_full) {
            return "the recording's disk takes nothing, and the guest waited for it";
        }
        match self.hurry.is_waiting() {
            true => "the console takes nothing, and the guest waited for it",
            false => "the guest reached no position to stop at",
        }
    }

    /// Has the machine come out of its guest where it is. Returns when that was tried for long enough.
    async fn kick_out(&mut self) {
        self.controls.cut_off.store(true, Ordering::Release);
        let mut left = CUT_LIMIT;
        while !left.is_zero() {
            self.watch.nudge();
            tokio::time::sleep(KICK_INTERVAL).await;
            left = left.saturating_sub(KICK_INTERVAL);
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP end the machine at its next position, with an end entry. A guest that
/// reaches none in time, or is not waited for (a second one of the first two), is cut off; its log is
/// whole up to there all the same. Nothing is cut off once the sender that is returned is dropped.
fn stop_on_signal(mut stop: Stop) -> Result<oneshot::Sender<()>, CliError> {
    let cannot = |e| CliError::failed(format!("cannot wait for signals ({e})"));
    install_kick().map_err(cannot)?;
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
        // Then it ends by itself, with its log handed on.
        tokio::select! {
            () = stop.kick_out() => {}
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
