//! Messages on the logging channel.
//!
//! Each direction of a connection is a stream of frames (see [`crate::log::codec`]) with sequence
//! numbers from 0. [`Message::Hello`], [`Message::Refuse`] and the protocol version at the head of
//! [`Message::Welcome`] have the same layout in every version, so that any two versions can at least
//! refuse each other with a sentence.

use crate::arbiter::{MemberId, Members, Nonce};
use crate::log::codec::{self, FrameDecoder, MAX_MESSAGE_PAYLOAD};
use crate::log::{Damage, Header, HostPrint, Position};
use crate::transfer::StateDigest;
use bincode::{Decode, Encode};
use thiserror::Error;

/// This version of the protocol. Peers one version apart should understand each other, so that a pair
/// can be upgraded one side at a time.
pub const PROTOCOL_VERSION: u32 = 4;
/// The oldest version that is understood: earlier ones build another machine.
const FIRST_VERSION: u32 = 4;
/// Longest guest image that a [`Message::Welcome`] can carry, bytes.
pub const MAX_IMAGE: usize = MAX_MESSAGE_PAYLOAD - (1 << 20);

/// Bytes of a copy that may be under way: sent, and not in the other side's memory yet.
pub const COPY_WINDOW_BYTES: u64 = 8 << 20;

/// A message between the two sides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Message {
    /// Backup to primary, first on every connection: which member asks to back up which VM.
    Hello {
        /// The newest protocol version that it understands.
        protocol: u32,
        /// The VM it wants to protect.
        vm: String,
        /// Its id.
        member: MemberId,
        /// Its host.
        host: HostPrint,
    },
    /// Either way: the connection ends, for a reason that no retry can change.
    Refuse {
        /// One sentence for the operator.
        reason: String,
    },
    /// Primary to backup: everything that is needed to build the same machine.
    Welcome {
        /// The version to speak from here on.
        protocol: u32,
        /// The generation that was opened for this pair.
        generation: u64,
        /// Its members.
        members: Members,
        /// The nonce that the backup must find through its own arbiter.
        nonce: Nonce,
        /// The log's header.
        header: Box<Header>,
        /// The guest's ELF file.
        image: Vec<u8>,
    },
    /// Backup to primary: the machine is at position 0; or, after an Offer, there is room for the copy.
    Ready,
    /// Primary to backup: the next part of the log.
    Log {
        /// One or more whole frames of the log, with the log's own sequence numbers.
        frames: Vec<u8>,
    },
    /// Backup to primary: how far it has got.
    Ack {
        /// Every entry up to this sequence number is in its buffer.
        received: u64,
        /// Bytes of the log that its vCPU has taken out of the buffer, in total.
        consumed: u64,
        /// Every entry up to this sequence number is executed; the lag is measured by this.
        executed: u64,
    },
    /// Primary to backup: outputs up to this number have left; never emit them again.
    Released {
        /// Number of the last one that has left.
        output: u64,
    },
    /// Either way: the sender is alive.
    Heartbeat,
    /// Backup to primary: its execution differs from the log. It protects the VM no more.
    Diverged {
        /// The position at which the difference showed.
        at: Position,
        /// The difference.
        what: String,
    },
    /// Primary to backup: the guest has ended, everything is acknowledged and released. Backup to
    /// primary: it has understood; or, after a handover, it is live.
    Bye,
    /// Primary to backup: the guest rests, everything is acknowledged and released. Take over.
    Handover,
    /// Backup to primary: its operator wants it to leave.
    Leave,
    /// Backup to primary: what an operator asked for at the backup's host.
    Request(Request),
    /// From a member that runs alone: the VM already runs, and the joiner can have a copy of it.
    Offer {
        /// The version to speak from here on.
        protocol: u32,
        /// The generation in which it runs alone.
        generation: u64,
        /// That generation's members; the sender is one of them.
        members: Members,
        /// That generation's nonce, which the joiner must find through its own arbiter.
        nonce: Nonce,
        /// The sender.
        source: MemberId,
        /// The log's header.
        header: Box<Header>,
        /// The guest's ELF file.
        image: Vec<u8>,
    },
    /// Primary to backup: pages of the guest's memory, as they were a moment ago. Later ones replace
    /// earlier ones.
    Memory {
        /// Pages, in the runtimes' encoding.
        pages: Vec<u8>,
    },
    /// Backup to primary: how much of the copy is in its memory, so that no more than
    /// [`COPY_WINDOW_BYTES`] are ever under way.
    Loaded {
        /// Bytes of the pages of [`Message::Memory`], in total.
        bytes: u64,
    },
    /// Primary to backup: the rest of the machine, at the position where it was stopped for this. The
    /// memory is complete; the log goes on from here.
    State {
        /// The log's last entry before that position.
        seq: u64,
        /// The position.
        at: Position,
        /// Number of the last output before that position.
        outputs: u64,
        /// vCPU and devices, in the runtimes' encoding.
        state: Vec<u8>,
    },
    /// Backup to primary: the copy is complete.
    Copied {
        /// Digests of its parts.
        digest: StateDigest,
    },
    /// Primary to backup: from now on it is a member of a pair. A joiner that has not received this
    /// never claims.
    Armed {
        /// The generation that was opened for it.
        generation: u64,
        /// That generation's nonce.
        nonce: Nonce,
    },
    /// Primary to backup, after the primary was away: answer this if you still follow.
    Probe {
        /// The number of the probe; it counts up.
        number: u64,
    },
    /// Backup to primary: it still followed when this probe came.
    Echo {
        /// The number of the probe.
        number: u64,
    },
}

/// What an operator may ask of a running VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Request {
    /// End the guest, on both sides.
    Stop,
    /// Hand over to the backup, on purpose and without a timeout.
    Switchover,
}

/// A heartbeat by UDP: it arrives when the channel is slow, and is not enough without the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Beat {
    /// The pair's generation.
    pub generation: u64,
    /// The sender.
    pub from: MemberId,
    /// Counts up. A beat that is not newer than the last one is ignored.
    pub count: u64,
}

impl Beat {
    /// Longest datagram, bytes.
    pub const MAX_DATAGRAM: usize = 128;

    /// The version of the protocol in which beats last changed; later versions use it too.
    const VERSION: u64 = 2;

    /// The datagram: one frame, with the version as its sequence number.
    pub fn encode(&self) -> Vec<u8> {
        let (mut payload, mut datagram) = (Vec::new(), Vec::new());
        codec::encode_payload(self, &mut payload);
        codec::encode_frame(Beat::VERSION, &payload, &mut datagram);
        datagram
    }

    /// Reads a datagram. `None` if it is not a beat: any process that reaches the port can send
    /// anything.
    pub fn decode(datagram: &[u8]) -> Option<Beat> {
        let mut frames = FrameDecoder::new(Beat::VERSION, Beat::MAX_DATAGRAM, 0);
        frames.push(datagram);
        let beat = codec::decode_payload(frames.next_frame().ok()??.payload).ok();
        beat.filter(|_| frames.pending() == 0)
    }
}

impl Message {
    /// Its name, for the operator.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Hello { .. } => "Hello",
            Message::Refuse { .. } => "Refuse",
            Message::Welcome { .. } => "Welcome",
            Message::Ready => "Ready",
            Message::Log { .. } => "Log",
            Message::Ack { .. } => "Ack",
            Message::Released { .. } => "Released",
            Message::Heartbeat => "Heartbeat",
            Message::Diverged { .. } => "Diverged",
            Message::Bye => "Bye",
            Message::Handover => "Handover",
            Message::Leave => "Leave",
            Message::Request(_) => "Request",
            Message::Offer { .. } => "Offer",
            Message::Memory { .. } => "Memory",
            Message::Loaded { .. } => "Loaded",
            Message::State { .. } => "State",
            Message::Copied { .. } => "Copied",
            Message::Armed { .. } => "Armed",
            Message::Probe { .. } => "Probe",
            Message::Echo { .. } => "Echo",
        }
    }
}

/// The newest version that both sides understand, if they have the versions `ours` and `theirs`. Each
/// understands its own and the one before.
pub fn common_version(ours: u32, theirs: u32) -> Option<u32> {
    let common = ours.min(theirs);
    (ours.abs_diff(theirs) <= 1 && common >= FIRST_VERSION).then_some(common)
}

/// A message that cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[error("a {name} message of {len} bytes is over the channel's limit of {MAX_MESSAGE_PAYLOAD}")]
pub struct TooLong {
    /// The message's name.
    pub name: &'static str,
    /// Its length, bytes.
    pub len: usize,
}

/// Appends a message's frame to `out`.
///
/// # Errors
/// If it is longer than the limit; `out` is then unchanged. Only a guest image can be that long.
pub fn encode_message(seq: u64, message: &Message, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let mut payload = Vec::new();
    codec::encode_payload(message, &mut payload);
    if payload.len() > MAX_MESSAGE_PAYLOAD {
        return Err(TooLong {
            name: message.name(),
            len: payload.len(),
        });
    }
    codec::encode_frame(seq, &payload, out);
    Ok(())
}

/// The sending half of a connection: it counts the sequence numbers.
#[derive(Debug, Default)]
pub struct WireEncoder {
    next_seq: u64,
}

impl WireEncoder {
    /// Appends the next message to `out`.
    ///
    /// # Errors
    /// See [`encode_message`].
    pub fn encode(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), TooLong> {
        encode_message(self.next_seq, message, out)?;
        self.next_seq += 1;
        Ok(())
    }
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct WireDecoder {
    frames: FrameDecoder,
}

impl WireDecoder {
    /// A decoder for a connection from which nothing was read yet.
    pub fn new() -> WireDecoder {
        WireDecoder {
            frames: FrameDecoder::new(0, MAX_MESSAGE_PAYLOAD, 0),
        }
    }

    /// Adds bytes that were received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// The next message; `None` until more bytes are added.
    ///
    /// # Errors
    /// If the stream is damaged; the connection must then be closed.
    pub fn next_message(&mut self) -> Result<Option<Message>, Damage> {
        let Some(frame) = self.frames.next_frame()? else {
            return Ok(None);
        };
        let offset = frame.offset;
        codec::decode_payload(frame.payload)
            .map(Some)
            .map_err(|e| Damage {
                offset,
                what: format!("message {}: {e}", frame.seq),
            })
    }
}

impl Default for WireDecoder {
    fn default() -> WireDecoder {
        WireDecoder::new()
    }
}

#[cfg(test)]
mod tests;
