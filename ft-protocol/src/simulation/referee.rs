//! What must hold, whatever happens: the invariants of the design.

use super::link::Side;
use crate::log::encode_entry;
use crate::log::{End, EndReason, Entry, Event, MachineDigest, OutputMark, OutputPort, Position};
use crate::testing::Rng;

/// The guest: its whole log is known beforehand.
pub struct Guest {
    /// Entry `n` is at `n - 1`.
    entries: Vec<Entry>,
    /// Number of the last output among the entries up to `n`, at `n`.
    outputs: Vec<u64>,
    /// Sequence of output `n`, at `n - 1`.
    needs: Vec<u64>,
    /// Bytes of the entries up to `n`, at `n`.
    bytes: Vec<u64>,
}

impl Guest {
    pub fn new(len: u64, rng: &mut Rng) -> Guest {
        let mut guest = Guest {
            bytes: vec![0],
            entries: Vec::new(),
            outputs: vec![0],
            needs: Vec::new(),
        };
        for seq in 1..=len {
            let number = guest.needs.len() as u64 + 1;
            let event = if seq == len {
                let digest = MachineDigest::default();
                Event::End(End {
                    reason: EndReason::Stopped,
                    digest,
                })
            } else if rng.one_in(3) {
                guest.needs.push(seq);
                Event::Output(OutputMark {
                    number,
                    port: OutputPort::Net,
                    len: 1,
                    hash: seq,
                })
            } else {
                Event::Progress
            };
            guest.outputs.push(guest.needs.len() as u64);
            guest.entries.push(Entry {
                at: Position::exit(seq),
                check: None,
                event,
            });
            let bytes = guest.bytes[seq as usize - 1] + guest.frames(seq, seq).len() as u64;
            guest.bytes.push(bytes);
        }
        guest
    }

    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn entry(&self, seq: u64) -> &Entry {
        &self.entries[seq as usize - 1]
    }

    /// The output that this entry marks.
    pub fn output(&self, seq: u64) -> Option<u64> {
        match &self.entry(seq).event {
            Event::Output(mark) => Some(mark.number),
            _ => None,
        }
    }

    /// Number of the last output up to this entry.
    pub fn outputs_up_to(&self, seq: u64) -> u64 {
        self.outputs[seq as usize]
    }

    pub fn bytes_up_to(&self, seq: u64) -> u64 {
        self.bytes[seq as usize]
    }

    pub fn frames(&self, first: u64, last: u64) -> Vec<u8> {
        let mut frames = Vec::new();
        for seq in first..=last {
            encode_entry(seq, self.entry(seq), &mut frames);
        }
        frames
    }
}

/// Sees everything, and objects.
pub struct Referee {
    pub guest: Guest,
    /// The last entry that the backup has received.
    pub delivered: u64,
    /// The last output that has left, from whichever side.
    left: u64,
    /// The last that left from the primary.
    left_primary: u64,
    /// Who goes on alone by right, and in which generation.
    alone: Option<(Side, u64)>,
}

impl Referee {
    pub fn new(guest: Guest) -> Referee {
        Referee {
            guest,
            delivered: 0,
            left: 0,
            left_primary: 0,
            alone: None,
        }
    }

    /// A side goes on alone.
    pub fn goes_alone(&mut self, side: Side, generation: u64) {
        assert_eq!(
            self.alone, None,
            "I4: {side:?} goes on alone in generation {generation}"
        );
        self.alone = Some((side, generation));
    }

    pub fn is_alone(&self, side: Side) -> bool {
        self.alone.is_some_and(|(who, _)| who == side)
    }

    /// The primary's backend takes its next output.
    pub fn primary_emits(&mut self, number: u64) {
        assert_eq!(number, self.left_primary + 1, "outputs leave in order");
        self.left_primary = number;
        let needs = self.guest.needs[number as usize - 1];
        let right = self.is_alone(Side::Primary) || needs <= self.delivered;
        assert!(
            right,
            "I2: output {number} needs {needs}, acknowledged {}",
            self.delivered
        );
        self.emitted(number);
    }

    /// The backup's backend takes an output.
    pub fn backup_emits(&mut self, number: u64) {
        assert!(
            self.is_alone(Side::Backup),
            "I2: output {number} of a backup"
        );
        self.emitted(number);
    }

    fn emitted(&mut self, number: u64) {
        assert!(
            number <= self.left + 1,
            "I5: output {number} after {}",
            self.left
        );
        self.left = self.left.max(number);
    }

    /// The backup forgets outputs up to this one.
    pub fn forgets(&self, up_to: u64) {
        assert!(
            up_to <= self.left_primary,
            "I5: output {up_to} forgotten before it left"
        );
    }

    /// The backup is about to go on alone, with this executed and these outputs to emit.
    pub fn takes_over(&self, executed: u64, forgotten: u64, held: &[u64]) {
        assert_eq!(executed, self.delivered, "I3");
        let wanted: Vec<u64> = (forgotten + 1..=self.guest.outputs_up_to(executed)).collect();
        assert_eq!(held, wanted, "I5: what is emitted again");
    }

    /// A side says that all is done.
    pub fn finishes(&self, side: Side) {
        let all = self.guest.outputs_up_to(self.guest.len());
        assert_eq!(
            self.left, all,
            "I5: {side:?} finished without the last outputs"
        );
    }
}
