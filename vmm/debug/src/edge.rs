//! The following edge under a debugger: the machine stops where its CPU stopped for the debugger, or behind an
//! exit that the debugger wants to see. Console text is printed once, however often the guest comes by.

use ft_protocol::log::{End, Entry, LogError, MachineDigest, Place};
use lockstep_devices::Output;
use lockstep_machine::world::Outlet;
use lockstep_machine::{Moment, Next, Sink, Source, View};
use lockstep_replay::dir::LogFile;
use lockstep_replay::follow::Followed;
use lockstep_replay::{FollowError, Follower, FollowerState};
use std::io;

/// Hands on what was not handed on before.
struct Once {
    outlet: Box<dyn Outlet>,
    /// The last output that was handed on.
    emitted: u64,
}

impl Outlet for Once {
    fn emit(&mut self, number: u64, seq: u64, output: &Output) -> io::Result<()> {
        if number <= self.emitted {
            return Ok(());
        }
        self.emitted = number;
        self.outlet.emit(number, seq, output)
    }
}

/// The edge.
pub struct Edge {
    follower: Follower<LogFile, Once>,
    /// Stop when this exit was left.
    goal: Option<u64>,
    left: Option<u64>,
    paused: bool,
}

/// The edge between two positions.
#[derive(Clone, Debug)]
pub struct EdgeState {
    follower: FollowerState,
    place: Place,
}

impl EdgeState {
    /// The place in the log.
    pub fn place(&self) -> Place {
        self.place
    }
}

impl Edge {
    /// Follows `log`, whose outputs begin after `outputs`.
    pub fn new(log: LogFile, outputs: u64, outlet: Box<dyn Outlet>) -> Edge {
        let once = Once {
            outlet,
            emitted: outputs,
        };
        Edge {
            follower: Follower::new(log, once, None).after_outputs(outputs),
            goal: None,
            left: None,
            paused: false,
        }
    }

    /// Its state.
    pub fn save(&mut self) -> EdgeState {
        EdgeState {
            follower: self.follower.save(),
            place: self.follower.entries().place(),
        }
    }

    /// Goes to this state.
    pub fn restore(&mut self, state: &EdgeState) -> Result<(), FollowError> {
        self.follower.restore(&state.follower);
        (self.left, self.paused) = (None, false);
        Ok(self.follower.entries().go_to(state.place)?)
    }

    /// Stop as soon as this exit was left, or a later one.
    pub fn set_goal(&mut self, exit: Option<u64>) {
        (self.goal, self.left) = (exit, None);
    }

    /// Did the machine stop for the debugger, not at the log's end? Told once.
    pub fn take_paused(&mut self) -> bool {
        std::mem::take(&mut self.paused)
    }

    /// What was compared so far.
    pub fn followed(&self) -> Followed {
        self.follower.followed()
    }

    /// Shows the log's entries from `from` on, until `show` is false. The follower does not notice.
    pub fn look(
        &mut self,
        from: Place,
        show: &mut dyn FnMut(&Entry) -> bool,
    ) -> Result<(), LogError> {
        let log = self.follower.entries();
        let here = log.place();
        log.go_to(from)?;
        let mut shown = Ok(());
        loop {
            match log.next_with_offset() {
                Ok(Some((_, _, entry))) if show(&entry) => {}
                Ok(_) => break,
                Err(error) => {
                    shown = Err(error);
                    break;
                }
            }
        }
        log.go_to(here)?;
        shown
    }
}

impl Source for Edge {
    type Error = FollowError;

    fn next(&mut self, view: &View) -> Result<Next<'_>, FollowError> {
        self.follower.next(view)
    }

    fn time(&mut self, moment: Moment) -> Result<Option<u64>, FollowError> {
        self.follower.time(moment)
    }

    fn is_over(&mut self, kicked: bool) -> Result<bool, FollowError> {
        let at_goal = match (self.goal, self.left) {
            (Some(goal), Some(left)) => left >= goal,
            (None, _) | (_, None) => false,
        };
        if kicked || at_goal {
            self.paused = true;
            return Ok(true);
        }
        self.follower.is_over(false)
    }
}

impl Sink for Edge {
    type Error = FollowError;

    fn output(&mut self, moment: Moment, output: &Output) -> Result<(), FollowError> {
        self.follower.output(moment, output)
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), FollowError> {
        self.left = Some(moment.at.exit);
        self.follower.leave(moment, vector)
    }

    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), FollowError> {
        self.follower.digest(moment, digest)
    }

    fn end(&mut self, moment: Moment, end: End) -> Result<(), FollowError> {
        self.follower.end(moment, end)
    }
}
