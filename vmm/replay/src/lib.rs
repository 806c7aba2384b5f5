//! Recording and replaying: the machine's edge, written to a log and read back from one.

pub mod checkpoint;
pub mod dir;
pub mod follow;
pub mod journal;
pub mod record;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use dir::{IfSlow, LogDir, LogDirError, LogDirWriter};
pub use follow::{Ahead, Divergence, Entries, FollowError, Follower};
pub use journal::{Consumer, Journal, JournalError};
pub use record::{RecordError, Recorder};
