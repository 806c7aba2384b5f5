//! A copy under way at its source, as a model: memory in rounds while the guest runs, then a stop for
//! the rest.

use crate::testing::Rng;
use crate::transfer::StateDigest;
use crate::wire::{COPY_WINDOW_BYTES, Message};
use std::collections::VecDeque;

/// So many bytes a byte of the model's pages stands for.
pub const BYTE: u64 = 1 << 20;

pub struct Copying {
    /// Pieces that the rounds still send.
    left: u64,
    /// Bytes of memory sent, and made.
    sent: u64,
    made: u64,
    captured: bool,
    /// What must be sent in this order.
    outbox: VecDeque<Message>,
}

/// The memory and the rest of a machine, as both sides see it.
pub fn digest(memory: u64, chain: u64) -> StateDigest {
    StateDigest(vec![("memory".into(), memory), ("vCPU".into(), chain)])
}

impl Copying {
    pub fn new(rng: &mut Rng) -> Copying {
        Copying {
            left: rng.below(12),
            sent: 0,
            made: 0,
            captured: false,
            outbox: VecDeque::new(),
        }
    }

    fn piece(&mut self, rng: &mut Rng) -> Message {
        let pages = vec![7; 1 + rng.below(6) as usize];
        self.made += pages.len() as u64 * BYTE;
        Message::Memory { pages }
    }

    /// The next message, while no more than the window is under way.
    pub fn next(&mut self, loaded: u64, rng: &mut Rng) -> Option<Message> {
        assert!(
            loaded <= self.sent && self.sent <= loaded + COPY_WINDOW_BYTES + 6 * BYTE,
            "the window: {loaded} of {} loaded",
            self.sent
        );
        let room = self.sent < loaded + COPY_WINDOW_BYTES;
        if self.outbox.is_empty() && self.left > 0 && rng.one_in(2) {
            self.left -= 1;
            let piece = self.piece(rng);
            self.outbox.push_back(piece);
        }
        let memory = matches!(self.outbox.front(), Some(Message::Memory { .. }));
        let message = self.outbox.pop_front_if(|_| room || !memory)?;
        if let Message::Memory { pages } = &message {
            self.sent += pages.len() as u64 * BYTE;
        }
        Some(message)
    }

    /// Bytes of memory sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the machine is to be stopped for the rest.
    pub fn wants_stop(&self) -> bool {
        self.left == 0 && !self.captured && self.outbox.is_empty()
    }

    /// The machine is stopped: the rest of its memory, then `state` with what its digest is made of.
    pub fn capture(&mut self, rng: &mut Rng) -> u64 {
        self.captured = true;
        for _ in 0..rng.below(4) {
            let piece = self.piece(rng);
            self.outbox.push_back(piece);
        }
        self.made
    }

    /// Whether something waits that has to be sent first.
    pub fn waits(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What waits when all of the memory was sent.
    pub fn finish(self) -> Vec<Message> {
        let memory = |message: &Message| matches!(message, Message::Memory { .. });
        assert!(!self.outbox.iter().any(memory), "a copy that was proved");
        self.outbox.into()
    }

    /// Sends this after what waits.
    pub fn push(&mut self, message: Message) {
        self.outbox.push_back(message);
    }
}
