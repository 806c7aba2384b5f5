//! The network of `kv` in virtual time, with peers that are made of frames.

mod arp;
mod harness;
mod neighbors;
mod noise;
mod path;
mod places;
mod restarted;
