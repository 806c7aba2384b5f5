//! The machine's edge: the interface through which everything that is not a function of its state comes
//! in or goes out.

use super::Machine;
use ft_protocol::log::{Check, End, EndReason, MachineDigest, Position};
use lockstep_devices::Output;

/// A position, and the vCPU there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Position.
    pub at: Position,
    /// RIP and a hash of the registers.
    pub check: Check,
}

/// An input, applied at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Guest time is now this many nanoseconds.
    Clock {
        /// Nanoseconds since boot.
        ns: u64,
    },
    /// A frame arrives at virtio-net.
    Frame {
        /// The frame.
        data: &'a [u8],
    },
    /// Bytes arrive at the console.
    Console {
        /// The bytes.
        data: &'a [u8],
    },
    /// Random bytes arrive at virtio-rng.
    Entropy {
        /// As many as the device asked for, at most.
        data: &'a [u8],
    },
}

/// The guest waits for an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Guest time at which the wait ends by itself, nanoseconds; `u64::MAX` for never.
    pub until_ns: u64,
}

/// The machine as its source sees it at a position.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The position, and the vCPU there.
    pub moment: Moment,
    /// If set, the guest waits: the source must not let it leave before an input has ended the wait.
    pub wait: Option<Wait>,
    /// If set, the guest has ended here, and [`Next::Finish`] must follow.
    pub ended: Option<EndReason>,
    /// Guest time, nanoseconds.
    pub now_ns: u64,
    /// Guest time of the 8254's next edge, nanoseconds.
    pub next_edge_ns: Option<u64>,
    /// The guest reads or writes a device, and its time goes on by itself: a jump of its clock here would come
    /// between accesses that a driver makes together.
    pub accesses: bool,
    /// Frames that virtio-net can take now.
    pub net_room: usize,
    /// Bytes that the console can take now.
    pub console_room: usize,
    /// Random bytes that virtio-rng asks for.
    pub entropy_wanted: usize,
}

/// What a source wants to happen at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// Apply this input.
    Apply(Input<'a>),
    /// Make a digest and give it to [`Sink::digest`].
    Digest,
    /// The guest waits here. Complete its instruction and call [`Source::take_state`], then ask for the
    /// next action at the same position.
    Capture,
    /// Nothing more happens here: run the guest.
    Leave,
    /// End the machine here for this reason; [`Sink::end`] gets a digest.
    Finish(EndReason),
    /// Stop driving between two inputs of this position. Driving may go on later, with another source.
    Stop,
}

/// Where inputs come from: live backends, the channel from a primary, or a log file.
pub trait Source {
    /// Why it can fail.
    type Error;

    /// The next thing to do at this position. Called until it returns [`Next::Leave`]; may block.
    fn next(&mut self, view: &View) -> Result<Next<'_>, Self::Error>;

    /// Guest time, nanoseconds, for a device that needs it to handle the exit at `moment`. `None`
    /// means: stop driving here. Driving may go on later, with another source.
    fn time(&mut self, moment: Moment) -> Result<Option<u64>, Self::Error>;

    /// Has the source come to its end, so that the guest need not be entered? A guest may compute for ever,
    /// so an answer at its next position would come too late. Called whenever the guest is about to be
    /// entered: after a position was left, and again when the thread was `kicked` out of the guest. May
    /// block if it was kicked.
    fn is_over(&mut self, _kicked: bool) -> Result<bool, Self::Error> {
        Ok(false)
    }

    /// Is the machine's state wanted as soon as it is complete? Called whenever a position was left.
    fn wants_state(&self) -> bool {
        false
    }

    /// Called when the machine can be saved ([`Machine::save`]): its position was left, or the source
    /// asked for it while the guest waits ([`Next::Capture`]). No input may be applied here.
    fn take_state(&mut self, _machine: &mut Machine) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Where outputs and marks go: to the world, to the gate, or to a comparison with a log.
pub trait Sink {
    /// Why it can fail.
    type Error;

    /// The guest emitted `output`. Outputs come in order.
    fn output(&mut self, moment: Moment, output: &Output) -> Result<(), Self::Error>;

    /// All inputs of this position are applied and `vector`, if any, was handed to the vCPU. The guest
    /// runs next.
    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), Self::Error>;

    /// A digest that the source asked for.
    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), Self::Error>;

    /// The machine ended.
    fn end(&mut self, moment: Moment, end: End) -> Result<(), Self::Error>;
}
