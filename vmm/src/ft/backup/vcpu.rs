//! The backup's vCPU thread: follows the log, and goes on alone when it is told to.

use crate::backends::Live;
use crate::backends::live::Direct;
use crate::cpu::Pulse;
use crate::ft::feed::Feed;
use crate::ft::outputs::HeldOutputs;
use crate::machine::Machine;
use crate::machine::drive::{DriveError, Driven, drive};
use crate::memory::Image;
use crate::replay::journal::Journal;
use crate::replay::record::{Controls, Recorder};
use crate::replay::{Consumer, FollowError, Follower, IfSlow, LogDirWriter};
use ft_protocol::log::{Control, EndReason, Event, Header, Position};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::UnboundedSender;

/// News from the vCPU's thread.
pub enum News {
    /// The machine stands at position 0.
    Booted {
        /// For this generation.
        generation: u64,
        /// The recording that was begun.
        recording: Option<Recording>,
    },
    /// The machine cannot be built.
    BootFailed(String),
    /// The machine did not do what the log says.
    Diverged { at: Position, what: String },
    /// The host failed the machine.
    Failed(String),
    /// The machine ended, by the log or live.
    Ended(EndReason),
}

/// A recording of what the backup receives, and does once it is live.
pub struct Recording {
    pub writer: LogDirWriter,
    /// None once the live machine has it.
    pub consumer: Option<Box<dyn Consumer>>,
    pub header: Header,
}

/// What a machine needs to go on alone.
pub struct Promotion {
    pub generation: u64,
    pub live: Live,
    /// Frames that came before, and that the log does not have.
    pub early: Vec<Vec<u8>>,
    pub direct: Direct,
    pub consumer: Option<Box<dyn Consumer>>,
    pub controls: Arc<Controls>,
}

/// What the machine is built from.
pub struct Boot {
    pub generation: u64,
    pub header: Header,
    pub image: Vec<u8>,
    /// Where to record, unless that was begun already.
    pub record: Option<PathBuf>,
    /// Where the thread shows that it gets on.
    pub pulse: Pulse,
}

/// The thread's whole life.
pub fn run(
    boot: Boot,
    feed: Feed,
    held: HeldOutputs,
    promotions: &Receiver<Promotion>,
    news: &UnboundedSender<News>,
) {
    // A runtime that is gone needs no news; the process is about to end.
    let tell = |what| drop(news.send(what));
    let (generation, pulse) = (boot.generation, boot.pulse.clone());
    let built = {
        let _rest = pulse.rest();
        build(boot)
    };
    let mut machine = match built {
        Ok((mut machine, recording)) => {
            machine.set_pulse(pulse.clone());
            tell(News::Booted {
                generation,
                recording,
            });
            machine
        }
        Err(why) => return tell(News::BootFailed(why)),
    };
    let mut follower = Follower::new(feed.clone(), held, None);
    match drive(&mut machine, &mut follower) {
        Ok(Driven::Ended(reason)) => tell(News::Ended(reason)),
        Ok(Driven::Stopped) => {
            let promotion = {
                let _rest = pulse.rest();
                promotions.recv()
            };
            // No promotion: the pair came to nothing.
            if let Ok(mut promotion) = promotion {
                promotion.live.set_pulse(pulse);
                tell(go_live(machine, &follower, &feed, promotion));
            }
        }
        Err(DriveError::Edge(FollowError::Diverged(d))) => tell(News::Diverged {
            at: d.at,
            what: d.what,
        }),
        Err(error) => tell(News::Failed(error.to_string())),
    }
}

fn build(boot: Boot) -> Result<(Machine, Option<Recording>), String> {
    let Boot { header, image, .. } = boot;
    let image = Image::parse(&header.guest.name, image).map_err(|e| e.to_string())?;
    if image.hash() != header.guest.hash {
        return Err("the guest image that arrived is not the one that the primary named".into());
    }
    let machine = Machine::new(&header.machine, &image).map_err(|e| e.to_string())?;
    let recording = match &boot.record {
        Some(dir) => {
            let writer = LogDirWriter::create(dir, &header, &image).map_err(|e| e.to_string())?;
            Some(Recording {
                consumer: Some(writer.consumer(IfSlow::GiveUp)),
                writer,
                header,
            })
        }
        None => None,
    };
    Ok((machine, recording))
}

/// Goes on from live inputs, exactly where the log ended. What the guest emitted and the log does
/// not have is added to it first, so that the survivor's log replays like any other.
fn go_live(
    mut machine: Machine,
    follower: &Follower<Feed, HeldOutputs>,
    feed: &Feed,
    promotion: Promotion,
) -> News {
    let consumers = promotion.consumer.into_iter().collect();
    let mut journal = Journal::new(feed.last_seq() + 1, consumers);
    let (moment, now_ns) = {
        let view = machine.view();
        (view.moment, view.now_ns)
    };
    let mut log = |event| journal.append(moment.at, Some(moment.check), event);
    for mark in follower.unconfirmed() {
        log(Event::Output(*mark));
    }
    log(Event::Control(Control::GoLive {
        generation: promotion.generation,
    }));
    let mut recorder = Recorder::new(
        promotion.live.continued(now_ns).with_early(promotion.early),
        promotion.direct,
        Arc::new(Mutex::new(journal)),
        promotion.controls,
        follower.followed().outputs,
    );
    let driven = drive(&mut machine, &mut recorder);
    // The recording's writer waits for the last of its consumers to go.
    let closed = recorder.close();
    match (driven, closed) {
        (Ok(Driven::Ended(reason)), Ok(())) => News::Ended(reason),
        (Ok(Driven::Stopped), _) => News::Failed("the machine stopped unasked".into()),
        (Ok(_), Err(error)) => News::Failed(error.to_string()),
        (Err(error), _) => News::Failed(error.to_string()),
    }
}
