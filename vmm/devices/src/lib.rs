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
use thiserror::Error;

/// Most of a counter that only goes up, by less than this in any machine's life; so adding to it never
/// overflows.
pub const MAX_COUNT: u64 = u64::MAX / 2;

/// A device's state that no device can be in. It came from outside: from a peer or a file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the state of the {device} makes no sense ({what})")]
pub struct BadState {
    /// Which device.
    pub device: &'static str,
    /// What is wrong.
    pub what: String,
}

impl BadState {
    /// Err unless `holds`.
    fn unless(holds: bool, device: &'static str, what: &str) -> Result<(), BadState> {
        let what = || what.to_string();
        holds.then_some(()).ok_or_else(|| BadState {
            device,
            what: what(),
        })
    }
}

/// Something the guest emits to the world outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it goes.
    pub port: OutputPort,
    /// Its bytes: one frame, or console text.
    pub data: Vec<u8>,
}
