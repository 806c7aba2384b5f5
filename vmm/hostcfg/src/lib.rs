//! What the tests of this workspace may expect of the host that builds them.
//!
//! `LOCKSTEP_SKIP_KVM`, if not empty, becomes the cfg `skip_kvm`. The cfgs `root` and `has_…` tell
//! which end-to-end tests this host can run; those with Redis clients look for them where
//! `LOCKSTEP_CLIENTS` points.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "that is how a build script speaks to cargo"
)]

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Cfgs of the end-to-end tests, and the programs that must all be there for each.
const TOOLS: &[(&str, &[&str])] = &[
    ("has_etcd", &["etcd"]),
    ("has_iproute2", &["ip"]),
    ("has_openssl", &["openssl"]),
    ("has_tmpfiles", &["systemd-tmpfiles"]),
    (
        "has_redis_tools",
        &["redis-benchmark", "redis-check-rdb", "redis-cli"],
    ),
    ("has_util_linux", &["unshare", "mount", "setpriv"]),
];

/// Cfgs of the end-to-end tests, and what must be below `LOCKSTEP_CLIENTS` for each, where `.ci/run`
/// installs Redis clients. A `*` is any name.
const CLIENTS: &[(&str, &[&str])] = &[
    ("has_redis_py", &["venv/lib/*/site-packages/redis"]),
    (
        "has_coredis_and_glide",
        &[
            "venv/lib/*/site-packages/coredis",
            "venv/lib/*/site-packages/glide",
        ],
    ),
    ("has_node_redis", &["node/node_modules/redis"]),
    ("has_ioredis", &["node/node_modules/ioredis"]),
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
    tell_clients();
    println!("cargo::rustc-check-cfg=cfg(root)");
    // Whoever runs this owns its own entry in /proc.
    if fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0) {
        println!("cargo::rustc-cfg=root");
    }
}

/// Sets the cfgs by which tests with Redis clients are skipped, and tells the others where those are.
fn tell_clients() {
    println!("cargo::rerun-if-env-changed=LOCKSTEP_CLIENTS");
    let place = env::var_os("LOCKSTEP_CLIENTS").map(PathBuf::from);
    if let Some(place) = &place {
        // Written when all are installed.
        let versions = place.join("versions");
        println!("cargo::rerun-if-changed={}", versions.display());
    }
    let place = place.unwrap_or_default();
    println!("cargo::rustc-env=LOCKSTEP_CLIENTS={}", place.display());
    for (cfg, paths) in CLIENTS {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if paths.iter().all(|path| is_below(&place, path)) {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
}

/// Whether there is such a path below `place`.
fn is_below(place: &Path, path: &str) -> bool {
    match path.split_once("/*/") {
        Some((above, below)) => {
            let names = place.join(above).read_dir().into_iter().flatten().flatten();
            names
                .into_iter()
                .any(|name| name.path().join(below).exists())
        }
        None => place.join(path).exists(),
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
