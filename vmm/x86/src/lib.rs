//! An x86-64 CPU in software: every instruction counted, no host state in its results.
//!
//! It has no I/O, no clock and no threads: what it computes is a function of its state and its memory.

mod block;
mod branch;
mod cpuid;
mod decode;
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
mod op;
mod operand;
mod paging;
mod segments;
mod stack;
mod state;
mod string;
mod system;
mod tlb;
mod x87;
