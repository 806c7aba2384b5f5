//! Networks between hosts that are none: namespaces made with `ip`, as an operator would.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Two hosts on one Ethernet segment, and a client on it:
///
/// ```text
/// namespace a           namespace middle            namespace b
/// tap0 ─ br0 ─ up0 ─── to-a ─ br0 ─ to-b ─── up0 ─ br0 ─ tap0
///        10.78.0.1      10.77.0.1, 10.78.0.3        10.78.0.2
/// ```
///
/// Guests are in 10.77.0.0/24, hosts in 10.78.0.0/24. Dropping this removes it.
#[derive(Debug)]
pub struct Segment {
    prefix: String,
}

/// A namespace of a [`Segment`].
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The first host.
    A,
    /// The second host.
    B,
    /// Where the client is.
    Middle,
}

impl Segment {
    /// Makes it, with names that begin with this process's id.
    pub fn new() -> Segment {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let segment = Segment {
            prefix: format!("lockstep-{}-{number}", std::process::id()),
        };
        for place in [Place::Middle, Place::A, Place::B] {
            ip(&["netns", "add", &segment.name(place)]);
            segment.make_bridge(place);
        }
        segment.ip(
            Place::Middle,
            &["addr", "add", "10.77.0.1/24", "dev", "br0"],
        );
        segment.ip(
            Place::Middle,
            &["addr", "add", "10.78.0.3/24", "dev", "br0"],
        );
        segment.make_host(Place::A, "to-a", "10.78.0.1/24");
        segment.make_host(Place::B, "to-b", "10.78.0.2/24");
        segment
    }

    /// The namespace's name.
    pub fn name(&self, place: Place) -> String {
        format!("{}-{place:?}", self.prefix).to_lowercase()
    }

    /// A bridge that forwards from its first moment.
    fn make_bridge(&self, place: Place) {
        let bridge = ["type", "bridge", "stp_state", "0", "forward_delay", "0"];
        let add = ["link", "add", "br0"];
        self.ip(
            place,
            &[&add[..], &bridge, &["mcast_snooping", "0"]].concat(),
        );
        self.ip(place, &["link", "set", "lo", "up"]);
        self.ip(place, &["link", "set", "br0", "up"]);
    }

    fn make_host(&self, place: Place, cable: &str, address: &str) {
        let other = self.name(Place::Middle);
        let far = ["peer", "name", cable, "netns", &other];
        self.ip(
            place,
            &[&["link", "add", "up0", "type", "veth"], &far[..]].concat(),
        );
        self.ip(place, &["tuntap", "add", "dev", "tap0", "mode", "tap"]);
        for (place, link) in [(place, "up0"), (place, "tap0"), (Place::Middle, cable)] {
            self.ip(place, &["link", "set", link, "master", "br0", "up"]);
        }
        self.ip(place, &["addr", "add", address, "dev", "br0"]);
    }

    /// Runs `ip` there; it must succeed.
    #[track_caller]
    pub fn ip(&self, place: Place, args: &[&str]) {
        ip(&[&["-n", &self.name(place)], args].concat());
    }

    /// `program`, to be run there; arguments may be added.
    pub fn command(&self, place: Place, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(place)]);
        command.arg(program.as_ref());
        command
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        for place in [Place::A, Place::B, Place::Middle] {
            let mut delete = Command::new("ip");
            delete.args(["netns", "del", &self.name(place)]);
            // It may never have been made.
            let _gone = delete.stderr(Stdio::null()).status();
        }
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().expect("ip is there");
    assert!(done.status.success(), "ip {args:?}: {done:?}");
}
