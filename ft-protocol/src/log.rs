//! The log: entries, their encoding on the wire and on disk, and the log file.

pub mod codec;
mod entry;
pub mod file;
mod machine;

pub use codec::{Damage, FrameDecoder, encode_entry, encode_frame};
pub use entry::*;
pub(crate) use file::MAX_START;
pub use file::{LogError, LogReader, LogWriter, Place, Tail};
pub use machine::*;
