//! Networks between hosts that are namespaces, made with `ip` like an operator would.

use serde_json::Value;
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
    /// The client's namespace.
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

    /// Makes a bridge that forwards from its first moment.
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

    /// Runs `ip` in that namespace; it must succeed.
    pub fn ip(&self, place: Place, args: &[&str]) {
        ip(&[&["-n", &self.name(place)], args].concat());
    }

    /// The answer of `ip` or `bridge` in that namespace, as one JSON value.
    #[track_caller]
    fn asked(&self, program: &str, place: Place, args: &[&str]) -> Value {
        let mut command = Command::new(program);
        command.args(["-n", &self.name(place), "-j"]).args(args);
        let done = command.output().expect("it is there");
        let text = String::from_utf8_lossy(&done.stdout);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {done:?}"))
    }

    /// Makes a host's TAP again, and brings it up on its bridge.
    pub fn make_tap(&self, place: Place) {
        self.ip(place, &["tuntap", "add", "dev", "tap0", "mode", "tap"]);
        self.ip(place, &["link", "set", "tap0", "master", "br0", "up"]);
    }

    /// Number of frames that the program at a host's TAP has sent.
    #[track_caller]
    pub fn frames_from(&self, place: Place) -> u64 {
        let link = self.asked("ip", place, &["-s", "link", "show", "tap0"]);
        let sent = link[0]["stats64"]["rx"]["packets"].as_u64();
        sent.unwrap_or_else(|| panic!("no count: {link}"))
    }

    /// The MAC address for an IP address, as the client knows it.
    #[track_caller]
    pub fn mac_of(&self, address: &str) -> String {
        let neighbours = self.asked("ip", Place::Middle, &["neigh", "show", address]);
        let mac = neighbours[0]["lladdr"].as_str();
        mac.unwrap_or_else(|| panic!("unknown: {neighbours}"))
            .to_owned()
    }

    /// The port to which the client's bridge sends frames for a MAC address; `None` if it does not
    /// know.
    #[track_caller]
    pub fn port_of(&self, mac: &str) -> Option<String> {
        let known = self.asked("bridge", Place::Middle, &["fdb", "show", "br", "br0"]);
        let mut entries = known.as_array().expect("a list").iter();
        let entry = entries.find(|entry| entry["mac"] == mac)?;
        entry["ifname"].as_str().map(ToOwned::to_owned)
    }

    /// Makes the client's bridge forget the addresses that it learned at a port.
    pub fn forget(&self, port: &str) {
        let flush = ["type", "bridge_slave", "fdb_flush"];
        let args = [&["link", "set", port][..], &flush].concat();
        self.ip(Place::Middle, &args);
    }

    /// `program`, to be run in that namespace; arguments may be added.
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
            // If making it failed, there is nothing to remove.
            let _gone = delete.stderr(Stdio::null()).status();
        }
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let done = Command::new("ip").args(args).output().expect("ip is there");
    assert!(done.status.success(), "ip {args:?}: {done:?}");
}
