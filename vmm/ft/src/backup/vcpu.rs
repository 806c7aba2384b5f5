//! The backup's vCPU thread: builds the machine, or receives a copy of it; follows the log; and goes on
//! alone when it gets that job.

use super::copy::{self, Room};
use crate::MachineFailed;
use crate::cuts::Cuts;
use crate::feed::Feed;
use crate::outputs::HeldOutputs;
use crate::primary::Seat;
use ft_protocol::log::{Control, EndReason, Event, Header, Position};
use ft_protocol::transfer::StateDigest;
use lockstep_backends::Live;
use lockstep_loader::{Image, ImageError};
use lockstep_machine::drive::{DriveError, Driven, drive};
use lockstep_machine::{Machine, MachineError, Parts, StateError, suits};
use lockstep_memory::{PageError, RamError};
use lockstep_pulse::Pulse;
use lockstep_replay::{Consumer, FollowError, Follower, IfSlow, LogDirError, LogDirWriter};
use lockstep_vcpu::{CpuError, Cpus};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

/// Messages from the vCPU's thread.
pub enum News {
    /// The machine is at position 0, or there is room for a copy.
    Booted {
        /// The generation of the pair.
        generation: u64,
        /// There is room for a copy.
        copied: bool,
        /// The recording that was begun.
        recording: Option<Recording>,
    },
    /// Bytes of the copy that are in memory, in total.
    Loaded { bytes: u64 },
    /// The copy is complete, and has this digest.
    Restored { digest: StateDigest },
    /// It follows the log from now on.
    Follows {
        /// The recording that was begun.
        recording: Option<Recording>,
    },
    /// The machine cannot be built.
    BootFailed(BuildError),
    /// The machine did not do what the log says.
    Diverged {
        at: Position,
        what: String,
        /// The parts of the machine; `None` if they cannot be computed.
        parts: Option<Parts>,
    },
    /// An error of the host ended the machine.
    Failed(MachineFailed),
    /// The machine ended, as the log says.
    Ended(EndReason),
}

/// Why the machine cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// What arrived is not a guest.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No CPU of this host may run it.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// It is another guest.
    #[error("the guest image that arrived is not the one that the primary named")]
    OtherImage,
    /// This host has no room, or not there.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// A piece of the copy is damaged.
    #[error(transparent)]
    Pages(#[from] PageError),
    /// The rest of the copy is damaged.
    #[error(transparent)]
    State(#[from] StateError),
    /// The copy does not fit here.
    #[error("this host cannot take the copy of the machine: {0}")]
    Copy(MachineError),
    /// The machine cannot be made, or looked at.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// What was to be recorded cannot be.
    #[error(transparent)]
    Recording(#[from] LogDirError),
}

/// A recording of what the backup receives, and of what it does when it is live.
pub struct Recording {
    pub writer: LogDirWriter,
    /// `None` after the live machine has taken it.
    pub consumer: Option<Box<dyn Consumer>>,
    pub header: Header,
}

impl Recording {
    /// A recording with this writer.
    pub fn new(writer: LogDirWriter, header: Header) -> Recording {
        Recording {
            consumer: Some(writer.consumer(IfSlow::GiveUp)),
            writer,
            header,
        }
    }
}

/// A job for the thread, besides following the log.
pub enum Job {
    /// Put these pages into the memory.
    Load(Vec<u8>),
    /// Build the machine from its memory and this.
    Restore {
        /// The log's last entry before it.
        seq: u64,
        /// Number of the last output before it.
        outputs: u64,
        /// vCPU and devices.
        state: Vec<u8>,
    },
    /// Go on alone.
    GoLive(Box<Promotion>),
}

/// What a machine needs to go on alone.
pub struct Promotion {
    pub generation: u64,
    pub live: Live,
    /// Frames that came earlier, and that the log does not have.
    pub early: Vec<Vec<u8>>,
    pub seat: Seat,
}

/// From what the machine is built.
pub struct Boot {
    /// The CPU backends.
    pub cpus: Cpus,
    pub generation: u64,
    pub header: Header,
    pub image: Vec<u8>,
    /// The machine is a copy of one that runs.
    pub copied: bool,
    /// Where to record; `None` if the recording has begun already.
    pub record: Option<PathBuf>,
    /// The pulse on which the thread beats.
    pub pulse: Pulse,
    /// What is planted.
    pub cuts: Cuts,
}

/// A machine that is ready to follow the log.
pub struct Built {
    pub machine: Machine,
    /// Number of the last output that it emitted.
    pub outputs: u64,
}

/// The whole life of the thread.
pub fn run(
    boot: Boot,
    feed: Feed,
    held: HeldOutputs,
    jobs: &Receiver<Job>,
    news: &UnboundedSender<News>,
) {
    // If the runtime is gone, the process is about to end.
    let tell = |what| drop(news.send(what));
    let pulse = boot.pulse.clone();
    let mut built = match build(boot, jobs, &tell, &pulse) {
        Ok(Some(built)) => built,
        // There is no pair any more.
        Ok(None) => return,
        Err(why) => return tell(News::BootFailed(why)),
    };
    built.machine.set_pulse(pulse.clone());
    let mut follower = Follower::new(feed, held, None).after_outputs(built.outputs);
    match drive(&mut built.machine, &mut follower) {
        Ok(Driven::Ended(reason)) => {
            // It takes time to give a large memory back, and nothing waits for this thread any more.
            let _rest = pulse.rest();
            tell(News::Ended(reason));
            drop(built);
        }
        Ok(Driven::Stopped) => {
            let job = {
                let _rest = pulse.rest();
                jobs.recv()
            };
            // Without a promotion there is no pair any more.
            if let Ok(Job::GoLive(promotion)) = job {
                go_live(built.machine, &follower, *promotion);
            }
        }
        Err(DriveError::Edge(FollowError::Diverged(d))) => {
            let _rest = pulse.rest();
            tell(News::Diverged {
                at: d.at,
                what: d.what,
                parts: parts(&mut built.machine),
            });
        }
        Err(error) => tell(News::Failed(error.into())),
    }
}

/// Builds the machine, or makes room for a copy and receives it.
fn build(
    boot: Boot,
    jobs: &Receiver<Job>,
    tell: &impl Fn(News),
    pulse: &Pulse,
) -> Result<Option<Built>, BuildError> {
    let rest = pulse.rest();
    let (generation, copied) = (boot.generation, boot.copied);
    let image = Image::parse(&boot.header.guest.name, boot.image)?;
    if image.hash() != boot.header.guest.hash {
        return Err(BuildError::OtherImage);
    }
    let backend = boot.cpus.of(boot.header.machine.counts)?;
    let booted = |recording| News::Booted {
        generation,
        copied,
        recording,
    };
    if copied {
        suits(backend, &boot.header.machine, &image)?;
        let room = Room::new(backend, boot.header, image, boot.record, boot.cuts)?;
        tell(booted(None));
        drop(rest);
        return copy::receive(room, jobs, tell, pulse);
    }
    let mut machine = Machine::new(backend, &boot.header.machine, &image)?;
    boot.cuts.built(&mut machine)?;
    // On a slow host the pair may have ended meanwhile; then the next one begins the recording.
    if let Err(TryRecvError::Disconnected) = jobs.try_recv() {
        return Ok(None);
    }
    let recording = match &boot.record {
        Some(dir) => {
            let writer = LogDirWriter::create(dir, &boot.header, &image)?;
            Some(Recording::new(writer, boot.header))
        }
        None => None,
    };
    tell(booted(recording));
    Ok(Some(Built {
        machine,
        outputs: 0,
    }))
}

/// The parts of a machine that diverged.
fn parts(machine: &mut Machine) -> Option<Parts> {
    let parts = machine.parts();
    let failed = |e: &_| tracing::warn!("the machine that diverged cannot be looked at ({e})");
    parts.inspect_err(failed).ok()
}

/// Goes on from live inputs, exactly where the log ended. What the guest emitted and the log does
/// not have is added to it first, so that the survivor's log replays like any other. Where the log ended while
/// the guest computes, its next position is the first to which anything may be added.
fn go_live(mut machine: Machine, follower: &Follower<Feed, HeldOutputs>, mut promotion: Promotion) {
    let alone = Event::Control(Control::GoLive {
        generation: promotion.generation,
    });
    let (moment, now_ns) = {
        let view = machine.view();
        (view.moment, view.now_ns)
    };
    let first = if machine.left() {
        Some(alone)
    } else {
        let journal = promotion.seat.journal();
        let mut log = |event| journal.append(moment.at, Some(moment.check), event);
        for mark in follower.unconfirmed() {
            log(Event::Output(*mark));
        }
        log(alone);
        None
    };
    let live = promotion.live.continued(now_ns);
    let live = live
        .with_early(promotion.early)
        .with_line(machine.has_line());
    promotion.seat.drive(machine, live, first);
}
