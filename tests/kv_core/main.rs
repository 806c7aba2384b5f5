//! The tests of the guest `kv`'s server, which needs neither KVM nor a guest: run here so that the
//! one test command runs them too. And its answers beside those of a real Redis.

#[path = "../../guests/kv-core/tests/clients.rs"]
mod clients;
#[path = "../../guests/kv-core/tests/commands.rs"]
mod commands;
mod oracle;
