//! Random frames: whatever comes in must not end the guest.

use crate::frames::{FIRST, IP, MAC, Remote};
use crate::harness::{GATEWAY, Lan};
use kv_net::PORT;
use kv_net::smoltcp::time::Duration;
use kv_net::smoltcp::wire::{ArpOperation, EthernetAddress, TcpControl};

/// Frames per run.
const FRAMES: usize = 60_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// A valid frame of a peer with random content, or a damaged frame.
fn frame(random: &mut Random, last: &[Vec<u8>]) -> Vec<u8> {
    let number = random.below(250) as u8;
    let near = Remote::neighbor(number).at(1000 + random.below(3) as u16);
    let remote = [near, Remote::far(number)][random.below(2)];
    let mut frame = match random.below(8) {
        0 => remote.arp(ArpOperation::Request, EthernetAddress::BROADCAST, IP),
        1 => remote.arp(ArpOperation::Reply, MAC, [IP, GATEWAY][random.below(2)]),
        2 => remote.syn(),
        3 if !last.is_empty() => last[random.below(last.len())].clone(),
        _ => {
            use TcpControl::{Fin, None, Psh, Rst, Syn};
            let control = [None, Psh, Syn, Fin, Rst][random.below(5)];
            let seq = FIRST + random.below(3);
            let ack = (random.below(4) > 0).then(|| seq + random.below(1 << 30));
            let window = random.below(1 << 16) as u16;
            let port = PORT + u16::from(random.below(20) == 0);
            remote.segment_to(port, control, seq, ack, window, b"PING\r\n")
        }
    };
    if random.below(3) == 0 {
        let at = random.below(frame.len());
        frame[at] ^= 1 << random.below(8);
    }
    if random.below(20) == 0 {
        frame.truncate(random.below(frame.len()));
    }
    frame
}

#[test]
fn no_frames_end_the_server_and_afterwards_it_serves() {
    let mut random = Random(7);
    let mut lan = Lan::new();
    let mut last = Vec::new();
    for _ in 0..FRAMES / 8 {
        let frames: Vec<_> = (0..8).map(|_| frame(&mut random, &last)).collect();
        lan.hears_all(frames);
        // The server's frames come back to it with the addresses exchanged, as if a peer had sent them.
        last = lan.frames();
        for frame in &mut last {
            let (to, from) = (frame[..6].to_vec(), frame[6..12].to_vec());
            frame[..6].copy_from_slice(&from);
            frame[6..12].copy_from_slice(&to);
        }
        if random.below(50) == 0 {
            lan.pass(Duration::from_millis(random.below(3000) as u64));
        }
    }
    lan.pass(Duration::from_secs(400));
    lan.frames();
    let mut client = Remote::neighbor(251).connect(&mut lan);
    client.ask(&mut lan, b"PING\r\n", b"+PONG\r\n");
}
