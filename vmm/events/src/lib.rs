//! What members tell of themselves: [events](Event) as they happen, and their [status](MemberStatus) when
//! they are asked. A type is the only description of each: members write it, and drills, `lockstep pair`,
//! `lockstep status` and `lockstep arbiter` read it.

mod event;
mod hex;
mod line;
mod status;

#[cfg(test)]
mod tests;

pub use event::{CopyProgress, Event, LinkState};
pub use line::{LineError, Stamped};
pub use status::{
    BackupStatus, MemberStatus, NetworkStatus, PrimaryStatus, RecordStatus, RoleStatus, StatusError,
};
