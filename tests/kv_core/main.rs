//! Tests of the server of the guest `kv`, which need neither KVM nor a guest; they are here so that the
//! one test command runs them too. And comparisons of its answers with those of a real Redis.

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
