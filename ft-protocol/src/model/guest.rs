//! The guest, reduced to what the protocol sees of it: entries, some of them outputs, and an end.

use crate::arbiter::MemberId;
use crate::log::{
    End, EndReason, Entry, Event, MachineDigest, OutputMark, OutputPort, Position, encode_entry,
};
use crate::transfer::StateDigest;

/// The digest of a machine's copy after an entry. A damaged copy has another digest.
pub fn digest_at(seq: u64, damaged: bool) -> StateDigest {
    StateDigest(vec![("machine".into(), seq << 1 | u64::from(damaged))])
}

/// The meaning of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Nothing,
    Output,
    End,
}

/// A guest. An output names the member that made its entry: after a failover the survivor's history may
/// differ from the dead side's, and the world must not see both.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// Its entries, in pieces. The entries of a piece are executed and sent together.
    pub pieces: &'static [&'static [Does]],
}

impl Guest {
    fn all(self) -> impl Iterator<Item = Does> {
        self.pieces.iter().flat_map(|piece| piece.iter().copied())
    }

    /// The number of its last entry.
    pub fn len(self) -> u64 {
        self.all().count() as u64
    }

    /// The last entry of the piece that follows entry `executed`.
    pub fn piece_after(self, executed: u64) -> u64 {
        let mut last = 0;
        for piece in self.pieces {
            last += piece.len() as u64;
            if last > executed {
                break;
            }
        }
        last
    }

    pub fn does(self, seq: u64) -> Does {
        self.all()
            .nth(seq as usize - 1)
            .expect("an entry of the guest")
    }

    /// The number of the last output up to this entry.
    pub fn outputs_up_to(self, seq: u64) -> u64 {
        let outputs = self.all().take(seq as usize);
        outputs.filter(|&does| does == Does::Output).count() as u64
    }

    /// The output that this entry marks.
    pub fn output(self, seq: u64) -> Option<u64> {
        (self.does(seq) == Does::Output).then(|| self.outputs_up_to(seq))
    }

    /// The entry that marks this output.
    pub fn needs(self, output: u64) -> u64 {
        let seqs = 1..=self.len();
        let mut marks = seqs.filter(|&seq| self.output(seq).is_some());
        marks
            .nth(output as usize - 1)
            .expect("an output of the guest")
    }

    /// The entries as `maker` logs them.
    pub fn frames(self, first: u64, last: u64, maker: MemberId) -> Vec<u8> {
        let mut frames = Vec::new();
        for seq in first..=last {
            encode_entry(seq, &self.entry(seq, maker), &mut frames);
        }
        frames
    }

    fn entry(self, seq: u64, maker: MemberId) -> Entry {
        let event = match self.does(seq) {
            Does::Nothing => Event::Progress,
            Does::Output => Event::Output(OutputMark {
                number: self.outputs_up_to(seq),
                port: OutputPort::Net,
                len: 1,
                hash: maker.0 as u64,
            }),
            Does::End => Event::End(End {
                reason: EndReason::Stopped,
                digest: MachineDigest::default(),
            }),
        };
        let (at, check) = (Position::exit(seq), None);
        Entry { at, check, event }
    }
}
