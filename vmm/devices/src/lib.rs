//! Device models: pure state machines that run alike on the primary, on the backup and in a replay.
//!
//! A model gets its interrupt line, its time and guest memory as arguments, and puts what it emits into
//! a list of outputs. It asks for nothing by itself.

pub mod clock;
pub mod cmos;
pub mod device;
pub mod edges;
pub mod hpet;
pub mod keyboard;
pub mod outputs;
pub mod pic;
pub mod pit;
pub mod power;
pub mod state;
pub mod triggers;
pub mod uart;
pub mod virtio;

#[cfg(test)]
mod conformance;

pub use device::{Component, Device, InputKind, Line, World};
pub use outputs::{Output, Outputs};
pub use pic::Pic;
pub use state::{BadState, Saved};

/// Most of a counter that only goes up, by less than this in any machine's life; so adding to it never
/// overflows.
pub const MAX_COUNT: u64 = u64::MAX / 2;
