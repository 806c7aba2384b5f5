//! The world outside the machine: TAP, console, the host's clock. Imported by `cli` and `ft` only.

pub mod announce;
pub mod console;
pub mod live;
pub mod tap;

pub use console::{ConsoleInput, ConsoleOutput};
pub use live::{Live, Waker};
pub use tap::{Link, Tap, TapError};
