//! What holds for every source file. That functions fit a screen is clippy's to say (`clippy.toml`).

use std::fs;
use std::path::{Path, PathBuf};

/// Lines that no file passes, and that half of them stay below.
const MOST_LINES: usize = 500;
const MEDIAN_LINES: usize = 200;

/// The Rust files in `dir` and below, with their text; none that cargo made.
pub fn sources(dir: &Path) -> impl Iterator<Item = (PathBuf, String)> + use<> {
    let (mut dirs, mut found) = (vec![dir.to_owned()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                dirs.push(path);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    found.into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("text");
        (path, text)
    })
}

fn all_sources() -> impl Iterator<Item = (PathBuf, String)> {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

#[test]
fn no_file_is_longer_than_500_lines_and_half_are_shorter_than_200() {
    let mut lengths: Vec<_> = all_sources()
        .map(|(path, text)| (text.lines().count(), path))
        .collect();
    lengths.sort();
    let (median, longest) = (&lengths[lengths.len() / 2], lengths.last().expect("files"));
    assert!(longest.0 <= MOST_LINES, "{longest:?}");
    assert!(median.0 < MEDIAN_LINES, "{median:?}");
}

/// Two reasons at once would be a warning wherever both hold: see `vmm/hostcfg`.
#[test]
fn no_test_has_two_reasons_to_be_ignored() {
    // Not in one piece, as this file is read too.
    let (test, reason) = (concat!("#[", "test]"), concat!("ignore", " = "));
    let mut tests = 0;
    for (path, text) in all_sources() {
        for test in text.split(test).skip(1) {
            let attributes = test.split("fn ").next().unwrap_or_default();
            let reasons = attributes.matches(reason).count();
            assert!(reasons <= 1, "{}: {attributes}", path.display());
            tests += reasons;
        }
    }
    assert!(tests > 100, "{tests}");
}
