//! Lockstep's log and its fault-tolerance protocol.
//!
//! Everything here is a function of its inputs: no sockets, no clock, no threads, no KVM. The runtime
//! in `vmm` passes inputs to the state machines and performs their actions. A test does the same with a
//! model of the network, so the code that is tested is the code that ships.
//!
//! - [`log`]: the contents of a log, their encoding, the log's file.
//! - [`wire`]: messages on the logging channel.
//! - [`arbiter`]: the meaning of the test-and-set.
//! - [`gate`], [`detector`] and [`lag`]: the Output Rule; when a peer is suspected; how far the backup
//!   is behind.
//! - [`primary`] and [`backup`]: the two halves of a pair.
//! - [`host`]: what they need done, by whom ever drives them.
//! - [`transfer`]: how the copy of a running machine is proved.

pub mod arbiter;
pub mod backup;
pub mod detector;
pub mod gate;
pub mod host;
pub mod lag;
pub mod log;
mod mutant;
mod peer;
pub mod primary;
mod question;
mod reason;
mod time;
pub mod transfer;
pub mod wire;

pub use reason::{HaltReason, Loss};
pub use time::Time;

#[cfg(test)]
mod model;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testing;
