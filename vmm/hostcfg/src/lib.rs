//! What the tests of this workspace may expect of the host that builds them.
//!
//! `LOCKSTEP_SKIP_KVM`, if not empty, or a missing `/dev/kvm` becomes the cfg `skip_kvm`. The cfgs `has_…` tell
//! what this host has. A test that needs several things has one cfg for all of them, `can_…`: two reasons to
//! ignore it would be a warning of the compiler's. Redis clients are looked for where `LOCKSTEP_CLIENTS` points,
//! Linux guests where `LOCKSTEP_LINUX` does.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "that is how a build script speaks to cargo"
)]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What hosts have, and the programs that must all be there for each.
const TOOLS: &[(&str, &[&str])] = &[
    ("has_etcd", &["etcd"]),
    ("has_gdb", &["gdb"]),
    ("has_iproute2", &["ip"]),
    ("has_openssl", &["openssl"]),
    ("has_tmpfiles", &["systemd-tmpfiles"]),
    (
        "has_redis_tools",
        &["redis-benchmark", "redis-check-rdb", "redis-cli"],
    ),
    ("has_util_linux", &["unshare", "mount", "setpriv"]),
];

/// Redis clients, and what must be below `LOCKSTEP_CLIENTS` for each, where `.ci/run` installs them. A `*`
/// is any name.
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

/// Linux guests below `LOCKSTEP_LINUX`, where `.ci/run` makes them: the list of one is written when all of it
/// is there.
const GUESTS: &[(&str, &[&str])] = &[
    ("has_linux", &["versions"]),
    ("has_linux_tools", &["tools/versions"]),
    ("has_linux_generic", &["generic/versions"]),
];

/// Kinds of tests, and all that they need.
const TESTS: &[(&str, &[&str])] = &[
    ("can_segment", &[KVM, ROOT, "has_iproute2"]),
    ("can_redis", &[KVM, ROOT, "has_iproute2", "has_redis_tools"]),
    ("can_gdb_linux", &["has_linux", "has_gdb"]),
    ("can_gdb_kvm", &[KVM, "has_gdb"]),
    ("can_gdb_redis", &["can_redis", "has_gdb"]),
    ("can_redis_py", &["can_redis", "has_redis_py"]),
    ("can_node_redis", &["can_redis", "has_node_redis"]),
    ("can_ioredis", &["can_redis", "has_ioredis"]),
    (
        "can_coredis_and_glide",
        &["can_redis", "has_coredis_and_glide"],
    ),
    ("can_unshare", &[KVM, ROOT, "has_util_linux"]),
    ("can_hide_kvm", &[ROOT, "has_util_linux"]),
    ("can_etcd_pair", &[KVM, "has_etcd"]),
];
const KVM: &str = "has_kvm";
const ROOT: &str = "has_root";

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
    let mut host = Host::default();
    println!("cargo::rerun-if-env-changed=LOCKSTEP_SKIP_KVM");
    let told = env::var_os("LOCKSTEP_SKIP_KVM").is_some_and(|value| !value.is_empty());
    // One that is there and cannot be opened fails the tests instead.
    let skip = told || !Path::new("/dev/kvm").exists();
    host.tell("skip_kvm", skip);
    host.tell(KVM, !skip);
    // A process owns its own entry in /proc.
    let root = fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0);
    host.tell(ROOT, root);
    for (cfg, programs) in TOOLS {
        host.tell(cfg, programs.iter().all(|program| has(program)));
    }
    for (variable, kinds) in [("LOCKSTEP_CLIENTS", CLIENTS), ("LOCKSTEP_LINUX", GUESTS)] {
        let place = told_place(variable);
        for (cfg, paths) in kinds {
            host.tell(cfg, paths.iter().all(|path| is_below(&place, path)));
        }
    }
    for (cfg, needs) in TESTS {
        let all = needs.iter().all(|need| host.0.contains(need));
        host.tell(cfg, all);
    }
}

/// The cfgs that hold for this host.
#[derive(Default)]
struct Host(BTreeSet<&'static str>);

impl Host {
    /// Tells the compiler of a cfg, and whether it holds.
    fn tell(&mut self, cfg: &'static str, holds: bool) {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if holds {
            println!("cargo::rustc-cfg={cfg}");
            self.0.insert(cfg);
        }
    }
}

/// Where something is that was made for the tests, according to this variable; tells the tests, too.
fn told_place(variable: &str) -> PathBuf {
    println!("cargo::rerun-if-env-changed={variable}");
    let place = env::var_os(variable).map(PathBuf::from);
    if let Some(place) = &place {
        // Written when all of it is there.
        let versions = place.join("versions");
        println!("cargo::rerun-if-changed={}", versions.display());
    }
    let place = place.unwrap_or_default();
    println!("cargo::rustc-env={variable}={}", place.display());
    place
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
