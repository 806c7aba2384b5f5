//! Builds the guests with the cargo that builds us, and hands their images over.
//!
//! Each program of [`GUESTS`] becomes an environment variable `GUEST_<NAME>` with the path of its
//! image, for `include_bytes!(env!(…))`. The inner build has a target directory of its own, always
//! the release profile, and none of what the outer one was told: a lint run, a test run and a
//! release build embed the same bytes.
//!
//! `LOCKSTEP_SKIP_KVM`, if not empty, becomes the cfg `skip_kvm`. The cfgs `root` and `has_…` tell
//! the end-to-end tests which of them this host can run.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// The programs, by crate name.
const GUESTS: &[&str] = &[
    "bench",
    "chaos",
    "compute",
    "crash",
    "echo",
    "hello",
    "kv",
    "latency",
    "positions",
    "threads",
    "ticker",
];

/// What the programs are made of besides.
const SHARED: &[&str] = &[
    "abi",
    "kv-core",
    "rt",
    "Cargo.toml",
    "Cargo.lock",
    ".cargo/config.toml",
];

/// Cfgs of the end-to-end tests, and the programs that must all be there for each.
const TOOLS: &[(&str, &[&str])] = &[
    ("has_etcd", &["etcd"]),
    ("has_iproute2", &["ip"]),
    ("has_openssl", &["openssl"]),
    ("has_tmpfiles", &["systemd-tmpfiles"]),
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

/// Target of `guests/.cargo/config.toml`.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let guests = var("CARGO_MANIFEST_DIR").join("../guests");
    let guests = guests.canonicalize().unwrap_or_else(|error| {
        fail(&format!(
            "the guests' sources should be in {}: {error}",
            guests.display()
        ))
    });
    for source in SHARED.iter().chain(GUESTS) {
        println!("cargo::rerun-if-changed={}", guests.join(source).display());
    }
    println!("cargo::rustc-check-cfg=cfg(skip_kvm)");
    println!("cargo::rerun-if-env-changed=LOCKSTEP_SKIP_KVM");
    if env::var_os("LOCKSTEP_SKIP_KVM").is_some_and(|value| !value.is_empty()) {
        println!("cargo::rustc-cfg=skip_kvm");
    }
    tell_tests();
    // Unpacks the crates first: `remapped` looks where they are.
    run(cargo(&guests).args(["fetch", "--locked", "--target", TARGET]));
    let target_dir = var("OUT_DIR").join("guests");
    build(&guests, &target_dir);
    for guest in GUESTS {
        let image = target_dir.join(TARGET).join("release").join(guest);
        println!(
            "cargo::rustc-env=GUEST_{}={}",
            guest.to_uppercase().replace('-', "_"),
            image.display()
        );
    }
}

/// Sets the cfgs by which tests are skipped.
fn tell_tests() {
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

fn build(guests: &Path, target_dir: &Path) {
    let mut command = cargo(guests);
    command.args(["build", "--release", "--locked", "--target-dir"]);
    command.arg(target_dir);
    for guest in GUESTS {
        command.args(["--package", guest]);
    }
    // Cargo appends these to the flags of `.cargo/config.toml`.
    let flags: Vec<String> = remapped(guests)
        .into_iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect();
    command.args(["--config", &format!("target.{TARGET}.rustflags={flags:?}")]);
    run(&mut command);
}

/// Directories of this machine that panic messages would name, and their names in every image, so
/// that images are the same wherever they are built. Later ones go before earlier ones.
fn remapped(guests: &Path) -> Vec<(PathBuf, String)> {
    let mut map = vec![(guests.to_path_buf(), "/guests".to_owned())];
    // The unpacked crates: the directory's name depends on where they were downloaded from.
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = env::var_os("HOME")?;
        Some(Path::new(&home).join(".cargo"))
    });
    if let Some(home) = home {
        let sources = home.join("registry/src").read_dir();
        let mut registries: Vec<PathBuf> = sources
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        registries.sort();
        map.extend(registries.into_iter().map(|it| (it, "/crates".to_owned())));
    }
    map
}

/// A cargo in `directory` that inherits where crates come from, the job server and the compiler,
/// and nothing else of this build.
fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(var("CARGO"));
    command.current_dir(directory);
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let crates_and_jobs = ["CARGO_HOME", "CARGO_MAKEFLAGS"].contains(&&*name)
            || [
                "CARGO_HTTP_",
                "CARGO_NET_",
                "CARGO_REGISTR",
                "CARGO_SOURCE_",
            ]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        let of_this_build = name.starts_with("CARGO")
            || name.starts_with("DEP_")
            || (name.starts_with("RUST") && name.contains("FLAGS"))
            || name.starts_with("RUSTC_");
        if of_this_build && !crates_and_jobs {
            command.env_remove(&key);
        }
    }
    command
}

/// Runs a command whose output cargo shows if this script fails.
fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building the guests failed ({status}); see above")),
        Err(error) => fail(&format!("cannot run {command:?}: {error}")),
    }
}

/// A path that cargo gives every build script.
fn var(name: &str) -> PathBuf {
    match env::var_os(name) {
        Some(value) => value.into(),
        None => fail(&format!("{name} is not set: run this by cargo")),
    }
}

fn fail(why: &str) -> ! {
    eprintln!("error: {why}");
    exit(1)
}
