//! Unix sockets in a directory, with names that are too long for a socket's address.
//!
//! `sockaddr_un` has room for 108 bytes, and a path through the directory's descriptor leaves about 90
//! of them for the name. So a socket is made under a short name and renamed, and reached through a
//! descriptor.

use rustix::fs::{Mode, OFlags, openat};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

/// The beginning of the name under which a socket is made.
const UNFINISHED: &str = ".new-";

/// The path of `name` in an open directory.
fn path_of(dir: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).into()
}

/// Listens on the socket `name` in `dir`. The socket does not appear there before it can be connected
/// to.
///
/// # Errors
/// If it cannot be made.
pub fn listen(dir: &File, name: &str) -> io::Result<UnixListener> {
    let unfinished = path_of(dir, &format!("{UNFINISHED}{:016x}", rand::random::<u64>()));
    let listener = UnixListener::bind(&unfinished)?;
    let named = fs::rename(&unfinished, path_of(dir, name));
    if named.is_err() {
        let _gone = fs::remove_file(&unfinished);
    }
    named.map(|()| listener)
}

/// Connects to the socket `name` in `dir`.
///
/// # Errors
/// If there is none, or nothing listens on it.
pub fn connect(dir: &File, name: &str) -> io::Result<UnixStream> {
    let how = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = openat(dir, name, how, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd()))
}

/// Removes the socket `name` from `dir`.
pub fn remove(dir: &File, name: &str) -> io::Result<()> {
    fs::remove_file(path_of(dir, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_socket_has_any_name_that_a_file_has() {
        let dir = tempfile::tempdir().unwrap();
        let open = File::open(dir.path()).unwrap();
        for name in ["s".to_owned(), "s".repeat(255)] {
            let listener = listen(&open, &name).unwrap();
            let mut client = connect(&open, &name).unwrap();
            client.write_all(b"x").unwrap();
            drop(client);
            let mut text = String::new();
            let (mut served, _) = listener.accept().unwrap();
            served.read_to_string(&mut text).unwrap();
            assert_eq!(text, "x");
            drop(listener);
            let refused = connect(&open, &name).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            remove(&open, &name).unwrap();
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let missing = connect(&open, "s").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        // A name that is too long for a file leaves nothing behind.
        assert!(listen(&open, &"s".repeat(256)).is_err());
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
