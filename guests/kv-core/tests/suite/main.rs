//! Tests of the server of the guest `kv`, without a guest.

mod clients;
mod collections;
mod commands;
mod common;
mod connections;
mod time;
