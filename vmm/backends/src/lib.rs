//! The world outside the machine: TAP, console, and the host's clock.

pub mod announce;
pub mod console;
pub mod live;
pub mod tap;

pub use console::{ConsoleInput, ConsoleOutput};
pub use live::{Live, Waker};
pub use tap::{Link, Tap, TapError};
