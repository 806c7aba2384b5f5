//! What every member has, whatever its role.

use super::link::Wire;
use super::{Fate, World, soon};
use crate::Time;
use crate::arbiter::{MemberId, OpenRecord};
use crate::transfer::Right;
use crate::wire::{Beat, Message};

/// A question to the arbiter or to the fence.
pub enum Asked {
    Open(OpenRecord),
    ReadBack(u64),
    Claim(u64),
    Close(u64),
    Fence,
}

pub struct Seat {
    pub me: MemberId,
    pub fate: Fate,
    pub wire: Option<Wire>,
    /// The member whose Welcome or Offer came last.
    pub peer: Option<MemberId>,
    pub hung_until: Time,
    /// Its vCPU does not answer before this time.
    pub mute_until: Time,
    asked: Vec<(Time, Asked)>,
}

impl Seat {
    pub fn new(me: MemberId) -> Seat {
        Seat {
            me,
            fate: Fate::Running,
            wire: None,
            peer: None,
            hung_until: Time(0),
            mute_until: Time(0),
            asked: Vec::new(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.fate == Fate::Running
    }

    pub fn send(&self, message: Message, world: &mut World) {
        if let Some(wire) = &self.wire {
            wire.send(message, world);
        }
    }

    pub fn beat(&self, beat: Beat, world: &mut World) {
        if let Some(wire) = &self.wire {
            wire.beat(beat, world);
        }
    }

    pub fn beats(&self, now: Time) -> Vec<Beat> {
        self.wire.as_ref().map_or(vec![], |wire| wire.beats(now))
    }

    pub fn receive(&mut self, now: Time) -> Option<Option<Message>> {
        let packet = self.wire.as_ref()?.receive(now)?;
        if packet.is_none() {
            self.wire = None;
        }
        Some(packet)
    }

    pub fn disconnect(&mut self, world: &mut World) {
        if let Some(wire) = self.wire.take() {
            wire.close(world);
        }
    }

    pub fn ask(&mut self, question: Asked, world: &mut World) {
        let due = soon(world.now, &mut world.rng, 5);
        self.asked.push((due, question));
    }

    /// A question that is answered now.
    pub fn due(&mut self, now: Time) -> Option<Asked> {
        let index = self.asked.iter().position(|(due, _)| *due <= now)?;
        Some(self.asked.remove(index).1)
    }

    /// The process is gone. Its open questions may still reach the arbiter.
    pub fn crash(&mut self, world: &mut World) {
        self.fate = Fate::Crashed;
        match self.wire.take() {
            Some(wire) if world.rng.one_in(3) => wire.vanish(),
            Some(wire) => wire.close(world),
            None => {}
        }
        let World {
            now, rng, arbiter, ..
        } = world;
        for (_, asked) in self.asked.drain(..) {
            match asked {
                _ if rng.one_in(2) => {}
                Asked::Open(record) => drop(arbiter.open(record, *now, rng)),
                Asked::Claim(generation) => drop(arbiter.claim(generation, self.me, *now, rng)),
                Asked::Close(generation) => drop(arbiter.close(generation, *now, rng)),
                Asked::ReadBack(_) | Asked::Fence => {}
            }
        }
    }
}

/// A fence that sometimes fails.
pub fn fence(world: &mut World) -> bool {
    let fails = world.rng.one_in(4);
    if fails {
        world.note("a fence fails");
    }
    !fails
}

pub fn record(right: Right) -> OpenRecord {
    OpenRecord {
        vm: "demo".into(),
        generation: right.generation,
        members: right.members,
        nonce: right.nonce,
        at: 0,
    }
}
