//! The primary's runtime.

mod copy;
mod resume;
mod serve;
mod vcpu;

pub use resume::{Resumed, SurvivorParts};
pub use serve::{serve, serve_survivor};
pub use vcpu::{Seat, Vcpu};

use super::cuts::Cuts;
use super::{Arbiter, EventLog};
use ft_protocol::arbiter::{MemberId, Nonce};
use ft_protocol::detector::Timing;
use ft_protocol::log::Header;
use lockstep_backends::Live;
use lockstep_backends::live::Direct;
use lockstep_loader::Image;
use lockstep_machine::Machine;
use lockstep_replay::Consumer;
use std::sync::Arc;

/// The parts of a primary.
pub struct PrimaryParts {
    /// Everything that must be equal on both sides.
    pub header: Header,
    /// The guest's image.
    pub image: Image,
    /// The machine, at position 0.
    pub machine: Machine,
    /// Its live inputs.
    pub live: Live,
    /// Where released outputs go.
    pub direct: Direct,
    /// The recording, if there is one.
    pub recording: Option<Box<dyn Consumer>>,
    /// The arbiter.
    pub arbiter: Arc<dyn Arbiter>,
    /// The first generation to open.
    pub generation: u64,
    /// Run without a backup.
    pub solo: bool,
    /// Where events go.
    pub events: EventLog,
    /// The fence: run after a won test-and-set, before going on alone.
    pub fence: Option<String>,
    /// What is planted.
    pub cuts: Cuts,
}

/// A member's id, new for every process.
pub(super) fn new_member() -> MemberId {
    MemberId(rand::random())
}

/// The random part of a process's nonces.
pub(super) fn new_nonce() -> Nonce {
    Nonce(rand::random())
}

/// The times of the failure detector.
pub(super) fn timing() -> Timing {
    Timing::default()
}
