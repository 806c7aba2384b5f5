//! A task: iterates for ever, keeps its state in registers, and publishes it from time to time.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::maps::{Held, Henon, Logistic, Lorenz, Map, Planet, Series, State};

/// Steps between two publications.
const STRIDE: u64 = 64;

/// What a task has published. There is one vCPU, so plain stores in program order suffice.
pub struct Progress {
    /// Strides done.
    strides: AtomicU64,
    /// The states after an even and after an odd number of strides. Wherever the task is preempted, the
    /// state for the published number of strides is complete.
    states: [[AtomicU64; 4]; 2],
}

/// A task's program, what it has published, and the same computation without preemption.
pub struct Task {
    /// Its name.
    pub name: &'static str,
    /// Never returns; the argument is its index in [`TASKS`].
    pub program: extern "C" fn(usize) -> !,
    /// What it has published.
    pub progress: Progress,
    again: fn(u64) -> State,
}

/// The tasks.
pub static TASKS: [Task; 6] = [
    Task::new::<Logistic>("logistic"),
    Task::new::<Henon>("henon"),
    Task::new::<Lorenz>("lorenz"),
    Task::new::<Planet>("planet"),
    Task::new::<Series>("series"),
    Task::new::<Held>("held"),
];

impl Task {
    const fn new<M: Map>(name: &'static str) -> Self {
        Self {
            name,
            program: program::<M>,
            progress: Progress {
                strides: AtomicU64::new(0),
                states: [const { [const { AtomicU64::new(0) }; 4] }; 2],
            },
            again: again::<M>,
        }
    }

    /// Is the state that the task published equal to that of an undisturbed run of as many steps?
    pub fn right(&self) -> bool {
        let (strides, published) = self.progress.read();
        strides == 0 || (self.again)(strides).map(f64::to_bits) == published
    }
}

impl Progress {
    fn publish(&self, strides: u64, state: State) {
        let slot = &self.states[(strides % 2) as usize];
        for (to, from) in slot.iter().zip(state) {
            to.store(from.to_bits(), Relaxed);
        }
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::Release);
        self.strides.store(strides, Relaxed);
    }

    /// The strides done, and the bits of the state after them.
    pub fn read(&self) -> (u64, [u64; 4]) {
        let strides = self.strides.load(Relaxed);
        let slot = &self.states[(strides % 2) as usize];
        (strides, [0, 1, 2, 3].map(|index| slot[index].load(Relaxed)))
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.read().0 * STRIDE
    }
}

fn stride<M: Map>(mut state: State) -> State {
    for _ in 0..STRIDE {
        state = M::step(state);
    }
    M::pause(state)
}

extern "C" fn program<M: Map>(index: usize) -> ! {
    let progress = &TASKS[index].progress;
    let (mut strides, mut state) = (0, M::START);
    // In a loop that cannot end the compiler counts no edge, so nothing would preempt it. This
    // condition could end it.
    while !black_box(false) {
        state = stride::<M>(state);
        strides += 1;
        progress.publish(strides, state);
    }
    unreachable!("a task has no end");
}

/// The state of [`program`] after `strides`. The start value goes through memory, so that the compiler
/// computes nothing of it.
fn again<M: Map>(strides: u64) -> State {
    (0..strides).fold(black_box(M::START), |state, _| stride::<M>(state))
}
