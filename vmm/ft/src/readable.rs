//! Descriptors that wake a member's loop only when they can be read.
//!
//! tokio's own sockets are registered for writing too: each beat that its thread sends would wake the loop
//! once more, as the socket has room again.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd`, inside the runtime.
#[expect(
    deprecated,
    reason = "its successor is unsafe for descriptors that may change: an OwnedFd does not"
)]
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
