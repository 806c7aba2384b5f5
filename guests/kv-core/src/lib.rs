//! The Redis-protocol server of the guest `kv`, without its network: bytes of a connection go in,
//! bytes go out.
//!
//! - [`resp`] cuts a connection's bytes into commands (RESP2 arrays and inline commands).
//! - [`Client`] is a connection: it executes commands as they become whole, in order, and stops
//!   while too much of their replies is unsent.
//! - [`Server`] is what all connections share: the database and the limits on memory.
//!
//! Nothing here ends the guest: bad input gets a Redis error, bad protocol closes its connection,
//! and memory is taken by fallible requests only, against limits given at the start, so that
//! exhaustion is an `-OOM` reply. There is no clock, no randomness but the seed, and no iteration
//! over the database: what a server answers is a function of what it was sent.
#![no_std]

extern crate alloc;

mod about;
mod buffer;
mod churn;
mod client;
mod commands;
mod db;
mod number;
mod reply;
pub mod resp;
mod server;

pub use client::Client;
pub use server::{Limits, Server};
