//! The tests of the guest `kv`'s network, which needs neither KVM nor a guest, in virtual time: run
//! here so that the one test command runs them too.

#[path = "../guests/kv-net/tests/network/main.rs"]
mod network;
