//! Messages on the logging channel.
//!
//! Each direction of a connection is a stream of frames (see [`crate::log::codec`]) with sequences
//! from 0. [`Message::Hello`], [`Message::Refuse`] and the protocol version at the head of
//! [`Message::Welcome`] keep their shape in every version, so that any two versions can at least
//! refuse each other in a sentence.

use crate::arbiter::{MemberId, Members, Nonce};
use crate::log::codec::{self, FrameDecoder, MAX_MESSAGE_PAYLOAD};
use crate::log::{Damage, Header, HostPrint, Position};
use crate::transfer::StateDigest;
use bincode::{Decode, Encode};
use thiserror::Error;

/// The version of the protocol that is spoken here. Peers one version apart still understand each
/// other, so that a pair can be upgraded one side at a time.
pub const PROTOCOL_VERSION: u32 = 4;
/// The oldest version that is still spoken: earlier ones build another machine.
const FIRST_VERSION: u32 = 4;
/// Longest guest image that a [`Message::Welcome`] can carry, bytes.
pub const MAX_IMAGE: usize = MAX_MESSAGE_PAYLOAD - (1 << 20);

/// Bytes of a copy that may be under way: sent, and not yet in the other side's memory.
pub const COPY_WINDOW_BYTES: u64 = 8 << 20;

/// What the two sides say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Message {
    /// Backup to primary, first on every connection: who asks to join what.
    Hello {
        /// Newest protocol version it speaks.
        protocol: u32,
        /// The VM it wants to protect.
        vm: String,
        /// Its id.
        member: MemberId,
        /// Its host.
        host: HostPrint,
    },
    /// Either way: it ends here, for a reason that no retry mends.
    Refuse {
        /// One sentence for the operator.
        reason: String,
    },
    /// Primary to backup: everything it takes to build the same machine.
    Welcome {
        /// The version to speak from here on.
        protocol: u32,
        /// The generation that was opened for this pair.
        generation: u64,
        /// Its members.
        members: Members,
        /// What the backup must find in its own arbiter.
        nonce: Nonce,
        /// The log's header.
        header: Box<Header>,
        /// The guest's ELF file.
        image: Vec<u8>,
    },
    /// Backup to primary: the machine stands at position 0; or, after an Offer, there is room for
    /// the copy.
    Ready,
    /// Primary to backup: the log goes on.
    Log {
        /// One or more whole frames of the log, with the log's own sequences.
        frames: Vec<u8>,
    },
    /// Backup to primary: how far it is.
    Ack {
        /// Every entry up to this sequence is in its buffer.
        received: u64,
        /// Bytes of the log that its vCPU took out of the buffer, in all.
        consumed: u64,
        /// Every entry up to this sequence is executed: what the lag is measured by.
        executed: u64,
    },
    /// Primary to backup: outputs up to this number have left; never emit them again.
    Released {
        /// Number of the last one.
        output: u64,
    },
    /// Either way: still there.
    Heartbeat,
    /// Backup to primary: its execution differs from the log. It is no protection any more.
    Diverged {
        /// Where that showed.
        at: Position,
        /// How.
        what: String,
    },
    /// Primary to backup: the guest has ended, everything is acknowledged and released. Backup to
    /// primary: understood; or, after a handover: live.
    Bye,
    /// Primary to backup: the guest rests, everything is acknowledged and released. Take over.
    Handover,
    /// Backup to primary: it was told to leave.
    Leave,
    /// Backup to primary: what an operator asked for at the backup's host.
    Request(Request),
    /// From a member that runs alone: the VM runs already, a copy of it can be had.
    Offer {
        /// The version to speak from here on.
        protocol: u32,
        /// The generation in which it runs alone.
        generation: u64,
        /// That generation's members: the one that speaks is one of them.
        members: Members,
        /// That generation's nonce: what the backup must find in its own arbiter.
        nonce: Nonce,
        /// The one that speaks.
        source: MemberId,
        /// The log's header.
        header: Box<Header>,
        /// The guest's ELF file.
        image: Vec<u8>,
    },
    /// Primary to backup: some of the guest's memory, as it was a moment ago. Later ones replace
    /// earlier ones.
    Memory {
        /// Pages, as the runtimes encode them.
        pages: Vec<u8>,
    },
    /// Backup to primary: how much of the copy is in its memory, so that no more than
    /// [`COPY_WINDOW_BYTES`] of it are ever under way.
    Loaded {
        /// Bytes of [`Message::Memory`]'s pages, in all.
        bytes: u64,
    },
    /// Primary to backup: the rest of the machine, where it was stopped for that. The memory is
    /// complete; the log goes on from here.
    State {
        /// The log's last entry before it.
        seq: u64,
        /// Its position.
        at: Position,
        /// Number of the last output before it.
        outputs: u64,
        /// vCPU and devices, as the runtimes encode them.
        state: Vec<u8>,
    },
    /// Backup to primary: the copy stands, and this is what it is.
    Copied {
        /// Digests of its parts.
        digest: StateDigest,
    },
    /// Primary to backup: from here on it is half of a pair. Who has not received this never claims.
    Armed {
        /// The generation that was opened for it.
        generation: u64,
        /// That generation's nonce.
        nonce: Nonce,
    },
    /// Primary to backup, after it was away: answer this, if you still follow.
    Probe {
        /// Counts up.
        number: u64,
    },
    /// Backup to primary: it followed when this probe came.
    Echo {
        /// The probe's.
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

/// A heartbeat by UDP: it passes when the channel is slow, and is worth nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Beat {
    /// The pair's generation.
    pub generation: u64,
    /// Who sends it.
    pub from: MemberId,
    /// Counts up; what is not newer is ignored.
    pub count: u64,
}

impl Beat {
    /// Longest datagram, bytes.
    pub const MAX_DATAGRAM: usize = 128;

    /// The version of the protocol in which beats last changed: later ones speak it, too.
    const VERSION: u64 = 2;

    /// The datagram: one frame, whose sequence is the version.
    pub fn encode(&self) -> Vec<u8> {
        let (mut payload, mut datagram) = (Vec::new(), Vec::new());
        codec::encode_payload(self, &mut payload);
        codec::encode_frame(Beat::VERSION, &payload, &mut datagram);
        datagram
    }

    /// Reads a datagram. None for anything else than a beat: whoever can reach the port can send
    /// what they like.
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

/// The newest version that a side of version `ours` and one of version `theirs` both speak: each
/// speaks its own and the one before.
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
/// If it is over the limit; `out` is as it was. Only a guest image can be that long.
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

/// The sending half of a connection: counts the sequence.
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
    /// For a connection of which nothing was read yet.
    pub fn new() -> WireDecoder {
        WireDecoder {
            frames: FrameDecoder::new(0, MAX_MESSAGE_PAYLOAD, 0),
        }
    }

    /// Takes bytes that were received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// The next message; None until more bytes are pushed.
    ///
    /// # Errors
    /// If the stream is not what a peer sends; the connection is then of no more use.
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
