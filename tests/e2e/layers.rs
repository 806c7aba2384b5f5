//! The picture of the layers in docs/architecture.md is what cargo enforces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Layers = BTreeMap<String, BTreeSet<String>>;

/// Crates that are no layers: for build scripts, and shared with the guests.
const ASIDE: [&str; 2] = ["hostcfg", "abi"];

/// The name that the table gives a crate.
fn short(name: &str) -> String {
    name.trim_start_matches("lockstep-").to_owned()
}

/// The rows of the table: a crate, and those that it is built on.
fn drawn(text: &str) -> Layers {
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| Crate | Is built on |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let names: Vec<String> = row
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        let [name, below @ ..] = &names[..] else {
            panic!("a row without a crate: {row}");
        };
        let name = name.trim_start_matches("vmm/");
        (name.to_owned(), below.iter().cloned().collect())
    })
    .collect()
}

/// What the manifest says that a crate is built on, tests and build scripts aside.
fn built_on(manifest: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).expect("a manifest");
    let dependencies = text
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    dependencies
        .filter_map(|line| line.split(['.', ' ']).next())
        .filter(|name| name.starts_with("lockstep-") || *name == "ft-protocol")
        .map(short)
        .filter(|name| !ASIDE.contains(&&**name))
        .collect()
}

#[test]
fn the_layers_are_those_in_the_picture() {
    let vmm = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = fs::read_to_string(vmm.join("../docs/architecture.md")).expect("the document");
    let mut there = Layers::new();
    there.insert("vmm".into(), built_on(&vmm.join("Cargo.toml")));
    let protocol = built_on(&vmm.join("../ft-protocol/Cargo.toml"));
    there.insert("ft-protocol".into(), protocol);
    for entry in fs::read_dir(vmm).expect("the crates") {
        let dir = entry.expect("an entry").path();
        let manifest = dir.join("Cargo.toml");
        let name = dir
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if manifest.exists() && !ASIDE.contains(&&*name) {
            there.insert(name, built_on(&manifest));
        }
    }
    assert_eq!(drawn(&picture), there);
}

/// Nothing but the command names a CPU backend: the machine stays free of them.
#[test]
fn only_the_command_names_a_cpu_backend() {
    let vmm = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = fs::read_to_string(vmm.join("../docs/architecture.md")).expect("the document");
    let layers = drawn(&picture);
    let backends = ["kvm", "x86"];
    let names_one = |below: &BTreeSet<String>| backends.iter().any(|name| below.contains(*name));
    let naming = layers.iter().filter(|(_, below)| names_one(below));
    let naming: Vec<&String> = naming.map(|(name, _)| name).collect();
    assert_eq!(naming, ["vmm"]);
}
