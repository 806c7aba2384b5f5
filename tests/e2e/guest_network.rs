//! The guest `kv` on networks as they occur in practice: many clients, dead clients, links that carry
//! less, hosts that remember another machine.

use crate::harness::{LOCKSTEP, Process, Scratch};
use crate::inside::frames::{
    FIRST, IP, MAC, Remote, Segment as Said, arp, segment as said_by, tagged,
};
use crate::inside::{Ghosts, ask, inside, open};
use crate::kv::{await_ping, benchmark, kv_pair, no_error, stop, widen};
use crate::member::stage;
use crate::network::{Place, Segment};
use kv_net::PORT;
use kv_net::connections::{ANSWER_LIMIT, CONNECTIONS};
use kv_net::smoltcp::wire::{ArpOperation, EthernetAddress, Ipv4Address, TcpControl};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

const SERVER: SocketAddrV4 = SocketAddrV4::new(IP, PORT);
/// `--net` for the addresses that the frames of tests name.
const NET: &str = "tap=tap0,mac=02:4c:53:00:00:02";
/// What is answered without a wait takes less than this, on a busy host too. Each fault for which there
/// is a test here costs a second or more.
const AT_ONCE: Duration = Duration::from_millis(900);
/// What needs one or two repetitions takes less than this.
const SECONDS: Duration = Duration::from_secs(8);
/// Nothing that must happen takes longer than this.
const LIMIT: Duration = Duration::from_secs(30);
/// A benchmark with 40,000 connections must end within this time.
const BENCHMARK_LIMIT: Duration = Duration::from_secs(300);
const ALL: EthernetAddress = EthernetAddress::BROADCAST;

/// Starts a machine with `kv`, and does not wait for it.
fn start(segment: &Segment, net: &str) -> Process {
    let mut command = segment.command(Place::A, LOCKSTEP);
    Process::start(command.args(["run", "kv", "--console", "none", "--net", net]))
}

/// Starts a machine with `kv`, and waits until it serves.
fn serving(segment: &Segment) -> Process {
    let kv = start(segment, NET);
    await_ping(segment);
    kv
}

/// One PING on a new connection. Returns how long both took together.
fn ping(from: Option<Ipv4Addr>, limit: Duration) -> std::io::Result<Duration> {
    let began = Instant::now();
    let mut stream = open(from, SERVER, limit)?;
    assert_eq!(ask(&mut stream, b"PING\r\n", 7)?, b"+PONG\r\n");
    Ok(began.elapsed())
}

/// The same from the middle of the segment. It must be answered.
#[track_caller]
fn ping_from_the_middle(segment: &Segment, from: Option<Ipv4Addr>) -> Duration {
    let answer = inside(&segment.name(Place::Middle), || ping(from, LIMIT));
    answer.expect("an answer")
}

/// The dead client with this number. They are all on one host.
fn ghost(number: usize) -> Remote {
    Remote::neighbor(200).at(2000 + number as u16)
}

/// Makes machines on the bridge, whose host's MAC address the guest knows.
#[track_caller]
fn ghosts(segment: &Segment) -> Ghosts {
    let ghosts = Ghosts::new(segment);
    ghosts.say(&ghost(0).arp(ArpOperation::Request, ALL, IP));
    let reply = ghosts.hear(LIMIT, |frame| {
        arp(frame).filter(|(to, ..)| *to == ghost(0).mac)
    });
    assert!(reply.is_some(), "the guest does not answer");
    ghosts
}

/// The segment to `remote`, which must come within the limit.
#[track_caller]
fn answer(ghosts: &Ghosts, remote: Remote, control: TcpControl) -> Said {
    let wanted = |frame: &[u8]| {
        let said = (frame[..6] == remote.mac.0).then(|| said_by(frame))??;
        (said.to == (remote.ip, remote.port) && said.control == control).then_some(said)
    };
    let said = ghosts.hear(LIMIT, wanted);
    said.unwrap_or_else(|| panic!("no {control:?} to {remote:?}"))
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn clients_with_addresses_of_their_own_are_answered_in_milliseconds() {
    let (_stage, segment) = (stage(), Segment::new());
    let kv = serving(&segment);
    for number in 101..=131 {
        let address = format!("10.77.0.{number}/24");
        segment.ip(Place::Middle, &["addr", "add", &address, "dev", "br0"]);
    }
    let took: Vec<Duration> = (101..=131)
        .map(|number| ping_from_the_middle(&segment, Some(Ipv4Addr::new(10, 77, 0, number))))
        .collect();
    assert!(took.iter().all(|&it| it < AT_ONCE), "{took:?}");
    drop(kv);
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn requests_whose_answers_are_lost_keep_nobody_out_for_long() {
    let (_stage, segment) = (stage(), Segment::new());
    let kv = serving(&segment);
    let ghosts = ghosts(&segment);
    for number in 0..CONNECTIONS {
        ghosts.say(&ghost(number).syn());
        answer(&ghosts, ghost(number), TcpControl::Syn);
    }
    let took = ping_from_the_middle(&segment, None);
    assert!(took < SECONDS, "{took:?}");
    drop(kv);
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn peers_that_vanish_while_they_close_keep_nobody_out_for_long() {
    let (_stage, segment) = (stage(), Segment::new());
    let kv = serving(&segment);
    let ghosts = ghosts(&segment);
    let began = Instant::now();
    for number in 0..CONNECTIONS {
        let remote = ghost(number);
        ghosts.say(&remote.syn());
        let said = answer(&ghosts, remote, TcpControl::Syn);
        let mine = FIRST + 1;
        let theirs = Some(said.seq + 1);
        ghosts.say(&remote.segment_to(PORT, TcpControl::None, mine, theirs, 1000, &[]));
        ghosts.say(&remote.segment_to(PORT, TcpControl::Fin, mine, theirs, 1000, &[]));
        answer(&ghosts, remote, TcpControl::Fin);
    }
    let prepared = began.elapsed();
    assert!(
        prepared < Duration::from(ANSWER_LIMIT),
        "the first are gone after {prepared:?}"
    );
    let took = ping_from_the_middle(&segment, None);
    assert!(took < SECONDS, "{took:?}");
    drop(kv);
}

/// Runs a hundred clients to the end: with a connection per command, and with one per client.
#[track_caller]
fn a_hundred_clients(segment: &Segment) {
    widen(segment);
    let anew = ["-c", "100", "-n", "20000", "-k", "0", "-t", "ping"];
    let done = no_error(benchmark(segment, &anew).end_within(BENCHMARK_LIMIT));
    assert!(done.stdout.contains("PING_MBULK"), "{done:#?}");
    let tests = "ping,set,get,incr,mset";
    let kept = ["-c", "100", "-n", "20000", "-t", tests];
    let done = no_error(benchmark(segment, &kept).end_within(BENCHMARK_LIMIT));
    assert!(done.stdout.contains("MSET"), "{done:#?}");
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn a_hundred_clients_of_redis_benchmark_are_served_to_the_end() {
    let (_stage, segment) = (stage(), Segment::new());
    let kv = serving(&segment);
    a_hundred_clients(&segment);
    stop(kv);
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn a_hundred_clients_of_redis_benchmark_are_served_to_the_end_by_a_pair() {
    let (_stage, scratch, segment) = (stage(), Scratch::new(), Segment::new());
    let pair = kv_pair(&scratch, &segment);
    a_hundred_clients(&segment);
    // A failover on a busy host would not be an error either.
    drop(pair);
}

/// A host behind a router, which is the middle of the segment. The link from the router to the host
/// carries 1280 bytes; neither the host nor the guest knows that.
struct Far(String);

impl Far {
    fn new(segment: &Segment) -> Far {
        let far = Far(format!("{}-far", segment.name(Place::Middle)));
        let middle = Place::Middle;
        run_ip(&["netns", "add", &far.0]);
        let cable = [
            "link", "add", "to-far", "type", "veth", "peer", "name", "up0",
        ];
        segment.ip(middle, &[&cable[..], &["netns", &far.0]].concat());
        segment.ip(middle, &["addr", "add", "10.79.0.1/24", "dev", "to-far"]);
        segment.ip(middle, &["link", "set", "to-far", "mtu", "1280", "up"]);
        for args in [
            &["addr", "add", "10.79.0.2/24", "dev", "up0"][..],
            &["link", "set", "up0", "up"],
            &["route", "add", "default", "via", "10.79.0.1"],
        ] {
            run_ip(&[&["-n", &far.0], args].concat());
        }
        let mut sysctl = segment.command(middle, "sysctl");
        let done = sysctl.args(["-qw", "net.ipv4.ip_forward=1"]).status();
        assert!(done.expect("sysctl is there").success());
        far
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let mut delete = Command::new("ip");
        let _gone = delete.args(["netns", "del", &self.0]).status();
    }
}

#[track_caller]
fn run_ip(args: &[&str]) {
    let done = Command::new("ip").args(args).status().expect("ip is there");
    assert!(done.success(), "ip {args:?}");
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn a_large_reply_arrives_over_a_link_that_carries_less() {
    let (_stage, segment) = (stage(), Segment::new());
    let far = Far::new(&segment);
    let kv = start(&segment, &format!("{NET},gw=10.77.0.1"));
    await_ping(&segment);
    let value: Vec<u8> = (0..100_000).map(|at| b'a' + (at % 23) as u8).collect();
    let set = [
        &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n"[..],
        &value,
        b"\r\n",
    ]
    .concat();
    for _ in 0..2 {
        let (reply, took) = inside(&far.0, || {
            let mut stream = open(None, SERVER, LIMIT).expect("connected");
            assert_eq!(ask(&mut stream, &set, 5).expect("an answer"), b"+OK\r\n");
            let began = Instant::now();
            let reply = ask(&mut stream, b"GET k\r\n", 9 + value.len() + 2);
            (reply.expect("all of it"), began.elapsed())
        });
        assert_eq!(reply[9..9 + value.len()], value);
        assert!(took < SECONDS, "{took:?}");
    }
    // The router must have sent such a message: otherwise this test showed nothing.
    let told = segment
        .command(Place::Middle, "cat")
        .arg("/proc/net/snmp")
        .output();
    let told = String::from_utf8(told.expect("cat is there").stdout).expect("text");
    let mut icmp = told.lines().filter(|line| line.starts_with("Icmp:"));
    let mut column = |name: &str| {
        icmp.next()
            .and_then(|line| line.split(' ').position(|it| it == name))
    };
    let at = column("OutDestUnreachs").expect("a column");
    let count = icmp
        .next()
        .and_then(|line| line.split(' ').nth(at))
        .map(str::to_owned);
    assert_ne!(count.as_deref(), Some("0"), "{told}");
    drop(kv);
}

#[test]
#[cfg_attr(not(can_redis), ignore = "needs KVM, root, iproute2 and redis-tools")]
fn whoever_asks_for_the_guests_address_is_answered_with_and_without_a_priority() {
    let (_stage, segment) = (stage(), Segment::new());
    let kv = serving(&segment);
    let ghosts = Ghosts::new(&segment);
    let neighbor = Remote::neighbor(200);
    let nobody = Ipv4Address::UNSPECIFIED;
    let foreign = Ipv4Address::new(192, 168, 55, 1);
    for ip in [neighbor.ip, nobody, foreign] {
        let asking = Remote { ip, ..neighbor };
        let request = asking.arp(ArpOperation::Request, ALL, IP);
        for frame in [request.clone(), tagged(&request, 0)] {
            ghosts.say(&frame);
            let reply = ghosts.hear(LIMIT, |frame| {
                arp(frame).filter(|(to, operation, ..)| {
                    *to == neighbor.mac && *operation == ArpOperation::Reply
                })
            });
            let (_, _, told, _) = reply.unwrap_or_else(|| panic!("{ip} gets no answer"));
            assert_eq!(told, (IP, MAC));
        }
    }
    // A connection with priority 7 and no VLAN.
    ghosts.say(&tagged(&neighbor.syn(), 0xe000));
    answer(&ghosts, neighbor, TcpControl::Syn);
    // A connection of VLAN 5 is not for the guest: the answer to the later request comes first.
    let (other, last) = (neighbor.at(40_001), neighbor.at(40_002));
    ghosts.say(&tagged(&other.syn(), 5));
    ghosts.say(&last.syn());
    let first = ghosts.hear(LIMIT, |frame| {
        let ports = [other.port, last.port];
        let said = (frame[..6] == neighbor.mac.0).then(|| said_by(frame))??;
        ports.contains(&said.to.1).then_some(said.to.1)
    });
    assert_eq!(first, Some(last.port));
    drop(kv);
}

#[test]
#[cfg_attr(not(can_segment), ignore = "needs KVM, root and iproute2")]
fn a_guest_that_takes_over_an_address_is_found_by_hosts_that_remember_the_old_machine() {
    let (_stage, segment) = (stage(), Segment::new());
    let ghosts = Ghosts::new(&segment);
    let old = ["10.77.0.2", "lladdr", "02:00:00:00:00:99", "dev", "br0"];
    let remember = ["neigh", "replace"];
    segment.ip(
        Place::Middle,
        &[&remember[..], &old, &["nud", "reachable"]].concat(),
    );
    let kv = start(&segment, NET);
    let announced = ghosts.hear(LIMIT, |frame| {
        arp(frame).filter(|&(to, _, told, target)| to == ALL && told == (IP, MAC) && target == IP)
    });
    assert!(announced.is_some(), "no announcement");
    let took = ping_from_the_middle(&segment, None);
    assert!(took < SECONDS, "{took:?}");
    drop(kv);
}
