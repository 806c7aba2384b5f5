//! The TUN device: opening it, attaching it to a TAP, and resetting what the TAP keeps of its last
//! user.

use super::TapError;
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;

/// The device that gives access to TUN and TAP interfaces.
pub const TUN_DEVICE: &str = "/dev/net/tun";

/// Length of the longest interface name, bytes (`IFNAMSIZ` without the final zero).
pub(super) const NAME_LIMIT: usize = libc::IFNAMSIZ - 1;

/// Attaches to the existing TAP interface `name`, in non-blocking mode and without packet information
/// headers, and resets the settings that an earlier user left.
pub(super) fn open(name: &str) -> Result<File, TapError> {
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
    // If the interface was removed since it was looked up, attaching has made a new one. A new
    // interface has a new index, and a TAP that was made by attaching ends with its descriptor.
    if index_of(&lookup, name).map_err(error)? != Some(index) {
        return Err(missing());
    }
    reset(&device).map_err(error)?;
    Ok(device)
}

/// Opens the TUN device in non-blocking mode, not attached to an interface yet.
pub fn open_tun_device() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(TUN_DEVICE)
}

/// `struct ifreq` of `linux/if.h`, with the one member of its union that is used here.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}
const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

impl InterfaceRequest {
    fn new(name: &str, flags: libc::c_int) -> InterfaceRequest {
        let mut request = InterfaceRequest {
            name: [0; libc::IFNAMSIZ],
            flags: flags as libc::c_short,
            rest: [0; 22],
        };
        assert!(name.len() <= NAME_LIMIT, "the name was checked");
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request
    }
}

/// Attaches `device` to the TAP interface `name`. The kernel makes the interface if it does not exist.
pub fn attach(device: &File, name: &str) -> io::Result<()> {
    let mut request = InterfaceRequest::new(name, libc::IFF_TAP | libc::IFF_NO_PI);
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `request` is, byte for byte; it
    // outlives the call, and `device` is an open descriptor.
    done(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// `struct tun_filter` of `linux/if_tun.h`, with no addresses.
#[repr(C)]
struct NoFilter {
    flags: u16,
    count: u16,
}

/// Resets what a TAP keeps of its last user: offloads, with which frames come without a checksum and
/// longer than the MTU; filters, which drop frames; and a limit on unsent data.
fn reset(device: &File) -> io::Result<()> {
    let fd = device.as_raw_fd();
    let nothing = NoFilter { flags: 0, count: 0 };
    let (no_program, no_limit): (libc::c_int, libc::c_int) = (-1, libc::c_int::MAX);
    // SAFETY: TUNSETOFFLOAD takes an integer and no pointer; `device` is an open descriptor.
    done(unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, 0 as libc::c_ulong) })?;
    // SAFETY: TUNSETTXFILTER reads one `struct tun_filter` without addresses, which `nothing` is and
    // which outlives the call.
    done(unsafe { libc::ioctl(fd, libc::TUNSETTXFILTER, &raw const nothing) })?;
    // SAFETY: TUNSETSNDBUF reads one int, which outlives the call.
    done(unsafe { libc::ioctl(fd, libc::TUNSETSNDBUF, &raw const no_limit) })?;
    // SAFETY: TUNDETACHFILTER reads nothing.
    done(unsafe { libc::ioctl(fd, libc::TUNDETACHFILTER, 0 as libc::c_ulong) })?;
    for set_program in [libc::TUNSETFILTEREBPF, libc::TUNSETSTEERINGEBPF] {
        // SAFETY: these read one int, which outlives the call; -1 stands for no program.
        let set = done(unsafe { libc::ioctl(fd, set_program, &raw const no_program) });
        match set {
            // A kernel before 4.16 has no such programs, so none was left.
            Err(e) if e.raw_os_error() != Some(libc::EINVAL) => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Is the interface that `device` is attached to up, even if it was renamed? `None` if it was removed.
pub(super) fn is_up(device: &File) -> io::Result<Option<bool>> {
    let mut request = InterfaceRequest::new("", 0);
    // SAFETY: TUNGETIFF writes one `struct ifreq`, which `request` is, byte for byte; it outlives the
    // call, and `device` is an open descriptor.
    let named = done(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNGETIFF, &raw mut request) });
    match named {
        Ok(()) => {}
        Err(e) if is_gone(&e) => return Ok(None),
        Err(e) => return Err(e),
    }
    let name = CStr::from_bytes_until_nul(&request.name).map_err(io::Error::other)?;
    let mut request = InterfaceRequest::new(&name.to_string_lossy(), 0);
    let socket = UnixDatagram::unbound()?;
    // SAFETY: SIOCGIFFLAGS reads and writes one `struct ifreq`, which `request` is, byte for byte; it
    // outlives the call, and any socket will do.
    let told =
        done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) });
    match told {
        Ok(()) => Ok(Some(libc::c_int::from(request.flags) & libc::IFF_UP != 0)),
        // It was moved into another network namespace. Reads and writes of frames will show how it is
        // there.
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(Some(true)),
        Err(e) => Err(e),
    }
}

/// Does this error say that the interface was removed?
pub(super) fn is_gone(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::EBADFD)
}

/// Makes the descriptor `device` refer to what `new` refers to, for all threads at once.
pub(super) fn replace(device: &File, new: &File) -> io::Result<()> {
    // SAFETY: both are open descriptors of this process, which it owns: nobody else relies on what
    // `device` meant, and its number stays open throughout.
    done(unsafe { libc::dup3(new.as_raw_fd(), device.as_raw_fd(), libc::O_CLOEXEC) }.min(0))
}

fn done(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The index of the interface `name`, or `None` if there is none. Any socket can be used to ask.
fn index_of(socket: &UnixDatagram, name: &str) -> io::Result<Option<u32>> {
    match rustix::net::netdevice::name_to_index(socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The names that the kernel allows (`dev_valid_name`), except those with '%', for which it chooses a
/// number.
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
