//! The machine's half of the software instruction counter.
//!
//! The guest's instrumentation counts a word of the clock page down, by one for each branch edge, and
//! makes an exit when the word reaches zero. The machine then grants another quantum. So even a guest
//! that only computes makes exits, which are positions, and in every replay it makes them at the same
//! instructions. This is the epoch of Bressoud and Schneider, "Hypervisor-based fault tolerance"
//! (1996), without its special hardware.

use crate::state::{BadState, Reader, Words};
use crate::{Component, World};
use lockstep_abi::{CLOCK_PAGE, ClockPage};
use lockstep_memory::Ram;
use std::mem::offset_of;

/// The edges that a guest may still pass before it exits, while an interrupt waits that the guest could
/// not take at its last exit. With fewer, the exits would cost more than the computing between them.
/// With more, a fast timer's next tick would come before the next exit: the timer would win at each
/// exit, and lines of lower priority would never be served.
pub const HURRIED_EDGES: u64 = 1000;
/// Granted once if the machine has no quantum: more edges than any guest passes.
const UNLIMITED: u64 = i64::MAX as u64;

/// How many edges the guest was granted. How many of them are left is in guest memory.
#[derive(Debug)]
pub struct EdgeCounter {
    quantum: u64,
    granted: u64,
}

fn left(ram: &Ram) -> u64 {
    ram.read_u64(address()).expect("the clock page lies in RAM")
}

fn set_left(ram: &Ram, left: u64) {
    ram.write_u64(address(), left)
        .expect("the clock page lies in RAM");
}

fn address() -> u64 {
    CLOCK_PAGE + offset_of!(ClockPage, edges_left) as u64
}

impl EdgeCounter {
    /// A counter that has granted the first quantum. A quantum of 0 means no limit.
    pub fn new(quantum: u64) -> EdgeCounter {
        let granted = if quantum == 0 { UNLIMITED } else { quantum };
        EdgeCounter { quantum, granted }
    }

    /// Writes the first quantum into guest memory.
    pub fn start(&self, ram: &Ram) {
        set_left(ram, self.granted);
    }

    /// Edges passed since the start. A guest may write nonsense into its counter; then this is nonsense
    /// too, but the same on primary, backup and replay.
    pub fn passed(&self, ram: &Ram) -> u64 {
        self.granted.wrapping_sub(left(ram))
    }

    /// The guest used its quantum up: grants the next one.
    pub fn grant(&mut self, ram: &Ram) {
        let quantum = if self.quantum == 0 {
            UNLIMITED
        } else {
            self.quantum
        };
        self.granted = self.granted.wrapping_add(quantum);
        set_left(ram, left(ram).wrapping_add(quantum));
    }

    /// An interrupt waits: shortens the quantum so that the guest exits soon. The edges that are taken
    /// back do not count as passed.
    pub fn hurry(&mut self, ram: &Ram) {
        let left = left(ram);
        if self.quantum != 0 && left as i64 > HURRIED_EDGES as i64 {
            self.granted = self.granted.wrapping_sub(left - HURRIED_EDGES);
            set_left(ram, HURRIED_EDGES);
        }
    }
}

impl Component for EdgeCounter {
    fn name(&self) -> &'static str {
        "edge counter"
    }

    fn save(&self, words: &mut Words) {
        words.put_all([self.quantum, self.granted]);
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        let quantum: u64 = words.take()?;
        words.unless(quantum == self.quantum, "its quantum is not the machine's")?;
        self.granted = words.take()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_does_not_change_what_was_passed() {
        let ram = Ram::new(16).unwrap();
        let mut edges = EdgeCounter::new(1000);
        edges.start(&ram);
        assert_eq!((edges.passed(&ram), left(&ram)), (0, 1000));
        // The callback exits at zero; an interrupt handler may have counted further below zero.
        set_left(&ram, (-3i64) as u64);
        assert_eq!(edges.passed(&ram), 1003);
        edges.grant(&ram);
        assert_eq!((edges.passed(&ram), left(&ram)), (1003, 997));
    }

    #[test]
    fn no_quantum_is_no_end() {
        let ram = Ram::new(16).unwrap();
        let mut edges = EdgeCounter::new(0);
        edges.start(&ram);
        assert_eq!((edges.passed(&ram), left(&ram)), (0, UNLIMITED));
        edges.hurry(&ram);
        assert_eq!((edges.passed(&ram), left(&ram)), (0, UNLIMITED));
    }

    #[test]
    fn a_quantum_that_is_cut_short_does_not_change_what_was_passed() {
        let ram = Ram::new(16).unwrap();
        let mut edges = EdgeCounter::new(100_000);
        edges.start(&ram);
        set_left(&ram, 99_000);
        edges.hurry(&ram);
        assert_eq!((edges.passed(&ram), left(&ram)), (1000, HURRIED_EDGES));
        // What is left is already less, or nonsense: it does not change.
        for few in [HURRIED_EDGES, 1, 0, -5i64 as u64, i64::MIN as u64] {
            set_left(&ram, few);
            let passed = edges.passed(&ram);
            edges.hurry(&ram);
            assert_eq!((edges.passed(&ram), left(&ram)), (passed, few));
        }
    }
}
