//! Connections: in order and without loss, until they break.

use crate::wire::Message;
use std::collections::VecDeque;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    Primary,
    Backup,
}

impl End {
    pub fn other(self) -> End {
        match self {
            End::Primary => End::Backup,
            End::Backup => End::Primary,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Packet {
    Message(Message),
    /// The end of the connection.
    Closed,
}

/// A connection between two processes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// The process at each end, and whether it still has its end open.
    who: [usize; 2],
    open: [bool; 2],
    /// The packets on their way to each end.
    lanes: [VecDeque<Packet>; 2],
    /// A packet that is sent is lost.
    broken: bool,
}

impl Connection {
    pub fn new(primary: usize, backup: usize) -> Connection {
        Connection {
            who: [primary, backup],
            open: [true; 2],
            lanes: Default::default(),
            broken: false,
        }
    }

    pub fn at(&self, end: End) -> usize {
        self.who[end as usize]
    }

    /// The end that this process has open.
    pub fn end_of(&self, who: usize) -> Option<End> {
        let ends = [End::Primary, End::Backup].into_iter();
        let mut ends = ends.filter(|&end| self.at(end) == who && self.open[end as usize]);
        ends.next()
    }

    pub fn is_over(&self) -> bool {
        self.open == [false; 2]
    }

    /// The packet that arrives next at this end.
    pub fn next(&self, to: End) -> Option<&Packet> {
        self.lanes[to as usize].front()
    }

    /// How many packets are on their way to this end.
    pub fn waiting(&self, to: End) -> usize {
        self.lanes[to as usize].len()
    }

    /// Will nothing ever arrive at this end, not even the close?
    pub fn is_dead_for(&self, to: End) -> bool {
        let mute = self.broken || !self.open[to.other() as usize];
        mute && self.lanes[to as usize].is_empty()
    }

    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Sends a message. A heartbeat directly behind another one is left out, as it says nothing new.
    pub fn send(&mut self, from: End, message: Message) {
        let to = from.other() as usize;
        let packet = Packet::Message(message);
        let beats = packet == Packet::Message(Message::Heartbeat);
        let same = beats && self.lanes[to].back() == Some(&packet);
        if self.open[from as usize] && self.open[to] && !self.broken && !same {
            self.lanes[to].push_back(packet);
        }
    }

    /// Takes the packet that arrives.
    pub fn receive(&mut self, to: End) -> Packet {
        let packet = self.lanes[to as usize].pop_front();
        let packet = packet.expect("something to deliver");
        if packet == Packet::Closed {
            self.vanish(to);
        }
        packet
    }

    /// Closes this end. The other end will notice it.
    pub fn close(&mut self, end: End) {
        if self.open[end as usize] {
            self.vanish(end);
            self.announce_to(end.other());
        }
    }

    /// This end is gone, and the other end does not notice it.
    pub fn vanish(&mut self, end: End) {
        self.open[end as usize] = false;
        self.lanes[end as usize].clear();
    }

    fn announce_to(&mut self, end: End) {
        if self.open[end as usize] && !self.broken {
            self.lanes[end as usize].push_back(Packet::Closed);
        }
    }

    /// Breaks the connection: in each direction all packets but the first `keep` are lost. Unless
    /// `without_a_word`, each end that is still open will notice it.
    pub fn cut(&mut self, keep: [usize; 2], without_a_word: bool) {
        for end in [End::Primary, End::Backup] {
            let lane = &mut self.lanes[end as usize];
            lane.truncate(keep[end as usize]);
            if !without_a_word && lane.back() != Some(&Packet::Closed) {
                self.announce_to(end);
            }
        }
        self.broken = true;
    }
}
