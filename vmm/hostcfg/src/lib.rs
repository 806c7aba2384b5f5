//! What the tests of this workspace may expect of the host that builds them.
//!
//! `LOCKSTEP_SKIP_KVM`, if not empty, becomes the cfg `skip_kvm`. The cfgs `root` and `has_…` tell
//! which end-to-end tests this host can run.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Cfgs of the end-to-end tests, and the programs that must all be there for each.
const TOOLS: &[(&str, &[&str])] = &[
    ("has_etcd", &["etcd"]),
    ("has_iproute2", &["ip"]),
    ("has_redis_tools", &["redis-benchmark", "redis-cli"]),
    ("has_util_linux", &["unshare", "mount", "setpriv"]),
];

/// Where programs are looked for.
const PROGRAM_DIRS: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// For build scripts: sets the cfgs by which tests are skipped.
pub fn announce() {
    println!("cargo::rustc-check-cfg=cfg(skip_kvm)");
    println!("cargo::rerun-if-env-changed=LOCKSTEP_SKIP_KVM");
    if env::var_os("LOCKSTEP_SKIP_KVM").is_some_and(|value| !value.is_empty()) {
        println!("cargo::rustc-cfg=skip_kvm");
    }
    for (cfg, programs) in TOOLS {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if programs.iter().all(|program| has(program)) {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
    println!("cargo::rustc-check-cfg=cfg(root)");
    // Whoever runs this owns its own entry in /proc.
    if fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0) {
        println!("cargo::rustc-cfg=root");
    }
}

/// Whether a program is installed. Its coming or going runs this script again: a path that is not
/// there always does, so the directory is watched instead.
fn has(program: &str) -> bool {
    let paths = PROGRAM_DIRS.iter().map(|dir| Path::new(dir).join(program));
    match paths.into_iter().find(|path| path.exists()) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            true
        }
        None => {
            println!("cargo::rerun-if-changed=/usr/bin");
            println!("cargo::rerun-if-changed=/usr/sbin");
            false
        }
    }
}
