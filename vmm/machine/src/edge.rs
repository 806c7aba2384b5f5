//! The machine's edge: where everything that is not a function of its state comes in and goes out.

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Guest time is now this many nanoseconds.
    Clock {
        /// Since boot.
        ns: u64,
    },
    /// A frame arrives at virtio-net.
    Frame {
        /// The frame.
        data: Vec<u8>,
    },
    /// Bytes arrive at the console.
    Console {
        /// The bytes.
        data: Vec<u8>,
    },
    /// Random bytes arrive at virtio-rng.
    Entropy {
        /// As many as it asked for.
        data: Vec<u8>,
    },
}

/// The guest waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Guest time at which something is due by itself, nanoseconds; `u64::MAX` for never.
    pub until_ns: u64,
}

/// The machine as its source sees it at a position.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Where.
    pub moment: Moment,
    /// The guest waits: the position must not be left before an input changed that.
    pub wait: Option<Wait>,
    /// The guest ended here: all that is left to say is [`Next::Finish`].
    pub ended: Option<EndReason>,
    /// Guest time, nanoseconds.
    pub now_ns: u64,
    /// Guest time of the 8254's next edge, nanoseconds.
    pub next_edge_ns: Option<u64>,
    /// Frames that virtio-net can take in now.
    pub net_room: usize,
    /// Bytes that the console can take in now.
    pub console_room: usize,
    /// Random bytes that virtio-rng asks for.
    pub entropy_wanted: usize,
}

/// What a source wants at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Apply this.
    Apply(Input),
    /// Make a digest and give it to [`Sink::digest`].
    Digest,
    /// The guest waits here: finish the instruction that waits and call [`Source::take_state`], then go
    /// on at this position.
    Capture,
    /// Nothing more here: run on.
    Leave,
    /// End the machine here for this reason, with a digest ([`Sink::end`]).
    Finish(EndReason),
    /// Stop driving, between two inputs of this position; driving may be taken up again, with
    /// another source.
    Stop,
}

/// Where inputs come from: live backends, the channel from a primary, or a log file.
pub trait Source {
    /// Why it can fail.
    type Error;

    /// The next thing to do at this position. Called until it says [`Next::Leave`]; may block.
    fn next(&mut self, view: &View) -> Result<Next, Self::Error>;

    /// Guest time, nanoseconds, for a device model that needs it to handle the exit at `moment`.
    /// None: stop driving here; driving may be taken up again, with another source.
    fn time(&mut self, moment: Moment) -> Result<Option<u64>, Self::Error>;

    /// Is there nothing more to come, so that the guest need not be entered? Asked whenever it is about to be,
    /// after a position was left, or again because the thread was `kicked` out of it. A guest may compute
    /// for ever, and no answer at its next position would reach it. May block if it was kicked.
    fn is_over(&mut self, _kicked: bool) -> Result<bool, Self::Error> {
        Ok(false)
    }

    /// Is the machine's state wanted as soon as it is complete? Asked whenever a position was left.
    fn wants_state(&self) -> bool {
        false
    }

    /// The machine can be saved ([`Machine::save`]): its position was left, or the source asked for it
    /// where the guest waits ([`Next::Capture`]). Nothing may be applied to it here.
    fn take_state(&mut self, _machine: &mut Machine) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// Where outputs and markers go: to the world, to a gate, or to a comparison.
pub trait Sink {
    /// Why it can fail.
    type Error;

    /// The guest emitted `output`; they come in order.
    fn output(&mut self, moment: Moment, output: Output) -> Result<(), Self::Error>;

    /// All inputs of this position are applied, `vector` is handed to the vCPU, the guest runs on.
    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), Self::Error>;

    /// A digest that the source asked for.
    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), Self::Error>;

    /// The machine ended.
    fn end(&mut self, moment: Moment, end: End) -> Result<(), Self::Error>;
}
