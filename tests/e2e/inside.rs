//! What a test itself does inside a network namespace: with a host's own sockets, or as machines made
//! of frames.

#[allow(dead_code, reason = "the tests of the network alone use more of it")]
#[path = "../../guests/kv-net/tests/network/frames.rs"]
pub mod frames;

use crate::harness::Process;
use crate::network::{Place, Segment};
use lockstep_backends::Tap;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

/// Does `work` on a thread inside the namespace `name`.
#[track_caller]
pub fn inside<R: Send>(name: &str, work: impl FnOnce() -> R + Send) -> R {
    let namespace = File::open(format!("/run/netns/{name}")).expect("the namespace is there");
    let moved = || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network).expect("root may move");
        work()
    };
    let done = thread::scope(|scope| scope.spawn(moved).join());
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// A connection to `to`, from the address `from` if there is one. Connecting, reads and writes give up
/// after `limit`.
pub fn open(from: Option<Ipv4Addr>, to: SocketAddrV4, limit: Duration) -> io::Result<TcpStream> {
    let end = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    // This time-out also limits the kernel's connect.
    set_socket_timeout(&end, Timeout::Send, Some(limit))?;
    set_socket_timeout(&end, Timeout::Recv, Some(limit))?;
    if let Some(from) = from {
        bind(&end, &SocketAddrV4::new(from, 0))?;
    }
    connect(&end, &to)?;
    Ok(TcpStream::from(end))
}

/// Sends `command` and reads a reply of `length` bytes.
pub fn ask(stream: &mut TcpStream, command: &[u8], length: usize) -> io::Result<Vec<u8>> {
    stream.write_all(command)?;
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

/// Machines on the client's bridge that send what a test wants.
#[derive(Debug)]
pub struct Ghosts(Tap);

impl Ghosts {
    /// Puts them on the bridge.
    #[track_caller]
    pub fn new(segment: &Segment) -> Ghosts {
        let place = Place::Middle;
        segment.ip(place, &["tuntap", "add", "dev", "ghosts", "mode", "tap"]);
        segment.ip(place, &["link", "set", "ghosts", "master", "br0", "up"]);
        let tap = inside(&segment.name(place), || Tap::open("ghosts"));
        let ghosts = Ghosts(tap.expect("just made"));
        // The bridge forwards their frames as soon as it has noticed the new port.
        let script = "until ip -d link show ghosts | grep -q 'state forwarding'; do :; done";
        let mut command = segment.command(place, "sh");
        Process::start(command.args(["-c", script])).end().expect(0);
        ghosts
    }

    /// Sends a frame from one of them.
    #[track_caller]
    pub fn say(&self, frame: &[u8]) {
        self.0.send(frame).expect("the TAP is there");
    }

    /// The first result of `wanted` for a frame that arrives within `limit`.
    pub fn hear<T>(&self, limit: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 2048];
        loop {
            while let Some(length) = self.0.recv(&mut buffer).expect("the TAP is there") {
                if let Some(found) = wanted(&buffer[..length]) {
                    return Some(found);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = left.try_into().expect("a limit is a timespec");
            let mut set = [PollFd::from_borrowed_fd(self.0.poll_fd(), PollFlags::IN)];
            let _ready = poll(&mut set, Some(&timeout)).expect("it can be waited for");
        }
    }
}
