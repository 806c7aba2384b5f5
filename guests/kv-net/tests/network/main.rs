//! The network of `kv` in virtual time, with peers that are made of frames. `cargo test` at the top of
//! the tree runs this too.

mod arp;
mod frames;
mod harness;
mod neighbors;
mod noise;
mod path;
mod places;
mod restarted;
