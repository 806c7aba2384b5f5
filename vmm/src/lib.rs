//! Lockstep: a KVM virtual machine monitor that keeps a VM alive when its host dies.
//!
//! Start with `docs/architecture.md`. Imports go one way: [`cli`] → [`ft`] → [`replay`] →
//! [`machine`] → [`devices`], [`cpu`] → [`memory`]; [`backends`] are imported by [`cli`] and [`ft`]
//! only; [`drill`] starts processes and uses only the TAP of the others. [`out`] and [`signals`] serve all.

pub mod backends;
pub mod cli;
pub mod cpu;
pub mod devices;
pub mod drill;
pub mod ft;
pub mod guests;
pub mod machine;
pub mod memory;
pub mod out;
pub mod replay;
pub mod signals;
