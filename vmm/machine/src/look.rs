//! What a machine is: its state, and digests of it.

use super::{Machine, MachineError, MachineState, Parts, Waiting};
use ft_protocol::log::{Counts, MachineDigest};
use lockstep_vcpu::state::Counters;
use lockstep_vcpu::{DebugCpu, Run};

impl Machine {
    /// The machine's state, without its memory.
    ///
    /// # Panics
    /// Unless the vCPU's instruction is finished ([`Machine::settle`]) and nothing at this position is
    /// under way: as in [`Source::take_state`](super::Source::take_state).
    pub fn save(&mut self) -> Result<MachineState, MachineError> {
        assert!(self.settled && self.outputs.waiting().is_empty());
        self.look()
    }

    /// The same with what its CPU counts, whatever positions count: for a debugger, whose machine goes on on a
    /// CPU of the same kind.
    pub fn save_counted(&mut self) -> Result<MachineState, MachineError> {
        let mut state = self.save()?;
        state.cpu = self.cpu.save()?;
        Ok(state)
    }

    /// The CPU, for a debugger. None: this kind of CPU has no such way in.
    pub fn debugged(&mut self) -> Option<&mut dyn DebugCpu> {
        self.cpu.debugged()
    }

    /// What positions count, up to here: also between two positions.
    pub fn count(&self) -> u64 {
        match self.counts {
            Counts::BranchEdges => self.bus.edges.passed(&self.ram),
            Counts::Instructions => self.cpu.steps(),
        }
    }

    /// A digest of each part, at any position. It is only for comparison with another machine at the
    /// same position: the vCPU's instruction may not be complete, as in [`Machine::digest`].
    pub fn parts(&mut self) -> Result<Parts, MachineError> {
        let memory = self.memory_digest()?;
        Ok(self.look()?.parts(memory))
    }

    /// The digest of its memory. Reads the pages that were written since the last call.
    pub fn memory_digest(&mut self) -> Result<u64, MachineError> {
        let dirty = self.dirty.take()?;
        let pulse = &self.pulse;
        let beat = || pulse.beat();
        Ok(self.ram_digest.update(&self.ram, &dirty, &beat))
    }

    /// The state as it is; it may be incomplete.
    fn look(&mut self) -> Result<MachineState, MachineError> {
        let mut cpu = self.cpu.save()?;
        if self.counts == Counts::BranchEdges {
            // The next CPU may be one that does not count them.
            cpu.counters = Counters::default();
        }
        Ok(MachineState {
            at: self.at,
            left: self.left,
            arrived: self.arrived,
            waiting: self.waiting,
            cpu,
            devices: self.bus.save(),
        })
    }

    /// Completes the vCPU's instruction. Returns false if that caused another exit: the machine is then
    /// at the next position, as after [`Machine::enter`].
    ///
    /// # Panics
    /// Unless the position was left, or the guest waits there.
    pub fn settle(&mut self) -> Result<bool, MachineError> {
        assert!(self.unhandled.is_none() && self.ended.is_none());
        assert!(self.left || self.waiting != Waiting::No);
        if !self.left && self.arrived.digest.is_none() {
            self.arrived.digest = Some(self.cpu.save()?.digest());
        }
        match self.cpu.settle()? {
            Run::Kicked => {
                self.settled = true;
                Ok(true)
            }
            Run::Exit(exit) => {
                self.arrive(exit);
                Ok(false)
            }
        }
    }

    /// The digest of the whole machine.
    ///
    /// The instruction that exited may be incomplete (the value of an IN may not be in its register
    /// yet). It is not completed here: digests are only compared, and at the same position the
    /// instruction is equally incomplete on every host. If it was completed to save the state, the
    /// digest from before that is used.
    pub fn digest(&mut self) -> Result<MachineDigest, MachineError> {
        let ram = self.memory_digest()?;
        let cpu = match self.arrived.digest {
            Some(digest) => digest,
            None => self.cpu.save()?.digest(),
        };
        Ok(MachineDigest {
            ram,
            cpu,
            devices: self.bus.save().digest(),
        })
    }
}
