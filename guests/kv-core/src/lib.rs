//! The Redis-protocol server of the guest `kv`, without its network: bytes of a connection go in,
//! bytes go out.
//!
//! - [`resp`] cuts a connection's bytes into commands (arrays and inline commands).
//! - [`Client`] is a connection: it executes commands as they become whole, in order, and stops
//!   while too much of their replies is unsent.
//! - [`Server`] is what all connections share: the databases and the limits on memory.
//!
//! Nothing here ends the guest: bad input gets a Redis error, bad protocol closes its connection,
//! and memory is taken by fallible requests only, against limits given at the start, so that
//! exhaustion is an `-OOM` reply. There is no clock but what [`Server::set_time`] tells, no
//! randomness but the seed's, and every iteration has an order that the commands before decided:
//! what a server answers is a function of what it was sent, and when.
#![no_std]

extern crate alloc;

mod buffer;
mod churn;
mod client;
mod commands;
mod data;
mod error;
mod float;
mod glob;
mod inline;
mod long_double;
mod number;
mod random;
mod reply;
pub mod resp;
mod server;
mod session;
mod transaction;

pub use client::Client;
pub use server::{Limits, Server};
