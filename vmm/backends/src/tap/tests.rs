//! Tests on TAPs in a private network.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use lockstep_netns::testing::{
    create_port, create_tap_that_is_down, in_own_network, remove, set_up,
};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::Arc;

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
        // The bridge starts to forward a moment after the TAP was opened; until then it drops frames.
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

/// Does a frame arrive within 10 ms?
fn arrives(tap: &Tap) -> bool {
    let limit = rustix::time::Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    poll(
        &mut [PollFd::from_borrowed_fd(tap.poll_fd(), PollFlags::IN)],
        Some(&limit),
    )
    .unwrap()
        == 1
}

/// Leaves a setting on the TAP, like a program that used it before.
fn leave_behind(name: &str, set: impl Fn(libc::c_int) -> libc::c_int) {
    let device = open_tun_device().unwrap();
    attach(&device, name).unwrap();
    assert_eq!(set(device.as_raw_fd()), 0, "{}", io::Error::last_os_error());
}

/// Is the checksum of the UDP datagram in this IPv4 frame right?
fn has_good_checksum(frame: &[u8]) -> bool {
    let (ip, udp) = (&frame[14..34], &frame[34..]);
    let len = u16::from_be_bytes([udp[4], udp[5]]);
    let udp = &udp[..usize::from(len)];
    let pseudo = [&ip[12..20], &[0, 17], &len.to_be_bytes(), udp].concat();
    let words = pseudo
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | w.get(1).copied().map_or(0, u32::from));
    let sum: u32 = words.sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// Broadcasts datagrams from the host until a frame with one arrives, and returns that frame.
fn broadcast_arrives(tap: &Tap) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("10.77.0.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    let mut buffer = [0; 2048];
    let started = Instant::now();
    while started.elapsed() < LIMIT / 5 {
        socket.send_to(b"anybody?", "10.77.0.255:9").unwrap();
        if arrives(tap)
            && let Some(len) = tap.recv(&mut buffer).unwrap()
            && buffer[12..14] == [8, 0]
        {
            return Some(buffer[..len].to_vec());
        }
    }
    None
}

#[test]
fn what_another_program_left_set_is_taken_back() {
    let path = concat!(
        module_path!(),
        "::what_another_program_left_set_is_taken_back"
    );
    in_own_network(path, || {
        // TUN_F_CSUM, and the segmentation offloads that need it.
        for offloads in [0x1, 0xf] {
            // SAFETY: TUNSETOFFLOAD takes an integer and no pointer.
            leave_behind("tap-a", |fd| unsafe {
                libc::ioctl(fd, libc::TUNSETOFFLOAD, offloads as libc::c_ulong)
            });
            // The bridge uses an offload only if all its ports have it.
            // SAFETY: as above.
            leave_behind("tap-b", |fd| unsafe {
                libc::ioctl(fd, libc::TUNSETOFFLOAD, offloads as libc::c_ulong)
            });
            let tap = Tap::open("tap-a").unwrap();
            let frame = broadcast_arrives(&tap).expect("a broadcast arrives");
            assert!(
                has_good_checksum(&frame),
                "offloads {offloads:#x}: {frame:02x?}"
            );
        }
        /// `struct tun_filter` with one address: only frames to that address pass.
        #[repr(C)]
        struct Filter {
            flags: u16,
            count: u16,
            address: [u8; 6],
        }
        let filter = Filter {
            flags: 0,
            count: 1,
            address: [2; 6],
        };
        // SAFETY: TUNSETTXFILTER reads the `struct tun_filter` that this is, and which outlives the
        // call. It returns how many addresses are matched exactly.
        leave_behind("tap-a", |fd| unsafe {
            libc::ioctl(fd, libc::TUNSETTXFILTER, &raw const filter) - 1
        });
        let tap = Tap::open("tap-a").unwrap();
        assert!(broadcast_arrives(&tap).is_some(), "the filter is gone");
    });
}

/// Waits until the TAP's link is in a wanted state.
fn await_link(tap: &Tap, wanted: impl Fn(&Link) -> bool) {
    let started = Instant::now();
    while !wanted(&tap.link()) {
        assert!(started.elapsed() < LIMIT, "{:?}", tap.link());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_tap_that_goes_down_or_away_is_told_and_taken_up_again() {
    let path = concat!(
        module_path!(),
        "::a_tap_that_goes_down_or_away_is_told_and_taken_up_again"
    );
    in_own_network(path, || {
        let tap = Arc::new(Tap::open("tap-a").unwrap());
        look_after(&tap).unwrap();
        assert_eq!(tap.link(), Link::Up);
        set_up("tap-a", false);
        await_link(&tap, |link| *link == Link::Down);
        set_up("tap-a", true);
        await_link(&tap, |link| *link == Link::Up);
        assert!(broadcast_arrives(&tap).is_some());

        remove("tap-a");
        await_link(
            &tap,
            |link| matches!(link, Link::Gone(why) if why.contains("tap-a any more")),
        );
        let mut buffer = [0; 2048];
        assert_eq!(tap.recv(&mut buffer).unwrap(), None);
        let before = tap.dropped();
        tap.send(&crate::announce::rarp([2; 6])).unwrap();
        assert_eq!(tap.dropped(), before + 1);

        // A thread that waits for frames sleeps while there is no interface, and is woken by its
        // return.
        assert!(!arrives(&tap));
        let waiting = Arc::clone(&tap);
        let (waits, has_begun) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let mut set = [PollFd::from_borrowed_fd(waiting.poll_fd(), PollFlags::IN)];
            waits.send(()).unwrap();
            let limit = rustix::time::Timespec {
                tv_sec: LIMIT.as_secs() as i64,
                tv_nsec: 0,
            };
            poll(&mut set, Some(&limit)).unwrap()
        });
        has_begun.recv().unwrap();
        create_port("tap-a");
        await_link(&tap, |link| *link == Link::Up);
        assert_eq!(waiter.join().unwrap(), 1);
        assert!(broadcast_arrives(&tap).is_some());
    });
}

#[test]
fn who_reads_a_tap_that_is_removed_is_woken_and_reads_nothing() {
    let path = concat!(
        module_path!(),
        "::who_reads_a_tap_that_is_removed_is_woken_and_reads_nothing"
    );
    in_own_network(path, || {
        // No thread watches this TAP: the reader and the writer notice by themselves.
        for notice in [
            (|tap: &Tap| assert_eq!(tap.recv(&mut [0; 2048]).unwrap(), None)) as fn(&Tap),
            |tap: &Tap| tap.send(&crate::announce::rarp([2; 6])).unwrap(),
        ] {
            let tap = Tap::open("tap-a").unwrap();
            remove("tap-a");
            notice(&tap);
            assert!(!is_attached(tap.epoch.load(Ordering::Acquire)));
            assert!(!arrives(&tap), "it would be asked again and again");
            create_port("tap-a");
        }
    });
}

#[test]
fn a_tap_gives_what_is_for_its_guest_and_counts_the_rest() {
    let path = concat!(
        module_path!(),
        "::a_tap_gives_what_is_for_its_guest_and_counts_the_rest"
    );
    in_own_network(path, || {
        let [a, b] = ["tap-a", "tap-b"].map(|name| Tap::open(name).unwrap());
        b.filter_for([2, 0, 0, 0, 0, 9]);
        assert!(broadcast_arrives(&b).is_some(), "the bridge forwards");
        let to = |last: u8| {
            // The EtherType for experiments: a firewall may drop a frame that claims to be IP and is
            // not.
            let (to, from) = ([2, 0, 0, 0, 0, last], [2, 0, 0, 0, 0, 1]);
            [&to[..], &from, &[0x88, 0xb5], &[0; 46]].concat()
        };
        let mut buffer = [0; 2048];
        let (started, mut sent) = (Instant::now(), 0);
        // And until the bridge forwards from the first port.
        while b.filtered().foreign < 100 {
            a.send(&to(7)).unwrap();
            sent += 1;
            assert_eq!(b.recv(&mut buffer).unwrap(), None, "it is another's");
            assert!(started.elapsed() < LIMIT, "{:?}", b.filtered());
        }
        a.send(&to(9)).unwrap();
        while !arrives(&b) {
            assert!(started.elapsed() < LIMIT, "{:?}", b.filtered());
        }
        let len = b.recv(&mut buffer).unwrap().expect("it is its own");
        assert_eq!(buffer[..len], to(9));
        let foreign = b.filtered().foreign;
        assert!((100..=sent).contains(&foreign), "{foreign}");
    });
}
