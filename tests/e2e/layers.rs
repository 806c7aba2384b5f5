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

/// Nothing but the command names a CPU backend: the machine stays free of it.
#[test]
fn only_the_command_names_a_cpu_backend() {
    let vmm = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = fs::read_to_string(vmm.join("../docs/architecture.md")).expect("the document");
    let layers = drawn(&picture);
    let naming = layers.iter().filter(|(_, below)| below.contains("kvm"));
    let naming: Vec<&String> = naming.map(|(name, _)| name).collect();
    assert_eq!(naming, ["vmm"]);
}

/// Files whose errors are still texts.
const TEXTS: [&str; 4] = [
    "ft-protocol/src/backup/outcome.rs",
    "ft-protocol/src/primary/outcome.rs",
    "ft-protocol/src/simulation/seat.rs",
    "vmm/ft/src/cuts.rs",
];

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

/// The source files below a directory.
fn sources(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// Errors are types. Only the command makes sentences of its own, and exit statuses.
#[test]
fn no_error_is_a_text_outside_the_command() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    sources(&top.join("ft-protocol/src"), &mut files);
    sources(&top.join("vmm"), &mut files);
    files.retain(|file| !file.starts_with(top.join("vmm/src/cli")));
    assert!(files.len() > 200, "{files:?}");
    let mut texts = BTreeSet::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a source");
        let parses = text.contains("type Err = String;");
        if parses || error_types(&text).into_iter().any(is_a_text) {
            let name = file.strip_prefix(&top).expect("it is below");
            texts.insert(name.to_string_lossy().into_owned());
        }
    }
    assert_eq!(texts, TEXTS.map(str::to_owned).into());
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
