//! The guest, as a model: its state is a function of its log.

use crate::arbiter::MemberId;
use crate::log::{
    End, EndReason, Entry, Event, MachineDigest, OutputMark, OutputPort, Position, encode_entry,
};

/// A machine after `seq` entries. `chain` is a hash of all inputs so far, so machines with different
/// inputs differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub seq: u64,
    /// Number of the last output.
    pub outputs: u64,
    pub chain: u64,
    pub ended: bool,
}

/// An output of the guest. Its bytes are represented by a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub number: u64,
    /// The entry that marks it.
    pub needs: u64,
    pub hash: u64,
}

fn mix(a: u64, b: u64) -> u64 {
    let mixed = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

impl Machine {
    /// The next entry if the guest runs at `writer`. At another member its inputs would be different.
    pub fn next_entry(&self, writer: MemberId, ends: bool) -> Entry {
        let world = mix(self.chain, writer.0 as u64);
        let event = if ends {
            Event::End(End {
                reason: EndReason::Stopped,
                digest: MachineDigest::default(),
            })
        } else if world.is_multiple_of(3) {
            Event::Output(OutputMark {
                number: self.outputs + 1,
                port: OutputPort::Net,
                len: 1,
                hash: self.next_hash(),
            })
        } else {
            Event::Clock { ns: world }
        };
        Entry {
            at: Position::exit(self.seq + 1),
            check: None,
            event,
        }
    }

    fn next_hash(&self) -> u64 {
        mix(self.chain, self.outputs)
    }

    /// Executes an entry. An output comes from this machine alone, whatever the entry says.
    pub fn execute(&mut self, entry: &Entry) -> Option<Output> {
        self.seq += 1;
        let output = matches!(entry.event, Event::Output(_)).then(|| {
            let hash = self.next_hash();
            self.outputs += 1;
            Output {
                number: self.outputs,
                needs: self.seq,
                hash,
            }
        });
        self.chain = match &entry.event {
            Event::Clock { ns } => mix(self.chain, *ns),
            Event::Output(_) => mix(self.chain, 2),
            _ => mix(self.chain, 3),
        };
        self.ended = matches!(entry.event, Event::End(_));
        output
    }
}

/// An entry as a frame of the log.
pub fn frame(seq: u64, entry: &Entry) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_entry(seq, entry, &mut frame);
    frame
}
