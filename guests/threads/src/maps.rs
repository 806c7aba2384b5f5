//! What the tasks compute: iterations in which every rounding affects all later values. All CPUs round
//! their operations in the same way (addition, multiplication, division).

use crate::switch::leave_holding;

/// An iteration's state.
pub type State = [f64; 4];

/// An iteration.
pub trait Map {
    /// Where it begins.
    const START: State;
    /// One step.
    fn step(state: State) -> State;
    /// What is done between two strides of steps.
    fn pause(state: State) -> State {
        state
    }
}

/// The logistic map, chaotic.
pub struct Logistic;
/// The Hénon map.
pub struct Henon;
/// The Lorenz system by Euler's method.
pub struct Lorenz;
/// A planet by the symplectic Euler method.
pub struct Planet;
/// The sum of 1/n².
pub struct Series;
/// Coupled logistic maps that make an exit with their state in XMM registers. At a counted edge these
/// registers are dead, as the count is a call. Here they, the flags and the red zone must survive a
/// switch.
pub struct Held;

impl Map for Logistic {
    const START: State = [0.5, 0.0, 0.0, 0.0];
    fn step([x, sum, ..]: State) -> State {
        let x = 3.9 * x * (1.0 - x);
        [x, sum + x, 0.0, 0.0]
    }
}

impl Map for Henon {
    const START: State = [0.1, 0.3, 0.0, 0.0];
    fn step([x, y, sum, _]: State) -> State {
        [1.0 - 1.4 * x * x + y, 0.3 * x, sum + x * y, 0.0]
    }
}

impl Map for Lorenz {
    const START: State = [1.0, 1.0, 1.0, 0.0];
    fn step([x, y, z, t]: State) -> State {
        const DT: f64 = 1.0 / 1024.0;
        let (dx, dy, dz) = (10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z);
        [x + dx * DT, y + dy * DT, z + dz * DT, t + DT]
    }
}

impl Map for Planet {
    const START: State = [1.0, 0.0, 0.0, 0.75];
    fn step([x, y, u, v]: State) -> State {
        const DT: f64 = 1.0 / 512.0;
        // A force with 1/r⁴: no square root, and an orbit that turns.
        let square = x * x + y * y + 0.0625;
        let pull = DT / (square * square);
        let (u, v) = (u - x * pull, v - y * pull);
        [x + u * DT, y + v * DT, u, v]
    }
}

impl Map for Series {
    const START: State = [0.0, 0.0, 0.0, 0.0];
    fn step([n, sum, ..]: State) -> State {
        let n = n + 1.0;
        [n, sum + 1.0 / (n * n), 0.0, 0.0]
    }
}

impl Map for Held {
    const START: State = [0.2, 0.3, 0.4, 0.0];
    fn step([x, y, z, kept]: State) -> State {
        let map = |x: f64, y: f64| 0.9375 * 3.9 * x * (1.0 - x) + 0.0625 * y;
        [map(x, y), map(y, z), map(z, x), kept]
    }
    fn pause(state: State) -> State {
        let ([x, y, z, kept], all_kept) = leave_holding(state);
        [x, y, z, kept + f64::from(u8::from(all_kept))]
    }
}
