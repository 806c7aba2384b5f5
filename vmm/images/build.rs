//! Builds the guests with the same cargo that builds the VMM, and gives their images to the crate.
//!
//! For each program of [`GUESTS`] it sets an environment variable `GUEST_<NAME>` to the path of its
//! image, for `include_bytes!(env!(…))`. The inner build has its own target directory, always the
//! release profile, and none of the outer build's flags and variables: a lint run, a test run and a
//! release build embed the same bytes.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "that is how a build script speaks to cargo"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// The programs, by crate name.
const GUESTS: &[&str] = &[
    "bench",
    "chaos",
    "compute",
    "crash",
    "deaf",
    "echo",
    "hello",
    "kv",
    "latency",
    "positions",
    "stuck",
    "threads",
    "ticker",
    "traps",
];

/// Those that are built without the software instruction counter, as a user's own program is. What is in
/// [`GUESTS`] too is `NAME-plain` then.
const PLAIN: &[&str] = &["latency", "mips", "threads"];

/// What the programs depend on.
const SHARED: &[&str] = &[
    "abi",
    "kv-core",
    "kv-net",
    "rt",
    "Cargo.toml",
    "Cargo.lock",
    ".cargo/config.toml",
];

/// Target of `guests/.cargo/config.toml`.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let guests = var("CARGO_MANIFEST_DIR").join("../../guests");
    let guests = guests.canonicalize().unwrap_or_else(|error| {
        fail(&format!(
            "the guests' sources should be in {}: {error}",
            guests.display()
        ))
    });
    for source in SHARED.iter().chain(GUESTS).chain(PLAIN) {
        println!("cargo::rerun-if-changed={}", guests.join(source).display());
    }
    // This unpacks the crates first: `remapped` looks for their directories.
    run(cargo(&guests).args(["fetch", "--locked", "--target", TARGET]));
    let target_dir = var("OUT_DIR").join("guests");
    build(&mut cargo(&guests), &guests, GUESTS, &target_dir);
    hand_over(GUESTS, &target_dir, |name| name.to_owned());
    let target_dir = var("OUT_DIR").join("plain");
    let mut command = cargo(&guests);
    command.env("CARGO_ENCODED_RUSTFLAGS", plain_flags(&guests));
    build(&mut command, &guests, PLAIN, &target_dir);
    hand_over(PLAIN, &target_dir, |name| match GUESTS.contains(&name) {
        true => format!("{name}-plain"),
        false => name.to_owned(),
    });
}

/// Tells where the images of these programs are.
fn hand_over(programs: &[&str], target_dir: &Path, called: impl Fn(&str) -> String) {
    for guest in programs {
        let image = target_dir.join(TARGET).join("release").join(guest);
        println!(
            "cargo::rustc-env=GUEST_{}={}",
            called(guest).to_uppercase().replace('-', "_"),
            image.display()
        );
    }
}

/// The flags of `.cargo/config.toml` less those of the software instruction counter, as cargo takes them
/// instead of all others.
fn plain_flags(guests: &Path) -> String {
    let config = guests.join(".cargo/config.toml");
    let text = std::fs::read_to_string(&config)
        .unwrap_or_else(|error| fail(&format!("cannot read {}: {error}", config.display())));
    let flags = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split('"').next());
    let plain = flags.filter(|flag| !flag.contains("sancov") && !flag.contains("sanitizer"));
    let remapped = remapped_flags(guests);
    let all: Vec<&str> = plain.chain(remapped.iter().map(String::as_str)).collect();
    all.join("\x1f")
}

/// `--remap-path-prefix` for each of [`remapped`].
fn remapped_flags(guests: &Path) -> Vec<String> {
    let map = remapped(guests).into_iter();
    map.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect()
}

fn build(command: &mut Command, guests: &Path, programs: &[&str], target_dir: &Path) {
    command.args(["build", "--release", "--locked", "--target-dir"]);
    command.arg(target_dir);
    for guest in programs {
        command.args(["--package", guest]);
    }
    // Cargo appends these to the flags of `.cargo/config.toml`.
    let flags = remapped_flags(guests);
    command.args(["--config", &format!("target.{TARGET}.rustflags={flags:?}")]);
    run(command);
}

/// Directories of this machine that would appear in panic messages, and the names that replace them, so
/// that images are the same wherever they are built. A later entry takes precedence over an earlier
/// one.
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

/// A cargo in `directory` that inherits the sources of crates, the job server and the compiler, and
/// nothing else of this build.
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

/// Runs a command. Cargo shows its output if this script fails.
fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("building the guests failed ({status}); see above")),
        Err(error) => fail(&format!("cannot run {command:?}: {error}")),
    }
}

/// A path from a variable that cargo sets for every build script.
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
