//! Recording and replaying: the machine's edge, written to a log and read back from one.

pub mod checkpoint;
pub mod dir;
pub mod follow;
pub mod fork;
pub mod frames;
pub mod journal;
pub mod record;
pub mod recycle;
pub mod words;
pub mod writer;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use dir::{LogDir, LogDirError, LogDirWriter};
pub use follow::{Ahead, Divergence, Entries, FollowError, Follower, FollowerState};
pub use fork::{Fork, ForkError, follow_to};
pub use journal::{Consumer, Journal, JournalError};
pub use record::{RecordError, Recorder};
pub use recycle::Recycled;
pub use writer::{IfSlow, LogQueue};
