//! The network backend: a TAP interface of this host.
//!
//! The interface must exist: attaching never makes one. Ethernet may lose frames, so a frame that
//! the host does not take now (its queue is full, the interface is down) is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// The device through which TUN and TAP interfaces are reached.
pub const TUN_DEVICE: &str = "/dev/net/tun";

/// Length of the longest interface name, in bytes (`IFNAMSIZ` without its final zero).
const NAME_LIMIT: usize = libc::IFNAMSIZ - 1;

/// Length of an Ethernet header, in bytes: the kernel takes no shorter frame.
const ETHERNET_HEADER_LEN: usize = 14;

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

/// An attached TAP interface. It is detached, and stays, when this is dropped.
#[derive(Debug)]
pub struct Tap {
    device: File,
    name: String,
    dropped: AtomicU64,
}

impl Tap {
    /// Attaches to the existing TAP interface `name`, without packet information headers, in
    /// non-blocking mode.
    pub fn open(name: &str) -> Result<Self, TapError> {
        check_name(name)?;
        let error = |source| TapError::Io {
            name: name.to_owned(),
            source,
        };
        let missing = || TapError::Missing {
            name: name.to_owned(),
        };
        let lookup = UnixDatagram::unbound().map_err(error)?;
        let index = index_of(&lookup, name).map_err(error)?;
        let index = index.ok_or_else(missing)?;
        let device = open_tun_device().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => TapError::NoTunDevice,
            io::ErrorKind::PermissionDenied => TapError::TunDeviceDenied,
            _ => error(e),
        })?;
        attach(&device, name).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY) => TapError::Busy { name: name.into() },
            Some(libc::EINVAL) => TapError::NotTap { name: name.into() },
            Some(libc::EPERM | libc::EACCES) => TapError::Denied { name: name.into() },
            _ => error(e),
        })?;
        // Attaching would have made a new interface had the old one gone since it was looked up.
        // The kernel gives every interface a new index, and a new TAP ends with its descriptor.
        if index_of(&lookup, name).map_err(error)? != Some(index) {
            return Err(missing());
        }
        Ok(Self {
            device,
            name: name.to_owned(),
            dropped: AtomicU64::new(0),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes one frame from the host, without its CRC. `None` means that none waits.
    ///
    /// `buffer` must be at least a byte longer than the longest frame to accept: a frame that
    /// fills it may have been cut by the kernel, so it is dropped and counted.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match (&self.device).read(buffer) {
                Ok(length) if length == buffer.len() => self.count_drop(),
                Ok(length) => return Ok(Some(length)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Hands one frame, without its CRC, to the host. A frame that the host cannot take now, or
    /// that is no Ethernet frame, is dropped and counted.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        if frame.len() < ETHERNET_HEADER_LEN {
            self.count_drop();
            return Ok(());
        }
        loop {
            return match (&self.device).write(frame) {
                Ok(_) => Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => match e.raw_os_error() {
                    // EIO: the interface is down. EINVAL, EMSGSIZE: the frame is malformed or too long.
                    Some(
                        libc::EAGAIN
                        | libc::EIO
                        | libc::ENOBUFS
                        | libc::ENOMEM
                        | libc::EINVAL
                        | libc::EMSGSIZE,
                    ) => {
                        self.count_drop();
                        Ok(())
                    }
                    _ => Err(e),
                },
            };
        }
    }

    /// How many frames were dropped so far, in both directions.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn count_drop(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Opens the TUN device, bound to no interface yet, in non-blocking mode.
pub fn open_tun_device() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_DEVICE)
}

/// Binds `device` to the TAP interface `name`, which the kernel makes if it does not exist.
pub fn attach(device: &File, name: &str) -> io::Result<()> {
    /// `struct ifreq` of `linux/if.h`, with the member of its union that TUNSETIFF reads.
    #[repr(C)]
    struct InterfaceRequest {
        name: [u8; libc::IFNAMSIZ],
        flags: libc::c_short,
        rest: [u8; 22],
    }
    const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

    let mut request = InterfaceRequest {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
        rest: [0; 22],
    };
    assert!(name.len() <= NAME_LIMIT, "the name was checked");
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `request` is, byte for byte; it
    // outlives the call, and `device` is an open descriptor.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The index of the interface `name`, or `None` if there is none. Any socket will do for asking.
fn index_of(socket: &UnixDatagram, name: &str) -> io::Result<Option<u32>> {
    match rustix::net::netdevice::name_to_index(socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The names that the kernel allows (`dev_valid_name`), less '%', which makes it choose a number.
fn check_name(name: &str) -> Result<(), TapError> {
    let allowed = |b: u8| !matches!(b, b'/' | b':' | b'%' | 0) && !b.is_ascii_whitespace();
    let good = (1..=NAME_LIMIT).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(allowed);
    if good {
        Ok(())
    } else {
        Err(TapError::BadName {
            name: name.escape_debug().to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use lockstep_netns::testing::{create_tap_that_is_down, in_own_network};

    const LIMIT: Duration = Duration::from_secs(5);

    fn refusal(name: &str) -> String {
        Tap::open(name).unwrap_err().to_string()
    }

    #[test]
    fn names_that_no_interface_can_have_are_refused() {
        for name in [
            "",
            "a-name-of-16-byte",
            "a/b",
            "a b",
            "tap%d",
            "a:1",
            ".",
            "..",
            "a\0b",
        ] {
            let text = refusal(name);
            assert!(text.contains("cannot be the name"), "{name:?}: {text}");
        }
    }

    #[test]
    fn a_missing_interface_is_refused_and_not_made() {
        let name = "lockstep-none";
        assert!(matches!(Tap::open(name), Err(TapError::Missing { .. })));
        assert!(matches!(Tap::open(name), Err(TapError::Missing { .. })));
    }

    #[test]
    fn an_interface_of_another_kind_and_a_busy_tap_are_refused() {
        let path = concat!(
            module_path!(),
            "::an_interface_of_another_kind_and_a_busy_tap_are_refused"
        );
        in_own_network(path, || {
            for other in ["br0", "lo"] {
                assert!(
                    refusal(other).contains("is not a TAP"),
                    "{}",
                    refusal(other)
                );
            }
            let held = Tap::open("tap-a").unwrap();
            assert!(refusal("tap-a").contains("in use by another process"));
            drop(held);
            Tap::open("tap-a").unwrap();
        });
    }

    #[test]
    fn frames_cross_the_bridge_and_what_cannot_is_counted() {
        let path = concat!(
            module_path!(),
            "::frames_cross_the_bridge_and_what_cannot_is_counted"
        );
        in_own_network(path, || {
            let [a, b] = ["tap-a", "tap-b"].map(|name| Tap::open(name).unwrap());
            let mac = [2, 0, 0, 0, 0, 9];
            let announcement = crate::announce::rarp(mac);
            let mut buffer = [0; 2048];
            let started = Instant::now();
            // The bridge takes up a port a moment after its TAP was opened; until then it drops.
            let cross = |buffer: &mut [u8]| loop {
                a.send(&announcement).unwrap();
                if arrives(&b) {
                    break b.recv(buffer).unwrap();
                }
                assert!(started.elapsed() < LIMIT, "no frame crosses");
            };
            let length = cross(&mut buffer).unwrap();
            assert_eq!(buffer[..length], announcement);
            assert_eq!((a.dropped(), b.dropped()), (0, 0));
            let cut = cross(&mut buffer[..announcement.len()]);
            assert_eq!((cut, b.dropped()), (None, 1), "it may have been cut");
            a.send(&announcement[..ETHERNET_HEADER_LEN - 1]).unwrap();
            assert_eq!(a.dropped(), 1, "no frame is that short");
            assert_eq!(a.recv(&mut buffer).unwrap(), None);
        });
    }

    #[test]
    fn a_tap_that_is_down_drops_and_counts() {
        let path = concat!(module_path!(), "::a_tap_that_is_down_drops_and_counts");
        in_own_network(path, || {
            create_tap_that_is_down("tap-down");
            let tap = Tap::open("tap-down").unwrap();
            tap.send(&crate::announce::rarp([2; 6])).unwrap();
            assert_eq!(tap.dropped(), 1);
        });
    }

    /// Whether a frame arrives within 10 ms.
    fn arrives(tap: &Tap) -> bool {
        let limit = rustix::time::Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&limit)).unwrap() == 1
    }
}
