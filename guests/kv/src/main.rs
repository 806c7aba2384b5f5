//! A Redis-protocol server: the guest with something to lose.
//!
//! It polls: one loop takes the frames that came, executes the commands in them, hands over the
//! frames of the replies, and idles until the machine delivers more. An idle exit is where frames
//! move, so under load one exit serves many of them.
#![no_std]
#![no_main]

extern crate alloc;

mod connections;
mod nic;

use guest_rt::abi::BootInfo;
use guest_rt::{boot_info, clock, heap_bytes, println};
use kv_core::{Limits, Server};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

use crate::connections::{Connections, PORT};
use crate::nic::Nic;

/// Exit status on a machine that cannot serve: no network, no address, too little memory.
const UNFIT: u32 = 1;
/// Least heap, bytes: windows and rings take half of it.
const MIN_HEAP: usize = 10 << 20;

guest_rt::entry!(main);

fn main() -> u32 {
    let boot = boot_info();
    let Some(mut nic) = (boot.has_net != 0).then(Nic::new).flatten() else {
        println!("kv: this machine has no network; give it one (--net tap=NAME)");
        return UNFIT;
    };
    let Some(mut interface) = interface(boot, &mut nic) else {
        let [ip, gateway] = [boot.ip, boot.gateway].map(Ipv4Address::from);
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
    let mut connections = Connections::new(Server::new(limits(), boot.seed));
    println!("kv: serving on {}:{PORT}", Ipv4Address::from(boot.ip));
    loop {
        let seen = clock::activity();
        let now = now();
        while interface.poll_ingress_single(now, &mut nic, connections.sockets())
            != PollIngressSingleResult::None
        {}
        let serve_at = connections.serve(now);
        while interface.poll_egress(now, &mut nic, connections.sockets()) != PollResult::None {}

        if nic.take_starved() {
            // The exit sets buffers free: come straight back for what is left.
            clock::idle(seen, 0);
            continue;
        }
        let poll_at = interface.poll_at(now, connections.sockets());
        let wake_at = [poll_at, serve_at].into_iter().flatten().min();
        clock::idle(seen, wake_at.map_or(clock::NEVER, nanoseconds));
    }
}

/// The network stack with the address that the machine was given; `None` if that is none.
fn interface(boot: &BootInfo, nic: &mut Nic) -> Option<Interface> {
    let mut config = Config::new(EthernetAddress(boot.mac).into());
    config.random_seed = boot.seed;
    let [ip, gateway] = [boot.ip, boot.gateway].map(Ipv4Address::from);
    if boot.prefix_len > 32 || ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() {
        return None;
    }
    let mut interface = Interface::new(config, nic, now());
    interface.update_ip_addrs(|all| {
        all.push(IpCidr::new(ip.into(), boot.prefix_len))
            .expect("the first of several addresses");
    });
    if !gateway.is_unspecified() {
        interface
            .routes_mut()
            .add_default_ipv4_route(gateway)
            .ok()?;
    }
    Some(interface)
}

/// Half of the heap for data, a quarter for what connections keep; the rest is for windows, rings
/// and what fragmentation wastes.
fn limits() -> Limits {
    let heap = heap_bytes();
    Limits {
        data: heap / 2,
        buffers: heap / 4,
    }
}

fn now() -> Instant {
    // Rounded up, so that a deadline that woke us has passed.
    Instant::from_micros(clock::now_ns().div_ceil(1000) as i64)
}

fn nanoseconds(instant: Instant) -> u64 {
    instant.total_micros() as u64 * 1000
}
