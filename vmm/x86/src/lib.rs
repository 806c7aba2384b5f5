//! An x86-64 CPU in software: every instruction counted, no host state in its results.
//!
//! It has no I/O, no clock and no threads: what it computes is a function of its state and its memory. It runs
//! long mode, that is 64-bit mode and compatibility mode with 32-bit code. `README.md` says where things are
//! and how an instruction is added; `forms` says which there are.
//!
//! # A step
//!
//! An instruction that completed, or one iteration of one with a REP prefix. One that faults is none, and
//! neither is the delivery of an exception or an interrupt. [`SoftVcpu::run_steps`] ends after exactly so
//! many, and it makes no difference to the guest how many are granted at a time.
//!
//! # What is not there
//!
//! - Real mode, protected mode outside long mode, 16-bit code segments, and turning paging off: an error that
//!   names them, or #GP.
//! - Near branches with a 16-bit operand size in compatibility mode: #UD, or not cut to 16 bits.
//! - Call gates and task gates: #GP. Segment limits, and null segments in compatibility mode: not checked.
//! - A guest whose exception handlers fault at their first instruction, each time again, shuts down after 65,536
//!   deliveries in a row: a real processor would go on for ever.
//! - Breakpoints in debug registers: kept, not looked for; only DR7.GD is heeded. RF: pushed, not heeded.
//!   Alignment checks (AC): none.
//! - An instruction of more than 15 bytes is #UD, not #GP.
//! - Page tables that hold decoded code: accessed bits that a walk sets there do not drop it.
//! - No translation is older than the page tables (`tables`): INVLPG and a new CR3 have nothing to flush, and a
//!   state has no hidden part. A guest that changes a mapping without INVLPG sees the new one at once.
//! - A signal does not kick it out of the guest; what it heeds ([`lockstep_vcpu::Vcpu::heed`]) does.
//!
//! What the manual leaves undefined is what Intel's processors do: each file says what. `differential` compares
//! all of it with the host's processor, and `README.md` says how.
#![deny(unsafe_code)]

mod block;
mod branch;
#[cfg(test)]
mod coverage;
mod cpuid;
mod debug;
mod decode;
mod descriptors;
#[cfg(test)]
mod differential;
mod engine;
mod exception;
mod far;
mod flags;
mod form;
mod forms;
mod fpu;
mod integer;
mod interrupt;
mod io;
mod io_ports;
mod memory;
mod mmx;
mod op;
mod operand;
mod paging;
mod probe;
mod segments;
mod sse;
mod stack;
mod state;
mod string;
mod system;
mod tables;
#[cfg(test)]
mod tests;
mod tlb;
mod vcpu;
mod x87;

pub use vcpu::{Soft, SoftVcpu};
