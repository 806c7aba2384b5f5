//! End-to-end tests: real processes on real KVM, started and judged as by a user.
//!
//! Tests that need KVM fail with the command's one sentence where there is none, and are skipped
//! and counted if `LOCKSTEP_SKIP_KVM` was set when they were built. Those that need a tool or root
//! are skipped with the reason where `vmm/hostcfg` did not find it.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "cargo shows it only if the test fails"
)]

mod arbiter;
mod by_hand;
mod checkpoint;
mod clients;
mod control;
mod counter;
mod crowd;
mod damage;
mod descriptors;
mod faults;
mod fork;
mod gdb;
mod gdb_linux;
mod gdb_time;
mod guest_network;
mod hard_guests;
mod harness;
mod host_network;
mod inside;
mod join;
mod kv;
mod layers;
mod linux;
mod linux_boot;
mod linux_console;
mod log_tools;
mod member;
mod network;
mod operator;
mod pair;
mod pair_command;
mod pair_refusals;
mod parts;
mod planted;
mod planted_network;
mod redis_tools;
mod replay;
mod role;
mod rootless;
mod run;
mod run_refusals;
mod sealed;
mod shape;
mod signals;
mod soft;
mod state;
