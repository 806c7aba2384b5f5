//! A Redis-protocol server: a guest whose users notice when its state is lost.
//!
//! It polls: a loop takes the received frames, executes the commands in them, sends the frames of the
//! replies, and idles until the machine delivers more. Frames move at the exit that idles, so under
//! load one exit serves many frames.
#![no_std]
#![no_main]

extern crate alloc;

mod nic;

use core::net::Ipv4Addr;

use guest_rt::{boot_info, clock, heap_bytes, println};
use kv_core::{Limits, Server};
use kv_net::smoltcp::time::Instant;
use kv_net::{Host, Network, PORT, Wake};

use crate::nic::Nic;

/// Exit status on a machine on which it cannot serve: no network, no address, or too little memory.
const UNFIT: u32 = 1;
/// Memory for the network, bytes: windows and rings, and the tables of neighbours, paths and peers.
const NETWORK_HEAP: usize = 6 << 20;
/// Least heap, bytes.
const MIN_HEAP: usize = 10 << 20;

guest_rt::entry!(main);

fn main() -> u32 {
    let boot = boot_info();
    let Some(nic) = (boot.has_net != 0).then(Nic::new).flatten() else {
        println!("kv: this machine has no network; give it one (--net tap=NAME)");
        return UNFIT;
    };
    let Some(host) = Host::new(boot.mac, boot.ip, boot.prefix_len, boot.gateway) else {
        let [ip, gateway] = [boot.ip, boot.gateway].map(Ipv4Addr::from);
        let prefix = boot.prefix_len;
        println!("kv: {ip}/{prefix} with gateway {gateway} is no address for a host");
        return UNFIT;
    };
    if heap_bytes() < MIN_HEAP {
        let heap = heap_bytes();
        println!(
            "kv: {heap} bytes of heap are too few for its connections; give it 16 MiB (--mem)"
        );
        return UNFIT;
    }
    let server = Server::new(limits(), boot.seed);
    let mut network = Network::new(nic, host, server, boot.seed, now());
    println!("kv: serving on {}:{PORT}", Ipv4Addr::from(boot.ip));
    loop {
        let seen = clock::activity();
        let (now_ns, wall_ns) = (clock::now_ns(), clock::wall_ns());
        network.server().set_time(now_ns, wall_ns);
        let wake_at = match network.poll(now()) {
            // The exit frees buffers: come back at once to send the rest.
            Wake::Now => 0,
            Wake::At(instant) => nanoseconds(instant),
            Wake::Never => clock::NEVER,
        };
        clock::idle(seen, wake_at);
    }
}

/// Apart from the network's memory, half of the heap is for data and a quarter for the buffers of
/// connections. The rest is left for fragmentation.
fn limits() -> Limits {
    let heap = heap_bytes().saturating_sub(NETWORK_HEAP);
    Limits {
        data: heap / 2,
        buffers: heap / 4,
    }
}

fn now() -> Instant {
    // Rounded up, so that the deadline for which the guest was woken counts as passed.
    Instant::from_micros(clock::now_ns().div_ceil(1000) as i64)
}

fn nanoseconds(instant: Instant) -> u64 {
    instant.total_micros() as u64 * 1000
}
