//! Sets the cfgs by which tests are skipped on this host.

fn main() {
    lockstep_hostcfg::announce();
}
