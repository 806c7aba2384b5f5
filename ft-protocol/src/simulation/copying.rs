//! The source's side of a copy, as a model: memory in rounds while the guest runs, then a stop for the
//! rest.

use crate::testing::Rng;
use crate::transfer::StateDigest;
use crate::wire::{COPY_WINDOW_BYTES, Message};
use std::collections::VecDeque;

/// How many bytes a byte of the model's pages stands for.
pub const BYTE: u64 = 1 << 20;

pub struct Copying {
    /// Pieces that the rounds still make.
    left: u64,
    /// Bytes of memory made, sent, and in the joiner's memory.
    made: u64,
    sent: u64,
    pub loaded: u64,
    /// What was made and not sent yet.
    pieces: VecDeque<Vec<u8>>,
    state: Option<Message>,
    captured: bool,
}

/// The digests of a machine's memory and of its rest, the same on both sides.
pub fn digest(memory: u64, chain: u64) -> StateDigest {
    StateDigest(vec![("memory".into(), memory), ("vCPU".into(), chain)])
}

impl Copying {
    pub fn new(rng: &mut Rng) -> Copying {
        Copying {
            left: rng.below(12),
            made: 0,
            sent: 0,
            loaded: 0,
            pieces: VecDeque::new(),
            state: None,
            captured: false,
        }
    }

    /// Makes a piece, of so many bytes.
    fn piece(&mut self, rng: &mut Rng) -> u64 {
        let pages = vec![7; 1 + rng.below(6) as usize];
        let bytes = pages.len() as u64 * BYTE;
        self.made += bytes;
        self.pieces.push_back(pages);
        bytes
    }

    /// The next piece of a round, if there is one now.
    pub fn next(&mut self, rng: &mut Rng) -> Option<u64> {
        let comes = self.left > 0 && rng.one_in(2);
        self.left -= u64::from(comes);
        comes.then(|| self.piece(rng))
    }

    /// The first piece that was not sent yet.
    pub fn take_piece(&mut self) -> Vec<u8> {
        assert!(
            self.loaded <= self.sent && self.sent < self.loaded + COPY_WINDOW_BYTES,
            "the window: {} of {} loaded",
            self.loaded,
            self.sent
        );
        let pages = self.pieces.pop_front().expect("a piece that was made");
        self.sent += pages.len() as u64 * BYTE;
        pages
    }

    /// The rest, when all of the memory was sent.
    pub fn take_state(&mut self) -> Message {
        assert!(!self.waits(), "the rest is sent last");
        self.state.take().expect("it was captured")
    }

    /// Whether a piece was made and not sent.
    pub fn waits(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// Must the machine be stopped for the rest?
    pub fn wants_stop(&self) -> bool {
        self.left == 0 && !self.captured && !self.waits()
    }

    /// The machine is stopped: the last pieces of its memory.
    pub fn capture(&mut self, rng: &mut Rng) -> Vec<u64> {
        self.captured = true;
        (0..rng.below(4)).map(|_| self.piece(rng)).collect()
    }

    /// And what is to be sent behind them; what its memory is then.
    pub fn keep(&mut self, state: Message) -> u64 {
        self.state = Some(state);
        self.made
    }
}
