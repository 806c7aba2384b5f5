//! The tests of the guest `kv`'s server, which needs neither KVM nor a guest: run here so that the
//! one test command runs them too.

#[path = "../guests/kv-core/tests/clients.rs"]
mod clients;
#[path = "../guests/kv-core/tests/commands.rs"]
mod commands;
