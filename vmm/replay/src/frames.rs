//! A replay that shows every frame that the guest receives and sends.

use super::dir::LogFile;
use super::follow::{FollowError, Follower};
use ft_protocol::log::{End, MachineDigest, OutputPort};
use lockstep_devices::Output;
use lockstep_machine::world::Outlet;
use lockstep_machine::{Input, Moment, Next, Sink, Source, View};
use std::io;

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the guest.
    In,
    /// From the guest.
    Out,
}

/// Told of each frame, with the guest time at which it came or went, nanoseconds.
pub type Show<'a> = &'a mut dyn FnMut(Direction, u64, &[u8]) -> io::Result<()>;

/// What the follower emits is shown by the edge around it.
struct Nowhere;

impl Outlet for Nowhere {
    fn emit(&mut self, _: u64, _: u64, _: &Output) -> io::Result<()> {
        Ok(())
    }
}

/// The edge.
pub struct Frames<'a> {
    follower: Follower<LogFile, Nowhere>,
    show: Show<'a>,
    now_ns: u64,
}

impl<'a> Frames<'a> {
    /// Follows `log`, whose outputs begin after `outputs`.
    pub fn new(log: LogFile, outputs: u64, show: Show<'a>) -> Frames<'a> {
        Frames {
            follower: Follower::new(log, Nowhere, None).after_outputs(outputs),
            show,
            now_ns: 0,
        }
    }
}

impl Source for Frames<'_> {
    type Error = FollowError;

    fn next(&mut self, view: &View) -> Result<Next<'_>, FollowError> {
        self.now_ns = view.now_ns;
        let next = self.follower.next(view)?;
        if let Next::Apply(Input::Frame { data }) = next {
            (self.show)(Direction::In, self.now_ns, data)?;
        }
        Ok(next)
    }

    fn time(&mut self, moment: Moment) -> Result<Option<u64>, FollowError> {
        self.follower.time(moment)
    }

    fn is_over(&mut self, kicked: bool) -> Result<bool, FollowError> {
        self.follower.is_over(kicked)
    }
}

impl Sink for Frames<'_> {
    type Error = FollowError;

    fn output(&mut self, moment: Moment, output: &Output) -> Result<(), FollowError> {
        if output.port == OutputPort::Net {
            (self.show)(Direction::Out, self.now_ns, &output.data)?;
        }
        self.follower.output(moment, output)
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), FollowError> {
        self.follower.leave(moment, vector)
    }

    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), FollowError> {
        self.follower.digest(moment, digest)
    }

    fn end(&mut self, moment: Moment, end: End) -> Result<(), FollowError> {
        self.follower.end(moment, end)
    }
}
