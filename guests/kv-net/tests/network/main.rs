//! Tests of `kv`'s network in virtual time, with peers made of frames. `cargo test` at the top of the
//! tree runs them too.

mod arp;
mod frames;
mod harness;
mod neighbors;
mod noise;
mod path;
mod places;
mod restarted;
