//! The tests of the guest `kv`'s server, which needs neither KVM nor a guest: run here so that the
//! one test command runs them too. And its answers beside those of a real Redis.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "cargo shows it only if the test fails"
)]

#[path = "../../guests/kv-core/tests/suite/clients.rs"]
mod clients;
#[path = "../../guests/kv-core/tests/suite/collections.rs"]
mod collections;
#[path = "../../guests/kv-core/tests/suite/commands.rs"]
mod commands;
#[path = "../../guests/kv-core/tests/suite/common.rs"]
mod common;
#[path = "../../guests/kv-core/tests/suite/connections.rs"]
mod connections;
mod oracle;
#[path = "../../guests/kv-core/tests/suite/time.rs"]
mod time;
