//! The order of what is sent, and what waits.
//!
//! The memory of a copy is sent in pieces, and only a window of them may be under way. What comes after a
//! piece that waits is sent after it: the joiner needs the whole machine before its log goes on. Heartbeats
//! alone do not wait, as they are no part of that order.

use super::{Copying, Phase, Primary, PrimaryAction, Stage};
use crate::Time;
use crate::mutant::Mutant;
use crate::wire::{COPY_WINDOW_BYTES, Message};
use std::collections::VecDeque;

/// Something to be sent. The bytes of a copy and of the log are with the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Parcel {
    /// A piece of the copy's memory, of so many bytes.
    Piece(u64),
    /// The rest of the copy.
    State,
    /// The log, up to this entry.
    Log(u64),
    Message(Message),
}

/// What waits, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Outbox {
    waiting: VecDeque<Parcel>,
    /// Bytes of the copy's memory that were sent, and that are in the joiner's.
    sent: u64,
    loaded: u64,
}

impl Outbox {
    fn has_room(&self) -> bool {
        self.sent < self.loaded.saturating_add(COPY_WINDOW_BYTES)
    }

    /// The next one, if there is room for it.
    fn pop(&mut self, room: bool) -> Option<Parcel> {
        let passes = |parcel: &mut Parcel| room || !matches!(parcel, Parcel::Piece(_));
        let parcel = self.waiting.pop_front_if(passes)?;
        if let Parcel::Piece(bytes) = parcel {
            self.sent += bytes;
        }
        Some(parcel)
    }

    /// Whether something waits: a piece of the copy, and what comes after it.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes of the copy's memory that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }
}

impl Primary {
    /// Whether another piece of the copy's memory is of use. Until then none is to be made: what was
    /// written meanwhile would have to be sent again.
    pub fn wants_piece(&self) -> bool {
        self.is_copying() && !self.outbox.waits() && self.outbox.has_room()
    }

    /// The next piece of the copy's memory is there, of so many bytes as they are sent. Means nothing if the
    /// joiner was lost meanwhile.
    pub fn handle_piece(&mut self, _now: Time, bytes: u64) {
        if self.is_copying() {
            self.post(Parcel::Piece(bytes));
        }
    }

    fn is_copying(&self) -> bool {
        self.phase == Phase::Joined(Stage::Copying)
    }

    /// Whether something waits behind the copy.
    #[cfg(test)]
    pub(crate) fn has_waiting(&self) -> bool {
        self.outbox.waits()
    }

    /// So many bytes of the copy are in the joiner's memory.
    pub(super) fn loaded(&mut self, bytes: u64) {
        self.outbox.loaded = self.outbox.loaded.max(bytes);
        self.send_waiting();
    }

    pub(super) fn send(&mut self, message: Message) {
        match message {
            Message::Heartbeat => self.push(PrimaryAction::Send(message)),
            message => self.post(Parcel::Message(message)),
        }
    }

    pub(super) fn send_log(&mut self, up_to: u64) {
        match self.has(Mutant::OvertakesCopy) {
            true => self.push_log(up_to),
            false => self.post(Parcel::Log(up_to)),
        }
    }

    pub(super) fn send_state(&mut self) {
        self.post(Parcel::State);
    }

    fn post(&mut self, parcel: Parcel) {
        self.outbox.waiting.push_back(parcel);
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        loop {
            let room = self.outbox.has_room() || self.has(Mutant::IgnoresWindow);
            let Some(parcel) = self.outbox.pop(room) else {
                return;
            };
            match parcel {
                Parcel::Piece(_) => self.push(Copying::SendPiece),
                Parcel::State => self.push(Copying::SendState),
                Parcel::Log(up_to) => self.push_log(up_to),
                Parcel::Message(message) => self.push(PrimaryAction::Send(message)),
            }
        }
    }

    /// What nobody took yet is sent together.
    fn push_log(&mut self, seq: u64) {
        match self.actions.back_mut() {
            Some(PrimaryAction::SendLog { up_to }) => *up_to = seq,
            _ => self.push(PrimaryAction::SendLog { up_to: seq }),
        }
    }
}
