//! The table of layers in docs/architecture.md must be what cargo enforces.

use crate::shape::sources;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Layers = BTreeMap<String, BTreeSet<String>>;

/// Crates that are not layers: one is for build scripts, the other is shared with the guests.
const ASIDE: [&str; 2] = ["hostcfg", "abi"];

/// A crate's name in the table.
fn short(name: &str) -> String {
    name.trim_start_matches("lockstep-").to_owned()
}

/// The rows of the table: a crate, and the crates on which it is built.
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

/// The crates on which a crate is built according to its manifest, without those for tests and build
/// scripts.
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

/// The crates that are built on this one.
fn naming(below: &str) -> Vec<String> {
    let vmm = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = fs::read_to_string(vmm.join("../docs/architecture.md")).expect("the document");
    let layers = drawn(&picture).into_iter();
    let naming = layers.filter(|(_, named)| named.contains(below));
    naming.map(|(name, _)| name).collect()
}

/// Only the command names a CPU backend: the machine does not depend on one.
#[test]
fn only_the_command_names_a_cpu_backend() {
    assert_eq!(naming("kvm"), ["vmm"]);
    assert!(naming("x86").iter().all(|name| name == "vmm"));
}

/// The command's crate is two programs, and one of them plants faults.
#[test]
fn only_the_program_that_plants_faults_names_them() {
    assert_eq!(naming("faults"), ["vmm"]);
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let naming = sources(&src).filter(|(_, text)| text.contains("lockstep_faults"));
    let naming: Vec<_> = naming.map(|(path, _)| path).collect();
    assert_eq!(naming, [src.join("bin/lockstep-faults.rs")]);
}

/// The error of each `Result<…, …>` in a source text.
fn error_types(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("Result<") {
        let args = &text[at + "Result<".len()..];
        let (mut depth, mut begun, mut before) = (0, 0, ' ');
        for (i, c) in args.char_indices() {
            match c {
                '<' | '(' | '[' => depth += 1,
                // The end of an arrow closes nothing.
                '>' if before == '-' => {}
                '>' if depth == 0 => {
                    // An alias such as io::Result has no error of its own here.
                    found.extend((begun > 0).then(|| args[begun..i].trim()));
                    break;
                }
                '>' | ')' | ']' => depth -= 1,
                // One at the end of a line of its own separates nothing.
                ',' if depth == 0 && !args[i + 1..].trim_start().starts_with('>') => begun = i + 1,
                _ => {}
            }
            before = c;
        }
    }
    found
        .iter()
        .map(|error| error.trim_end_matches(',').trim())
        .collect()
}

fn is_a_text(error: &str) -> bool {
    error == "String" || error.starts_with('&') && error.ends_with("str")
}

/// Errors are types. Only the command makes sentences of its own, and exit statuses.
#[test]
fn no_error_is_a_text_outside_the_command() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = sources(&top.join("ft-protocol/src")).chain(sources(&top.join("vmm")));
    let (mut read, mut texts) = (0, BTreeSet::new());
    for (file, text) in files.filter(|(file, _)| !file.starts_with(top.join("vmm/src/cli"))) {
        read += 1;
        let parses = text.contains("type Err = String;");
        if parses || error_types(&text).into_iter().any(is_a_text) {
            let name = file.strip_prefix(&top).expect("it is below");
            texts.insert(name.to_string_lossy().into_owned());
        }
    }
    assert!(read > 200, "{read}");
    assert_eq!(texts, BTreeSet::new());
}

#[test]
fn errors_that_are_texts_are_found() {
    for text in [
        "fn f() -> Result<(), String> {",
        "fn f() -> Result<Vec<(u8, String)>, String> {",
        "Result<\n    Vec<u8>,\n    String,\n>",
        "answer: impl FnOnce(Result<(), &'static str>) -> T",
        "Result<Result<(), String>, Unreachable>",
        "Result<impl Fn() -> u8, String>",
    ] {
        assert!(error_types(text).into_iter().any(is_a_text), "{text}");
    }
    for text in [
        "io::Result<String>",
        "Result<String, Unreachable>",
        "Result<Option<String>, E>",
        "Result<(Header, LogStart), HeadError>",
        "HashMap<Result<u8, E>, String>",
    ] {
        assert!(!error_types(text).into_iter().any(is_a_text), "{text}");
    }
}
