//! The CPU as a debugger sees it.

use crate::paging::{ADDRESS, LARGE, PRESENT, canonical};
use crate::vcpu::SoftVcpu;
use lockstep_vcpu::debug::{DebugStop, Watchpoint, When};
use lockstep_vcpu::{CpuState, DebugCpu, Vcpu};

impl DebugCpu for SoftVcpu {
    fn when(&self) -> When {
        self.engine.cpu.when()
    }

    fn set_when(&mut self, when: When) {
        self.engine.cpu.probe.set_delivered(when);
    }

    fn stop_at(&mut self, when: Option<When>) {
        self.engine.cpu.probe.set_stop(when);
    }

    fn set_breakpoints(&mut self, addresses: &[u64]) {
        if self.engine.cpu.probe.set_breakpoints(addresses) {
            // Blocks end before breakpoints, and begin there.
            self.engine.cache.clear(&mut self.engine.cpu.memory);
        }
    }

    fn set_watchpoints(&mut self, watchpoints: &[Watchpoint]) {
        if self.engine.cpu.probe.set_watchpoints(watchpoints) {
            // What is watched must not be known to the TLB.
            self.engine.cpu.memory.flush();
        }
    }

    fn pass(&mut self) {
        let now = self.engine.cpu.when();
        self.engine.cpu.probe.pass(now);
    }

    fn take_stop(&mut self) -> Option<DebugStop> {
        self.engine.cpu.probe.take_reason()
    }

    fn translate(&self, address: u64) -> Option<u64> {
        let cpu = &self.engine.cpu;
        let ram = &cpu.memory.ram;
        let mut table = cpu.control.cr3 & ADDRESS;
        for shift in [39, 30, 21, 12] {
            let place = table + 8 * (address >> shift & 511);
            let entry: u64 = (place < ram.len()).then(|| ram.load(place))?;
            if entry & PRESENT == 0 || !canonical(address) {
                return None;
            }
            table = entry & ADDRESS;
            if shift == 12 || shift != 39 && entry & LARGE != 0 {
                let within = (1 << shift) - 1;
                return Some(table & !within | address & within);
            }
        }
        unreachable!("the last level ends the walk")
    }

    fn state(&self) -> CpuState {
        self.save().expect("this CPU's state can always be read")
    }
}
