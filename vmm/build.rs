//! Tells the end-to-end tests what this host has.

fn main() {
    lockstep_hostcfg::announce();
}
