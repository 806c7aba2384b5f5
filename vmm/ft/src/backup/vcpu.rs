//! The backup's vCPU thread: builds the machine, or takes a copy of it, follows the log, and goes on
//! alone when it is told to.

use super::copy::{self, Room};
use crate::cuts::Cuts;
use crate::feed::Feed;
use crate::outputs::HeldOutputs;
use crate::primary::Seat;
use ft_protocol::log::{Control, EndReason, Event, Header, Position};
use ft_protocol::transfer::StateDigest;
use lockstep_backends::Live;
use lockstep_loader::Image;
use lockstep_machine::drive::{DriveError, Driven, drive};
use lockstep_machine::{Machine, Parts};
use lockstep_pulse::Pulse;
use lockstep_replay::{Consumer, FollowError, Follower, IfSlow, LogDirWriter};
use lockstep_vcpu::CpuBackends;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError};
use tokio::sync::mpsc::UnboundedSender;

/// News from the vCPU's thread.
pub enum News {
    /// The machine stands at position 0, or there is room for a copy.
    Booted {
        /// For this generation.
        generation: u64,
        /// There is room for a copy.
        copied: bool,
        /// The recording that was begun.
        recording: Option<Recording>,
    },
    /// So many bytes of the copy are in memory, in all.
    Loaded { bytes: u64 },
    /// The copy stands, and is this.
    Restored { digest: StateDigest },
    /// It follows the log from here on.
    Follows {
        /// The recording that was begun.
        recording: Option<Recording>,
    },
    /// The machine cannot be built.
    BootFailed(String),
    /// The machine did not do what the log says.
    Diverged {
        at: Position,
        what: String,
        /// What it is instead; none if that cannot be seen.
        parts: Option<Parts>,
    },
    /// The host failed the machine.
    Failed(String),
    /// The machine ended, by the log.
    Ended(EndReason),
}

/// A recording of what the backup receives, and does once it is live.
pub struct Recording {
    pub writer: LogDirWriter,
    /// None once the live machine has it.
    pub consumer: Option<Box<dyn Consumer>>,
    pub header: Header,
}

impl Recording {
    /// By this writer.
    pub fn new(writer: LogDirWriter, header: Header) -> Recording {
        Recording {
            consumer: Some(writer.consumer(IfSlow::GiveUp)),
            writer,
            header,
        }
    }
}

/// What the thread has to do besides following the log.
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
    /// Frames that came before, and that the log does not have.
    pub early: Vec<Vec<u8>>,
    pub seat: Seat,
}

/// What the machine is built from.
pub struct Boot {
    /// Who makes CPUs.
    pub cpus: CpuBackends,
    pub generation: u64,
    pub header: Header,
    pub image: Vec<u8>,
    /// The machine is copied from one that runs.
    pub copied: bool,
    /// Where to record, unless that was begun already.
    pub record: Option<PathBuf>,
    /// Where the thread shows that it gets on.
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

/// The thread's whole life.
pub fn run(
    boot: Boot,
    feed: Feed,
    held: HeldOutputs,
    jobs: &Receiver<Job>,
    news: &UnboundedSender<News>,
) {
    // A runtime that is gone needs no news; the process is about to end.
    let tell = |what| drop(news.send(what));
    let pulse = boot.pulse.clone();
    let mut built = match build(boot, jobs, &tell, &pulse) {
        Ok(Some(built)) => built,
        // The pair came to nothing.
        Ok(None) => return,
        Err(why) => return tell(News::BootFailed(why)),
    };
    built.machine.set_pulse(pulse.clone());
    let mut follower = Follower::new(feed, held, None).after_outputs(built.outputs);
    match drive(&mut built.machine, &mut follower) {
        Ok(Driven::Ended(reason)) => {
            // Giving a large memory back takes its time, and nobody waits for this thread any more.
            let _rest = pulse.rest();
            tell(News::Ended(reason));
            drop(built);
        }
        Ok(Driven::Stopped) => {
            let job = {
                let _rest = pulse.rest();
                jobs.recv()
            };
            // No promotion: the pair came to nothing.
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
        Err(error) => tell(News::Failed(error.to_string())),
    }
}

/// Builds the machine, or makes room for a copy and waits for it.
fn build(
    boot: Boot,
    jobs: &Receiver<Job>,
    tell: &impl Fn(News),
    pulse: &Pulse,
) -> Result<Option<Built>, String> {
    let rest = pulse.rest();
    let (generation, copied) = (boot.generation, boot.copied);
    let image = Image::parse(&boot.header.guest.name, boot.image).map_err(|e| e.to_string())?;
    if image.hash() != boot.header.guest.hash {
        return Err("the guest image that arrived is not the one that the primary named".into());
    }
    let booted = |recording| News::Booted {
        generation,
        copied,
        recording,
    };
    if copied {
        let room = Room::new(boot.cpus, boot.header, image, boot.record, boot.cuts)?;
        tell(booted(None));
        drop(rest);
        return copy::receive(room, jobs, tell, pulse);
    }
    let mut machine =
        Machine::new(boot.cpus, &boot.header.machine, &image).map_err(|e| e.to_string())?;
    boot.cuts.built(&mut machine).map_err(|e| e.to_string())?;
    // On a slow host the pair may have come to nothing meanwhile: the next one begins the recording.
    if let Err(TryRecvError::Disconnected) = jobs.try_recv() {
        return Ok(None);
    }
    let recording = match &boot.record {
        Some(dir) => {
            let writer =
                LogDirWriter::create(dir, &boot.header, &image).map_err(|e| e.to_string())?;
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

/// What a machine that diverged is.
fn parts(machine: &mut Machine) -> Option<Parts> {
    let parts = machine.parts();
    let failed = |e: &_| tracing::warn!("the machine that diverged cannot be looked at ({e})");
    parts.inspect_err(failed).ok()
}

/// Goes on from live inputs, exactly where the log ended. What the guest emitted and the log does
/// not have is added to it first, so that the survivor's log replays like any other. Where the log ended while
/// the guest computes, its next position is the first to which anything may be added.
fn go_live(mut machine: Machine, follower: &Follower<Feed, HeldOutputs>, promotion: Promotion) {
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
        let mut journal = promotion
            .seat
            .journal()
            .lock()
            .expect("nobody panics with this lock");
        let mut log = |event| journal.append(moment.at, Some(moment.check), event);
        for mark in follower.unconfirmed() {
            log(Event::Output(*mark));
        }
        log(alone);
        None
    };
    let live = promotion.live.continued(now_ns).with_early(promotion.early);
    promotion.seat.drive(machine, live, first);
}
