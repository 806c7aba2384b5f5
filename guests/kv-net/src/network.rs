//! The whole network: card, stack and server together.

use kv_core::Server;
use smoltcp::iface::{Config, Interface, PollResult};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::announcements::Announcements;
use crate::connections::{Admission, Connections};
use crate::inbound::{Arrival, Wire};
use crate::waiting::Waiting;
use crate::{Card, Host};

/// When the network must be polled again at the latest, if its card receives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// As soon as the card has sent its frames: there was no room for more.
    Now,
    /// At this time.
    At(Instant),
    /// Only when a frame comes in.
    Never,
}

/// A server on a network.
pub struct Network<C> {
    wire: Wire<C>,
    stack: Interface,
    connections: Connections,
    waiting: Waiting,
    announcements: Announcements,
}

impl<C: Card> Network<C> {
    /// A network that comes up now. `seed` decides what others must not guess.
    pub fn new(card: C, host: Host, server: Server, seed: u64, now: Instant) -> Self {
        let mut wire = Wire::new(card, host);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut stack = Interface::new(config, &mut wire, now);
        stack.update_ip_addrs(|all| {
            all.push(IpCidr::Ipv4(host.address))
                .expect("the first of several addresses");
        });
        Self {
            wire,
            stack,
            connections: Connections::new(server),
            waiting: Waiting::default(),
            announcements: Announcements::new(now),
        }
    }

    /// Its card.
    pub fn card(&mut self) -> &mut C {
        &mut self.wire.out.card
    }

    /// The server, whose time must be kept up to date.
    pub fn server(&mut self) -> &mut Server {
        self.connections.server()
    }

    /// Its connections.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Receives what has come, executes it, and sends what there is to send.
    pub fn poll(&mut self, now: Instant) -> Wake {
        if self.announcements.next_at().is_some_and(|at| at <= now)
            && self.wire.out.has_room()
            && self.announcements.take(now)
        {
            self.wire.out.announce();
        }
        while let Some(arrival) = self.wire.fetch(now) {
            let turn = self.waiting.is_empty();
            self.take_in(arrival, turn, now);
        }
        let waited_for = self.waiting.expire(now);
        let watch = &mut self.wire.out.watch;
        let serve_at = self.connections.serve(watch, waited_for, now);
        self.take_in_waiting(now);
        let sockets = self.connections.sockets();
        while self.stack.poll_egress(now, &mut self.wire, sockets) != PollResult::None {}
        if self.wire.out.take_starved() {
            return Wake::Now;
        }
        let poll_at = self.stack.poll_at(now, self.connections.sockets());
        let wanted = [poll_at, serve_at, self.announcements.next_at()];
        wanted
            .into_iter()
            .flatten()
            .min()
            .map_or(Wake::Never, Wake::At)
    }

    /// Gives the received packet to the stack, unless it is a request that must wait.
    fn take_in(&mut self, arrival: Arrival, turn: bool, now: Instant) {
        let watch = &mut self.wire.out.watch;
        match arrival {
            Arrival::Other => self.deliver(now),
            Arrival::Reset(peer) => {
                self.deliver(now);
                self.connections.settle(peer, &mut self.wire.out.watch);
            }
            Arrival::Request(peer) => match self.connections.admit(peer, turn, watch, now) {
                Admission::Welcome => {
                    self.deliver(now);
                    self.connections.settle(peer, &mut self.wire.out.watch);
                }
                Admission::Wait => self.waiting.push(peer, self.wire.packet(), now),
                Admission::Answered => {}
                Admission::Exists => self.wire.out.challenge(peer, now),
            },
        }
        self.wire.discard();
    }

    fn deliver(&mut self, now: Instant) {
        let sockets = self.connections.sockets();
        self.stack.poll_ingress_single(now, &mut self.wire, sockets);
    }

    /// Gives the waiting requests to the stack, as long as there are free places.
    fn take_in_waiting(&mut self, now: Instant) {
        while !self.waiting.is_empty()
            && self.wire.out.has_room()
            && self.connections.make_place(&mut self.wire.out.watch, now)
            && let Some((peer, packet)) = self.waiting.pop()
        {
            self.wire.put_back(&packet);
            self.take_in(Arrival::Request(peer), true, now);
        }
    }
}
