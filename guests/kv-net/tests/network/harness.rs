//! A server with its card, and peers with connections.

use crate::frames::{FIRST, IP, MAC, Remote, Segment, arp, segment};
use kv_core::{Limits, Server};
use kv_net::smoltcp::time::{Duration, Instant};
use kv_net::smoltcp::wire::{ArpOperation, Ipv4Address, TcpControl, TcpSeqNumber};
use kv_net::{Card, Host, MAX_FRAME, Network, PORT, Wake};
use std::collections::VecDeque;

/// The gateway to peers that are not on the link.
pub const GATEWAY: Ipv4Address = Ipv4Address::new(10, 77, 0, 1);

/// A card with or without a limit on its frames.
pub struct FakeCard {
    pub received: VecDeque<Vec<u8>>,
    pub sent: Vec<Vec<u8>>,
    pub room: usize,
}

impl Card for FakeCard {
    fn receive(&mut self, buffer: &mut [u8; MAX_FRAME]) -> Option<usize> {
        let frame = self.received.pop_front()?;
        buffer[..frame.len()].copy_from_slice(&frame);
        Some(frame.len())
    }

    fn room(&mut self) -> usize {
        self.room - self.sent.len()
    }

    fn send(&mut self, header: &[u8], payload: &[u8]) {
        assert!(self.sent.len() < self.room, "sent without room");
        self.sent.push([header, payload].concat());
    }
}

/// The server, and the time.
pub struct Lan {
    pub network: Network<FakeCard>,
    pub now: Instant,
    pub wake: Wake,
}

impl Lan {
    /// A server with a gateway. Its announcement was sent and is removed.
    pub fn new() -> Lan {
        let mut lan = Lan::just_up();
        lan.pass(Duration::from_secs(100));
        lan.frames();
        lan
    }

    /// A server whose network comes up now.
    pub fn just_up() -> Lan {
        let card = FakeCard {
            received: VecDeque::new(),
            sent: Vec::new(),
            room: usize::MAX,
        };
        let host = Host::new(MAC.0, IP.octets(), 24, GATEWAY.octets()).expect("an address");
        let limits = Limits {
            data: 8 << 20,
            buffers: 4 << 20,
        };
        let now = Instant::from_secs(1);
        let mut network = Network::new(card, host, Server::new(limits, 1), 1, now);
        let wake = network.poll(now);
        Lan { network, now, wake }
    }

    /// A frame arrives.
    pub fn hears(&mut self, frame: Vec<u8>) {
        self.hears_all([frame]);
    }

    /// Frames arrive together.
    pub fn hears_all(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) {
        self.network.card().received.extend(frames);
        self.settle();
    }

    /// Polls until the network has nothing to do now.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.wake = self.network.poll(self.now);
            match self.wake {
                Wake::At(at) if at <= self.now => {}
                Wake::At(_) | Wake::Now | Wake::Never => return,
            }
        }
        panic!("it never waits: {:?}", self.wake);
    }

    /// Time passes. The network is polled whenever it asked for it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Wake::At(at) = self.wake
            && at <= end
        {
            self.now = at;
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// The frames that the server sent since the last call.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.network.card().sent)
    }

    /// The segments that the server sent since the last call.
    pub fn segments(&mut self) -> Vec<Segment> {
        let frames = self.frames();
        frames.iter().filter_map(|frame| segment(frame)).collect()
    }

    /// The neighbours whose addresses the server requested since the last call.
    pub fn asked(&mut self) -> Vec<Ipv4Address> {
        let frames = self.frames();
        let asked = frames.iter().filter_map(|frame| arp(frame));
        let requests = asked.filter(|(_, operation, ..)| *operation == ArpOperation::Request);
        requests.map(|(.., target)| target).collect()
    }
}

impl Remote {
    /// Opens a connection; the server must answer at once.
    pub fn connect(self, lan: &mut Lan) -> Client {
        lan.hears(self.syn());
        let answers = lan.segments();
        let answer = answers.iter().find(|it| it.to == (self.ip, self.port));
        let answer = answer.expect("an answer to the request");
        assert_eq!(answer.control, TcpControl::Syn, "{answer:?}");
        let mut client = Client {
            remote: self,
            seq: FIRST + 1,
            ack: answer.seq + 1,
            received: Vec::new(),
            window: u16::MAX,
        };
        client.say(lan, TcpControl::None, &[]);
        client
    }
}

/// A peer's end of a connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub remote: Remote,
    pub seq: TcpSeqNumber,
    pub ack: TcpSeqNumber,
    pub received: Vec<u8>,
    pub window: u16,
}

impl Client {
    /// Sends a segment.
    pub fn say(&mut self, lan: &mut Lan, control: TcpControl, payload: &[u8]) {
        let frame = self.remote.segment_to(
            PORT,
            control,
            self.seq,
            Some(self.ack),
            self.window,
            payload,
        );
        self.seq += payload.len() + control.len();
        lan.hears(frame);
    }

    /// Receives the segments that are for it, and acknowledges those that follow what it has.
    pub fn take(&mut self, lan: &mut Lan, segments: &[Segment]) {
        let to = (self.remote.ip, self.remote.port);
        let before = self.ack;
        for segment in segments.iter().filter(|it| it.to == to) {
            assert_ne!(segment.control, TcpControl::Rst, "reset: {segment:?}");
            if segment.seq == self.ack {
                self.received.extend_from_slice(&segment.payload);
                self.ack += segment.payload.len() + segment.control.len();
            }
        }
        if self.ack != before {
            self.say(lan, TcpControl::None, &[]);
        }
    }

    /// Sends a command and waits for the whole reply.
    pub fn ask(&mut self, lan: &mut Lan, command: &[u8], reply: &[u8]) {
        self.say(lan, TcpControl::Psh, command);
        let segments = lan.segments();
        self.take(lan, &segments);
        assert_eq!(self.received, reply);
        self.received.clear();
    }
}
