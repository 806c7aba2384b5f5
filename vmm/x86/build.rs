//! Tells the tests what this host has.

fn main() {
    lockstep_hostcfg::announce();
}
