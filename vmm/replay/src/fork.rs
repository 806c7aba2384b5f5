//! Leaving a recording: a machine that followed it up to an exit, to go on by itself from there.

use super::dir::LogFile;
use super::follow::{FollowError, Follower};
use ft_protocol::log::{End, LogStart, MachineDigest, Position};
use lockstep_devices::Output;
use lockstep_machine::world::Outlet;
use lockstep_machine::{
    DriveError, Machine, MachineError, MachineState, Moment, Next, Sink, Source, View, drive,
};
use std::io;
use thiserror::Error;

/// Why a recording cannot be left at an exit.
#[derive(Debug, Error)]
pub enum ForkError {
    /// It ends before, or there.
    #[error(
        "this recording ends at position {at}, and nothing runs on from exit {exit}; choose an earlier one"
    )]
    Ends {
        /// Where.
        at: Position,
        /// The exit that was asked for.
        exit: u64,
    },
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The recording cannot be followed so far.
    #[error(transparent)]
    Follow(#[from] FollowError),
}

/// A machine where a recording was left.
#[derive(Debug)]
pub struct Fork {
    /// Its state; its memory is the machine's.
    pub state: MachineState,
    /// Where the log of what follows begins.
    pub start: LogStart,
}

/// What the guest emitted left long ago.
struct Silent;

impl Outlet for Silent {
    fn emit(&mut self, _: u64, _: u64, _: &Output) -> io::Result<()> {
        Ok(())
    }
}

/// The following edge up to an exit.
struct UpTo {
    follower: Follower<LogFile, Silent>,
    exit: u64,
    left: Option<u64>,
    state: Option<MachineState>,
}

enum Stopped {
    There,
    Follow(FollowError),
    Machine(MachineError),
}

impl From<FollowError> for Stopped {
    fn from(error: FollowError) -> Stopped {
        Stopped::Follow(error)
    }
}

/// Follows `log` with the machine with which it begins, until exit `exit` was left: all that the log has there
/// has happened, and the guest is about to run on.
pub fn follow_to(machine: &mut Machine, log: LogFile, exit: u64) -> Result<Fork, ForkError> {
    let start = log.start();
    let mut edge = UpTo {
        follower: Follower::new(log, Silent, None).after_outputs(start.outputs),
        exit,
        left: machine.left().then_some(start.at.exit),
        state: None,
    };
    match drive(machine, &mut edge) {
        Err(DriveError::Edge(Stopped::There)) => {}
        Err(DriveError::Edge(Stopped::Follow(error))) => return Err(error.into()),
        Err(DriveError::Edge(Stopped::Machine(error)) | DriveError::Machine(error)) => {
            return Err(error.into());
        }
        Ok(_) => {
            let at = machine.position();
            return Err(ForkError::Ends { at, exit });
        }
    }
    let followed = edge.follower.followed();
    Ok(Fork {
        state: edge.state.expect("it stopped with its state"),
        start: LogStart {
            seq: start.seq + followed.entries,
            outputs: followed.outputs,
            at: machine.position(),
        },
    })
}

impl Source for UpTo {
    type Error = Stopped;

    fn next(&mut self, view: &View) -> Result<Next<'_>, Stopped> {
        Ok(self.follower.next(view)?)
    }

    fn time(&mut self, moment: Moment) -> Result<Option<u64>, Stopped> {
        Ok(self.follower.time(moment)?)
    }

    fn is_over(&mut self, kicked: bool) -> Result<bool, Stopped> {
        Ok(self.follower.is_over(kicked)?)
    }

    fn wants_state(&self) -> bool {
        self.left.is_some_and(|left| left >= self.exit)
    }

    fn take_state(&mut self, machine: &mut Machine) -> Result<(), Stopped> {
        self.state = Some(machine.save().map_err(Stopped::Machine)?);
        Err(Stopped::There)
    }
}

impl Sink for UpTo {
    type Error = Stopped;

    fn output(&mut self, moment: Moment, output: &Output) -> Result<(), Stopped> {
        Ok(self.follower.output(moment, output)?)
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), Stopped> {
        self.left = Some(moment.at.exit);
        Ok(self.follower.leave(moment, vector)?)
    }

    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), Stopped> {
        Ok(self.follower.digest(moment, digest)?)
    }

    fn end(&mut self, moment: Moment, end: End) -> Result<(), Stopped> {
        Ok(self.follower.end(moment, end)?)
    }
}
