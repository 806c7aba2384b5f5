//! A model of a connection and of the arbiter.

use crate::Time;
use crate::arbiter::*;
use crate::testing::Rng;
use crate::wire::{Beat, Message};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Primary,
    Backup,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Primary => Side::Backup,
            Side::Backup => Side::Primary,
        }
    }
}

/// One direction: what is on its way to an end, None being the connection's end.
#[derive(Default)]
struct Lane {
    packets: VecDeque<(Time, Option<Message>)>,
    /// Whether the receiver still has its end open.
    open: bool,
}

/// A connection. In order and without loss, until it breaks: then any tail of it is lost.
pub struct Link {
    lanes: [Lane; 2],
    /// Nothing arrives before.
    pub stalled_until: Time,
    /// Beats on their way to each side, in no order.
    beats: [Vec<(Time, Beat)>; 2],
    /// Beats pass although the connection stalls.
    pub beats_pass: bool,
}

impl Link {
    pub fn new() -> Link {
        let lanes = [(); 2].map(|()| Lane {
            packets: VecDeque::new(),
            open: true,
        });
        Link {
            lanes,
            stalled_until: Time(0),
            beats: Default::default(),
            beats_pass: false,
        }
    }

    /// Sends a beat: lost, late and out of order as datagrams are.
    pub fn beat(&mut self, from: Side, beat: Beat, now: Time, rng: &mut Rng) {
        if !rng.one_in(4) {
            let arrives = now.after(Duration::from_micros(50 + rng.below(50_000)));
            self.beats[from.other() as usize].push((arrives, beat));
        }
    }

    /// The beats that arrive at this side now.
    pub fn beats(&mut self, to: Side, now: Time) -> Vec<Beat> {
        if now < self.stalled_until && !self.beats_pass {
            return Vec::new();
        }
        let (due, later) = std::mem::take(&mut self.beats[to as usize])
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.beats[to as usize] = later;
        Vec::into_iter(due).map(|(_, beat)| beat).collect()
    }

    pub fn send(&mut self, from: Side, message: Message, now: Time, rng: &mut Rng) {
        if !self.lanes[from as usize].open {
            return;
        }
        if !self.lanes[from.other() as usize].open && rng.one_in(2) {
            // As TCP: data for a closed end resets the connection, and what was unread is lost.
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

    /// This end closes. The other will hear of it.
    pub fn close(&mut self, from: Side, now: Time, rng: &mut Rng) {
        self.vanish(from);
        self.enqueue(from.other(), None, now, rng);
    }

    /// This end is gone without a word.
    pub fn vanish(&mut self, from: Side) {
        self.lanes[from as usize] = Lane::default();
    }

    /// What arrives at this end now.
    pub fn receive(&mut self, to: Side, now: Time) -> Option<Option<Message>> {
        let lane = &mut self.lanes[to as usize];
        let due = lane.packets.front().is_some_and(|(at, _)| *at <= now);
        if !lane.open || !due || now < self.stalled_until {
            return None;
        }
        let (_, packet) = lane.packets.pop_front()?;
        lane.open = packet.is_some();
        Some(packet)
    }

    /// The connection breaks: a tail of what is on its way is lost, and both ends hear of it.
    pub fn cut(&mut self, now: Time, rng: &mut Rng) {
        for side in [Side::Primary, Side::Backup] {
            let packets = &mut self.lanes[side as usize].packets;
            let keep = rng.below(packets.len() as u64 + 1) as usize;
            packets.truncate(keep);
            self.enqueue(side, None, now, rng);
        }
    }

    /// Flips a bit of a piece of the log that is on its way.
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

/// The arbiter, with replies that get lost.
#[derive(Default)]
pub struct Arbiter {
    open: BTreeMap<u64, OpenRecord>,
    claims: BTreeMap<u64, Claim>,
    closed: BTreeSet<u64>,
    /// It does not answer before; but it may have heard.
    pub down_until: Time,
}

impl Arbiter {
    /// Whether it answers; and if not, whether it does what it was asked all the same.
    fn answers(&self, now: Time, rng: &mut Rng) -> (bool, bool) {
        let answers = now >= self.down_until && !rng.one_in(20);
        (answers, answers || rng.one_in(2))
    }

    pub fn open(&mut self, record: OpenRecord, now: Time, rng: &mut Rng) -> OpenAnswer {
        let (answers, acts) = self.answers(now, rng);
        if acts {
            self.open
                .entry(record.generation)
                .or_insert_with(|| record.clone());
        }
        match answers {
            true => judge_open(&record, self.open[&record.generation].clone()),
            false => OpenAnswer::Unreachable("down".into()),
        }
    }

    pub fn claim(
        &mut self,
        generation: u64,
        claimant: MemberId,
        now: Time,
        rng: &mut Rng,
    ) -> ClaimAnswer {
        let (answers, acts) = self.answers(now, rng);
        if acts {
            if let Err(answer) = may_claim(self.open.get(&generation), claimant) {
                return answer;
            }
            self.claims.entry(generation).or_insert(Claim {
                claimant,
                at: now.0,
            });
        }
        match answers {
            true => judge_claim(claimant, &self.claims[&generation]),
            false => ClaimAnswer::Unreachable("down".into()),
        }
    }

    pub fn read(&self, generation: u64, now: Time, rng: &mut Rng) -> ReadBackAnswer {
        match self.open.get(&generation) {
            _ if !self.answers(now, rng).0 => ReadBackAnswer::Unreachable("down".into()),
            Some(record) => ReadBackAnswer::Found(record.clone()),
            None => ReadBackAnswer::Missing,
        }
    }

    pub fn close(&mut self, generation: u64, now: Time, rng: &mut Rng) -> CloseAnswer {
        let (answers, acts) = self.answers(now, rng);
        if acts {
            self.closed.insert(generation);
        }
        match answers {
            true => CloseAnswer::Closed,
            false => CloseAnswer::Unreachable("down".into()),
        }
    }
}
