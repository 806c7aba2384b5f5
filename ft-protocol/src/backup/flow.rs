//! The log arrives: it is put into the buffer, acknowledged, and consumed.

use super::{
    ACK_CONSUMED_BYTES, BUFFER_BYTES, Backup, BackupAction, Delivery, LogItem, Phase, Received,
};
use crate::Time;
use crate::log::codec::PayloadError;
use crate::log::{Damage, Event, codec};
use crate::mutant::Mutant;
use crate::wire::Message;
use thiserror::Error;

/// What is wrong with a message of the log.
#[derive(Debug, Error)]
enum Unsound {
    #[error("a log {0}")]
    Frames(#[from] Damage),
    #[error("entry {seq}: {source}")]
    Entry { seq: u64, source: PayloadError },
    #[error("entry {seq} cannot follow the one before it")]
    Order { seq: u64 },
    #[error("a log message that ends inside a frame")]
    Cut,
    #[error("more of the log than was asked for")]
    TooMuch,
}

impl Backup {
    /// A part of the log came: first into the buffer, then the acknowledgement.
    pub(super) fn take_log(&mut self, frames: Vec<u8>) {
        match self.take_frames(&frames) {
            Ok(items) => {
                self.push(BackupAction::Deliver(Delivery { items, frames }));
                self.acknowledge();
            }
            Err(unsound) => self.broke(unsound.to_string()),
        }
    }

    /// Decodes frames of the log. Nothing is acknowledged that could not be executed: if one entry is
    /// damaged, the whole message counts as not received.
    fn take_frames(&mut self, frames: &[u8]) -> Result<Vec<LogItem>, Unsound> {
        let mut items = Vec::new();
        let mut log = self.log;
        self.frames.push(frames);
        while let Some(frame) = self.frames.next_frame()? {
            let (seq, bytes) = (frame.seq, frame.size() as u64);
            let entry = codec::decode_entry(frame.payload);
            let entry = entry.map_err(|source| Unsound::Entry { seq, source })?;
            if log.ended || entry.at < log.at {
                return Err(Unsound::Order { seq });
            }
            let ended = matches!(entry.event, Event::End(_));
            log = Received {
                seq,
                bytes: log.bytes + bytes,
                at: entry.at,
                ended,
            };
            items.push(LogItem { seq, bytes, entry });
        }
        if self.frames.pending() > 0 {
            return Err(Unsound::Cut);
        }
        if log.bytes - self.consumed > BUFFER_BYTES {
            return Err(Unsound::TooMuch);
        }
        self.log = log;
        Ok(items)
    }

    pub(super) fn acknowledge(&mut self) {
        self.ack_due = self.peer.mute;
        if self.peer.mute {
            return;
        }
        self.told = (self.consumed, self.executed);
        let ack = Message::Ack {
            received: self.log.seq + u64::from(self.has(Mutant::AckBeforeReceipt)),
            consumed: self.consumed,
            executed: self.executed,
        };
        match self.actions.back_mut() {
            Some(BackupAction::Send(last @ Message::Ack { .. })) => *last = ack,
            _ => self.push(BackupAction::Send(ack)),
        }
    }

    /// The primary was away, and asks whether this side still follows it.
    pub(super) fn probed(&mut self, number: u64) {
        self.echo_due = Some(number);
        self.echo();
    }

    /// Answers a probe, if there is one and this side is not mute. A side that suspects its primary
    /// does not answer.
    pub(super) fn echo(&mut self) {
        if self.phase == Phase::Following
            && !self.peer.mute
            && let Some(number) = self.echo_due.take()
        {
            self.push(BackupAction::Send(Message::Echo { number }));
        }
    }

    pub(super) fn forget(&mut self, output: u64) {
        if output > self.forgotten {
            self.forgotten = output + u64::from(self.has(Mutant::ForgetsTooMuch));
            self.push(BackupAction::ForgetOutputs {
                up_to: self.forgotten,
            });
        }
    }

    /// The vCPU has taken `bytes` bytes of the log out of the buffer, in total, and has executed the
    /// entries up to `seq`.
    ///
    /// # Panics
    /// If one of the numbers went down, or it took more than there was.
    pub fn handle_consumed(&mut self, _now: Time, bytes: u64, seq: u64) {
        assert!(
            (self.consumed..=self.log.bytes).contains(&bytes),
            "{bytes} bytes consumed after {} of {}",
            self.consumed,
            self.log.bytes
        );
        assert!(seq <= self.log.seq, "entry {seq} executed before it came");
        self.consumed = bytes;
        self.executed = self.executed.max(seq);
        if self.takes_log() && self.consumed - self.told.0 >= ACK_CONSUMED_BYTES {
            self.acknowledge();
        }
    }
}
