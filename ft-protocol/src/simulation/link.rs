//! A model of a connection.

use super::World;
use crate::Time;
use crate::arbiter::MemberId;
use crate::testing::Rng;
use crate::wire::{Beat, Message};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Primary,
    Backup,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Primary => Side::Backup,
            Side::Backup => Side::Primary,
        }
    }
}

/// One direction: the messages on their way to an end. `None` is the end of the connection.
#[derive(Default)]
struct Lane {
    packets: VecDeque<(Time, Option<Message>)>,
    /// Does the receiver still have its end open?
    open: bool,
}

/// A connection: in order and without loss, until it breaks. Then it loses everything after some
/// message.
pub struct Link {
    pub primary: MemberId,
    pub backup: MemberId,
    lanes: [Lane; 2],
    /// Nothing arrives before this time.
    pub stalled_until: Time,
    /// Beats on their way to each side, in no order.
    beats: [Vec<(Time, Beat)>; 2],
    /// Beats pass although the connection stalls.
    pub beats_pass: bool,
}

impl Link {
    fn beat(&mut self, from: Side, beat: Beat, now: Time, rng: &mut Rng) {
        if !rng.one_in(4) {
            let arrives = now.after(Duration::from_micros(50 + rng.below(50_000)));
            self.beats[from.other() as usize].push((arrives, beat));
        }
    }

    fn beats(&mut self, to: Side, now: Time) -> Vec<Beat> {
        if now < self.stalled_until && !self.beats_pass {
            return Vec::new();
        }
        let (due, later) = std::mem::take(&mut self.beats[to as usize])
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.beats[to as usize] = later;
        Vec::into_iter(due).map(|(_, beat)| beat).collect()
    }

    fn send(&mut self, from: Side, message: Message, now: Time, rng: &mut Rng) {
        if !self.lanes[from as usize].open {
            return;
        }
        if !self.lanes[from.other() as usize].open && rng.one_in(2) {
            // As in TCP: data for a closed end resets the connection, and unread data is lost.
            self.lanes[from as usize].packets = VecDeque::from([(now, None)]);
        }
        self.enqueue(from.other(), Some(message), now, rng);
    }

    fn enqueue(&mut self, to: Side, packet: Option<Message>, now: Time, rng: &mut Rng) {
        let lane = &mut self.lanes[to as usize];
        let arrives = now.after(Duration::from_micros(50 + rng.below(2000)));
        let last = lane.packets.back().map_or(Time(0), |(at, _)| *at);
        lane.packets.push_back((arrives.max(last), packet));
    }

    fn receive(&mut self, to: Side, now: Time) -> Option<Option<Message>> {
        let lane = &mut self.lanes[to as usize];
        let due = lane.packets.front().is_some_and(|(at, _)| *at <= now);
        if !lane.open || !due || now < self.stalled_until {
            return None;
        }
        let (_, packet) = lane.packets.pop_front()?;
        lane.open = packet.is_some();
        Some(packet)
    }

    /// Breaks the connection: everything after some message is lost, and both ends notice it.
    pub fn cut(&mut self, now: Time, rng: &mut Rng) {
        for side in [Side::Primary, Side::Backup] {
            let packets = &mut self.lanes[side as usize].packets;
            let keep = rng.below(packets.len() as u64 + 1) as usize;
            packets.truncate(keep);
            self.enqueue(side, None, now, rng);
        }
    }

    /// Flips a bit in a piece of the log that is on its way.
    pub fn corrupt(&mut self, rng: &mut Rng) {
        for (_, packet) in &mut self.lanes[Side::Backup as usize].packets {
            if let Some(Message::Log { frames }) = packet {
                let at = rng.below(frames.len() as u64) as usize;
                frames[at] ^= 1 << rng.below(8);
                return;
            }
        }
    }
}

/// A member's end of a connection. Both ends share the connection.
pub struct Wire {
    pub link: Rc<RefCell<Link>>,
    side: Side,
}

/// Connects two members. Returns the primary's end and the backup's.
pub fn connect(primary: MemberId, backup: MemberId) -> [Wire; 2] {
    let link = Rc::new(RefCell::new(Link {
        primary,
        backup,
        lanes: [(); 2].map(|()| Lane {
            packets: VecDeque::new(),
            open: true,
        }),
        stalled_until: Time(0),
        beats: Default::default(),
        beats_pass: false,
    }));
    [Side::Primary, Side::Backup].map(|side| Wire {
        link: Rc::clone(&link),
        side,
    })
}

impl Wire {
    pub fn send(&self, message: Message, world: &mut World) {
        let mut link = self.link.borrow_mut();
        link.send(self.side, message, world.now, &mut world.rng);
    }

    /// Sends a beat, which may be lost, late or out of order, like a datagram.
    pub fn beat(&self, beat: Beat, world: &mut World) {
        let mut link = self.link.borrow_mut();
        link.beat(self.side, beat, world.now, &mut world.rng);
    }

    /// The beats that arrive now.
    pub fn beats(&self, now: Time) -> Vec<Beat> {
        self.link.borrow_mut().beats(self.side, now)
    }

    /// The message that arrives now.
    pub fn receive(&self, now: Time) -> Option<Option<Message>> {
        self.link.borrow_mut().receive(self.side, now)
    }

    /// Closes this end. The other end will notice it.
    pub fn close(self, world: &mut World) {
        let mut link = self.link.borrow_mut();
        link.lanes[self.side as usize] = Lane::default();
        link.enqueue(self.side.other(), None, world.now, &mut world.rng);
    }

    /// This end is gone, and the other end does not notice it.
    pub fn vanish(self) {
        self.link.borrow_mut().lanes[self.side as usize] = Lane::default();
    }
}
