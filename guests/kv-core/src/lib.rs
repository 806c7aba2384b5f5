//! The Redis-protocol server of the guest `kv`, without its network: bytes of a connection in, bytes
//! out.
//!
//! - [`resp`] splits a connection's bytes into commands (arrays and inline commands).
//! - [`Client`] is a connection: it executes commands in order, as soon as they are complete, and stops
//!   while too much of their replies is unsent.
//! - [`Server`] is what all connections share: the databases and the memory limits.
//!
//! Nothing here ends the guest. Bad input gets a Redis error, and a protocol error closes its
//! connection. Memory is allocated only by requests that can fail, within limits given at the start, so
//! that exhaustion is an `-OOM` reply. There is no clock but [`Server::set_time`], no randomness but
//! the seed, and every iteration has an order that the earlier commands decided. So the answers of a
//! server are a function of what it received, and when.
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
