//! The network backend: a TAP interface of this host.
//!
//! The interface must exist: it is never created here. Ethernet may lose frames, so a frame that the
//! host does not accept now (its queue is full, the interface is down or removed) is dropped and
//! counted. [`link`] reports what is wrong with the interface, and attaches to it again.

mod device;
mod filter;
mod link;
#[cfg(test)]
mod tests;

pub use device::{TUN_DEVICE, attach, open_tun_device};
pub use filter::{Filtered, FrameFilter};
pub use link::{Link, look_after};

use device::NAME_LIMIT;
use rustix::event::{EventfdFlags, eventfd};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use thiserror::Error;
use tokio::sync::watch;

/// Length of an Ethernet header, bytes: the kernel accepts no shorter frame.
const ETHERNET_HEADER_LEN: usize = 14;
/// Most frames for others that are dropped in one call of [`Tap::recv`], so that its caller can do
/// other work.
const DROP_AT_ONCE: usize = 256;

/// Why a TAP interface cannot be used.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum TapError {
    #[error(
        "'{name}' cannot be the name of a network interface: give 1 to {NAME_LIMIT} bytes without '/' or blanks"
    )]
    BadName { name: String },
    #[error(
        "this host has no {TUN_DEVICE}: load the kernel module 'tun' (modprobe tun), or give the container that device"
    )]
    NoTunDevice,
    #[error(
        "{TUN_DEVICE} may not be opened by this user: run as root, or give this user read and write access to it"
    )]
    TunDeviceDenied,
    #[error(
        "there is no network interface '{name}' here: create the TAP first (ip tuntap add dev {name} mode tap)"
    )]
    Missing { name: String },
    #[error(
        "network interface '{name}' is not a TAP with a single queue: name one made by 'ip tuntap add dev NAME mode tap'"
    )]
    NotTap { name: String },
    #[error(
        "TAP '{name}' is in use by another process: end that process, or name another TAP (a primary and its backup each need their own)"
    )]
    Busy { name: String },
    #[error(
        "TAP '{name}' may not be used by this user: run as root, or make the TAP this user's (ip tuntap add dev {name} mode tap user NAME)"
    )]
    Denied { name: String },
    #[error("TAP '{name}' cannot be opened: {source}; check it with 'ip -d link show {name}'")]
    Io { name: String, source: io::Error },
}

/// A TAP interface. When this is dropped, the interface is detached and stays on the host.
///
/// Only one thread may read at a time; any thread may write.
#[derive(Debug)]
pub struct Tap {
    device: File,
    name: String,
    /// Goes up with every loss of the interface and every return. Odd: there is an interface.
    epoch: AtomicU64,
    /// Readable once the interface is there again.
    returned: OwnedFd,
    link: watch::Sender<Link>,
    filter: Mutex<Option<FrameFilter>>,
    dropped: AtomicU64,
}

impl Tap {
    /// Attaches to the existing TAP interface `name`, in non-blocking mode and without packet
    /// information headers. Settings that an earlier user of the TAP left are reset.
    pub fn open(name: &str) -> Result<Self, TapError> {
        let error = |source| TapError::Io {
            name: name.to_owned(),
            source,
        };
        let device = device::open(name)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let tap = Self {
            device,
            name: name.to_owned(),
            epoch: AtomicU64::new(1),
            returned: eventfd(0, flags).map_err(|e| error(e.into()))?,
            link: watch::Sender::new(Link::Up),
            filter: Mutex::new(None),
            dropped: AtomicU64::new(0),
        };
        tap.look();
        Ok(tap)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From now on, frames that are not for the guest with this address are dropped.
    pub fn filter_for(&self, mac: [u8; 6]) {
        *self.filter.lock().expect("nobody panics with this lock") = Some(FrameFilter::new(mac));
    }

    /// Reads one frame, without its CRC. `None` means that no frame waits, or that there is no
    /// interface.
    ///
    /// `buffer` must be longer than the longest frame to accept: a frame that fills it may have been
    /// cut by the kernel, so it is dropped and counted.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if !is_attached(epoch) {
            return Ok(None);
        }
        for _ in 0..DROP_AT_ONCE {
            match (&self.device).read(buffer) {
                Ok(length) if length == buffer.len() => self.count_drop(),
                Ok(length) if self.passes(&buffer[..length]) => return Ok(Some(length)),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if device::is_gone(&e) => {
                    self.lose(epoch);
                    return Ok(None);
                }
                Err(e) => return Err(self.named(&e)),
            }
        }
        Ok(None)
    }

    /// Writes one frame, without its CRC, to the host. A frame that the host cannot accept now, or that
    /// is not an Ethernet frame, is dropped and counted.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let epoch = self.epoch.load(Ordering::Acquire);
        if frame.len() < ETHERNET_HEADER_LEN || !is_attached(epoch) {
            self.count_drop();
            return Ok(());
        }
        loop {
            let e = match (&self.device).write(frame) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            self.count_drop();
            return match e.raw_os_error() {
                // EIO: the interface is down. EINVAL, EMSGSIZE: the frame is malformed or too long.
                Some(
                    libc::EAGAIN
                    | libc::EIO
                    | libc::ENOBUFS
                    | libc::ENOMEM
                    | libc::EINVAL
                    | libc::EMSGSIZE,
                ) => Ok(()),
                _ if device::is_gone(&e) => {
                    self.lose(epoch);
                    Ok(())
                }
                _ => Err(self.named(&e)),
            };
        }
    }

    /// The descriptor to poll for frames. It may be readable although no frame for the guest waits.
    pub fn poll_fd(&self) -> BorrowedFd<'_> {
        match is_attached(self.epoch.load(Ordering::Acquire)) {
            true => self.device.as_fd(),
            false => {
                // Clears an event from an earlier return. An event that comes after this read stays.
                let _empty = rustix::io::read(&self.returned, &mut [0; 8]);
                match is_attached(self.epoch.load(Ordering::Acquire)) {
                    true => self.device.as_fd(),
                    false => self.returned.as_fd(),
                }
            }
        }
    }

    /// How many frames were dropped so far, in both directions.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many received frames were dropped because they were for others, or too many.
    pub fn filtered(&self) -> Filtered {
        let filter = self.filter.lock().expect("nobody panics with this lock");
        filter.as_ref().map(FrameFilter::counts).unwrap_or_default()
    }

    fn passes(&self, frame: &[u8]) -> bool {
        let mut filter = self.filter.lock().expect("nobody panics with this lock");
        let Some(filter) = &mut *filter else {
            return true;
        };
        let passes = filter.passes(frame, Instant::now);
        if let Some(dropped) = filter.to_tell(Instant::now) {
            tracing::warn!(
                "TAP {} gets more than {} broadcasts and multicasts a second: the rest is dropped, {dropped} so far; look \
                 for a loop or a flood in the guest's network",
                self.name,
                filter::GROUP_FRAMES_PER_SECOND
            );
        }
        passes
    }

    /// Notes that the interface of that epoch is gone.
    fn lose(&self, epoch: u64) {
        let lost = (epoch, epoch + 1);
        let (order, missed) = (Ordering::AcqRel, Ordering::Acquire);
        // A failure means that another thread has noted it, or that the interface has already returned.
        let _noticed = self.epoch.compare_exchange(lost.0, lost.1, order, missed);
    }

    fn named(&self, e: &io::Error) -> io::Error {
        io::Error::new(e.kind(), format!("TAP {}: {e}", self.name))
    }

    fn count_drop(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_attached(epoch: u64) -> bool {
    epoch % 2 == 1
}
