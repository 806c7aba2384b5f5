//! Device models: pure state machines, run alike on primary, backup and in a replay.
//!
//! A model is handed its interrupt line, its time and the guest memory it may touch; it fetches
//! nothing. What it emits it puts into the outputs handed to it.

pub mod clock;
pub mod edges;
pub mod pic;
pub mod pit;
pub mod uart;
pub mod virtio;

use ft_protocol::log::OutputPort;

/// Something the guest emits to the world outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it goes.
    pub port: OutputPort,
    /// Its bytes: one frame, or console text.
    pub data: Vec<u8>,
}
