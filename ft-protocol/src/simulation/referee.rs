//! The invariants of the design, over all generations.

use super::machine::{Machine, Output};
use crate::arbiter::{MemberId, Members, OpenRecord};
use crate::log::Entry;
use std::collections::BTreeMap;

/// The machine that follows from a member's log, made or received, independent of what the member
/// believes.
#[derive(Clone)]
struct Truth {
    /// The machine after entry `n`, at index `n`.
    machines: Vec<Machine>,
    outputs: Vec<Output>,
    /// The last entry that came over the channel, or with the copy.
    received: u64,
    /// Number of outputs from before the copy, which the member never had.
    copied: u64,
    /// The last output that it let out, or that had left before it was copied.
    left: u64,
}

impl Truth {
    fn new() -> Truth {
        Truth {
            machines: vec![Machine::default()],
            outputs: Vec::new(),
            received: 0,
            copied: 0,
            left: 0,
        }
    }

    fn execute(&mut self, entry: &Entry) {
        let mut machine = *self.machines.last().expect("it began somewhere");
        self.outputs.extend(machine.execute(entry));
        self.machines.push(machine);
    }

    fn machine(&self) -> Machine {
        *self.machines.last().expect("it began somewhere")
    }
}

/// The two members of a generation.
#[derive(Clone, Copy, Debug)]
struct Pair {
    generation: u64,
    primary: MemberId,
    backup: MemberId,
}

/// Observes everything, and panics if an invariant is violated.
#[derive(Default)]
pub struct Referee {
    truths: BTreeMap<u128, Truth>,
    /// The outputs that have left, from either side.
    left: Vec<Output>,
    pairs: Vec<Pair>,
    /// The member that runs alone by right, and in which generation.
    alone: Option<(MemberId, u64)>,
    /// The questions to the arbiter: for whom a generation should be opened, and who claimed it.
    opens: BTreeMap<u64, Members>,
    claims: Vec<(u64, MemberId)>,
    /// A member has finished.
    pub finished: bool,
}

impl Referee {
    fn truth(&mut self, member: MemberId) -> &mut Truth {
        self.truths.entry(member.0).or_insert_with(Truth::new)
    }

    /// The guest runs at this member and makes an entry of its own.
    pub fn makes(&mut self, member: MemberId, entry: &Entry) {
        self.truth(member).execute(entry);
    }

    /// Member `to` gets a copy of the machine at `from`, as it was after this entry.
    pub fn copies(&mut self, from: MemberId, to: MemberId, seq: u64) {
        let mut truth = self.truth(from).clone();
        truth.machines.truncate(seq as usize + 1);
        let outputs = truth.machine().outputs;
        truth.outputs.truncate(outputs as usize);
        (truth.received, truth.copied, truth.left) = (seq, outputs, outputs);
        self.truths.insert(to.0, truth);
    }

    /// An entry came over the channel, and will be acknowledged.
    pub fn delivers(&mut self, from: MemberId, to: MemberId, seq: u64, entry: &Entry) {
        let truth = self.truth(to);
        truth.execute(entry);
        let machine = truth.machine();
        truth.received = machine.seq;
        assert_eq!(seq, machine.seq, "entries come in order");
        let source = self.truth(from).machines.get(seq as usize);
        assert_eq!(source, Some(&machine), "I1: entry {seq} is another one");
    }

    /// A member asks to open a generation.
    pub fn opens(&mut self, generation: u64, members: Members) {
        let first = *self.opens.entry(generation).or_insert(members);
        assert_eq!(first, members, "I4: generation {generation} is used again");
    }

    /// Was that for a member that runs alone?
    pub fn opens_alone(&self, generation: u64) -> bool {
        let members = self.opens.get(&generation);
        members.is_some_and(|members| members.backup.is_none())
    }

    /// A pair starts, or a member alone.
    pub fn starts(&mut self, record: &OpenRecord) {
        let (primary, backup) = (record.members.primary, record.members.backup);
        let Some(backup) = backup else {
            self.alone = Some((primary, record.generation));
            return;
        };
        self.pairs.push(Pair {
            generation: record.generation,
            primary,
            backup,
        });
        // A primary that hung for long may read Ready late, when it is not the primary any more.
        self.pairs.sort_by_key(|pair| pair.generation);
    }

    /// A member that runs alone gives that right up for a pair.
    pub fn arms(&mut self, source: MemberId, generation: u64, record: Option<&OpenRecord>) {
        let Some((who, right)) = self.alone else {
            panic!("I4: {source} arms in generation {generation} without a right of its own");
        };
        assert_eq!(who, source, "I4: who arms in generation {generation}");
        assert!(right < generation, "I4: generation {generation} is used up");
        let members = record.map(|r| r.members);
        let Some((primary, Some(backup))) = members.map(|m| (m.primary, m.backup)) else {
            panic!("I4: generation {generation} is armed, and is not open");
        };
        assert_eq!(primary, source, "I4: generation {generation} is another's");
        let (received, copied) = (self.truth(backup).received, self.truth(backup).copied);
        let needs = self.left.last().map_or(0, |output| output.needs);
        assert!(
            needs <= received,
            "I2: what left needs {needs}, and {backup} is armed with {received}"
        );
        assert!(
            copied <= self.left.len() as u64,
            "I5: output {copied} is on no side: {backup} is armed with a copy from after it"
        );
        self.alone = None;
        self.pairs.push(Pair {
            generation,
            primary,
            backup,
        });
    }

    /// A member claims a generation, and believes that it may.
    pub fn asks(&mut self, member: MemberId, generation: u64, armed: bool) {
        assert!(
            armed,
            "I4: {member} asks for generation {generation} unarmed"
        );
        self.claims.push((generation, member));
    }

    /// Did another member claim it too?
    pub fn is_contested(&self, member: MemberId, generation: u64) -> bool {
        let others = |(g, who): &(u64, MemberId)| *g == generation && *who != member;
        self.claims.iter().any(others)
    }

    /// A member goes on alone.
    pub fn goes_alone(&mut self, member: MemberId, generation: u64) {
        assert_eq!(
            self.alone, None,
            "I4: {member} goes on alone in generation {generation}"
        );
        if let Some(pair) = self.pairs.last() {
            let its = pair.primary == member || pair.backup == member;
            assert!(
                its && pair.generation == generation,
                "I4: {member} goes on alone in generation {generation} after {pair:?}"
            );
        }
        self.alone = Some((member, generation));
    }

    /// Has the guest ever run?
    pub fn is_started(&self) -> bool {
        self.alone.is_some() || !self.pairs.is_empty()
    }

    pub fn is_alone(&self, member: MemberId) -> bool {
        self.alone.is_some_and(|(who, _)| who == member)
    }

    /// Does another member run alone?
    pub fn is_another_alone(&self, member: MemberId) -> bool {
        self.alone.is_some_and(|(who, _)| who != member)
    }

    /// The backup that protects the VM, as far as is known: it was armed, or is about to be.
    pub fn protector(&self) -> Option<MemberId> {
        let pair = self.pairs.last().filter(|_| self.alone.is_none());
        pair.map(|pair| pair.backup)
    }

    /// A backend takes an output.
    pub fn emits(&mut self, member: MemberId, output: Output) {
        let Output { number, needs, .. } = output;
        if !self.is_alone(member) {
            let its = |pair: &&Pair| pair.primary == member;
            let pair =
                *self.pairs.iter().rfind(its).unwrap_or_else(|| {
                    panic!("I2: output {number} of {member}, which is no primary")
                });
            let received = self.truth(pair.backup).received;
            assert!(
                needs <= received,
                "I2: output {number} needs {needs}, acknowledged {received}"
            );
        }
        let truth = self.truth(member);
        assert_eq!(number, truth.left + 1, "I5: outputs leave in order");
        truth.left = number;
        let all = self.left.len() as u64;
        assert!(number <= all + 1, "I5: output {number} after {all}");
        match self.left.get(number as usize - 1) {
            None => self.left.push(output),
            Some(before) => assert_eq!(*before, output, "I2: it left before, as another one"),
        }
    }

    /// A backup forgets outputs up to this one.
    pub fn forgets(&mut self, member: MemberId, up_to: u64) {
        let pair = self.pairs.iter().rfind(|pair| pair.backup == member);
        let primary = pair.expect("only half of a pair forgets").primary;
        let left = self.truth(primary).left;
        assert!(
            up_to <= left,
            "I5: output {up_to} forgotten before it left ({left})"
        );
        self.truth(member).left = up_to;
    }

    /// A backup goes on alone, with this machine and these held outputs.
    pub fn takes_over(
        &mut self,
        member: MemberId,
        generation: u64,
        machine: Machine,
        held: &[Output],
    ) {
        self.goes_alone(member, generation);
        let left = std::mem::take(&mut self.left);
        let truth = self.truth(member);
        assert_eq!(machine.seq, truth.received, "I3");
        assert_eq!(
            machine,
            truth.machine(),
            "I1: the machine is not what its log makes of it"
        );
        let wanted = truth.outputs.get(truth.left as usize..);
        assert_eq!(Some(held), wanted, "I5: what is emitted again");
        assert!(
            truth.outputs.starts_with(&left),
            "I2: what left is not in the past of {member}"
        );
        self.left = left;
    }

    /// A member says that the guest has finished.
    pub fn finishes(&mut self, member: MemberId) {
        let machine = self.truth(member).machine();
        assert!(machine.ended, "I3: finished with entries not executed");
        assert_eq!(
            self.left.len() as u64,
            machine.outputs,
            "I5: {member} finished without the last outputs"
        );
        self.finished = true;
    }
}
