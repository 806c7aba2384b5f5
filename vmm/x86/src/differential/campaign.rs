//! Many cases, one after the other, and on all cores at once.

use super::assemble::assemble;
use super::compare::report;
use super::generate::{Case, Generator, Pool};
use super::pair::{Look, Pair};
use super::{Set, layout, masked, seed};
use crate::state::Mode;
use iced_x86::{Code, Instruction};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::{Child, Command, Stdio};

/// Each piece of code runs so often, each time with other registers.
const VARIANTS: u64 = 32;
/// Instructions of a piece of code: at least, and how many more at most.
const LEAST: u64 = 8;
const MORE: u64 = 17;
/// A campaign ends when so many forms differ.
const ENOUGH: usize = 40;
/// Names the share that a process has, `1/4` for the second of four.
const SHARE: &str = "LOCKSTEP_SHARE";

/// What a campaign came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Pieces of code, each with its registers.
    pub cases: u64,
    /// Instructions that this CPU ran, and the host's with it.
    pub steps: u64,
    /// What differed, in words, by form.
    pub found: BTreeMap<String, String>,
    /// Forms that were reached, by number.
    pub reached: BTreeSet<usize>,
}

impl Outcome {
    /// Takes another outcome in.
    pub fn add(&mut self, other: Outcome) {
        self.cases += other.cases;
        self.steps += other.steps;
        self.found.extend(other.found);
        self.reached.extend(other.reached);
    }

    /// Forms of these that were never reached.
    pub fn missing<'a>(&self, forms: &'a [Code]) -> Vec<&'a Code> {
        let reached = |code: &Code| self.reached.contains(&(*code as usize));
        forms.iter().filter(|code| !reached(code)).collect()
    }
}

/// What the cases of one piece of code came to.
struct Ran {
    cases: u64,
    /// Does any of them differ?
    differs: bool,
    /// The code, and where it came to at most.
    code: Vec<Instruction>,
    starts: Vec<u64>,
    furthest: u64,
}

impl Ran {
    /// Instructions that were reached: code goes forward only.
    fn reached(&self) -> impl Iterator<Item = Code> {
        let run = self.code.iter().zip(&self.starts);
        run.take_while(|(_, start)| **start <= self.furthest)
            .map(|(instruction, _)| instruction.code())
    }
}

/// Runs the cases of one piece of code. Memory that only the host wrote to is looked at after the last one;
/// `found` takes what differs, and has all of memory looked at after each.
fn run_piece(
    pair: &mut Pair,
    (forms, seed): (&[Code], u64),
    mut generator: Generator<'_>,
    mut found: Option<&mut BTreeMap<String, String>>,
) -> Ran {
    let mode = generator.mode;
    let len = LEAST + generator.random.below(MORE);
    let mut case = generator.case(forms, len as usize);
    let code = assemble(&case.code, layout::CODE.at, mode);
    pair.load(&code, mode);
    let look = match found {
        Some(_) => Look::All,
        None => Look::Written,
    };
    let (mut furthest, mut differs) = (0, false);
    for variant in 0..VARIANTS {
        if variant > 0 {
            generator.vary(&mut case);
        }
        let Some((differences, after)) = pair.compare_loaded(&case, &code, look) else {
            continue;
        };
        furthest = furthest.max(after.rip);
        differs |= !differences.is_empty();
        if !differences.is_empty()
            && let Some(found) = &mut found
        {
            let (form, words) = explain(pair, &case, seed);
            found.entry(form).or_insert(words);
            pair.load(&code, mode);
        }
    }
    differs |= !pair.rest_is_untouched();
    Ran {
        cases: VARIANTS,
        differs,
        code: case.code,
        starts: code.starts,
        furthest,
    }
}

/// The form that differs in this case, and how, in words.
fn explain(pair: &mut Pair, case: &Case, seed: u64) -> (String, String) {
    let small = pair.shrink(case);
    let last = small.code.last().expect("an instruction").code();
    let found = pair.compare(&small).map_or_else(Vec::new, |found| found.0);
    (format!("{last:?}"), report(&small, &found, seed))
}

/// How far a campaign goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// So many cases.
    pub cases: u64,
    /// Or until so many forms differ.
    pub enough: usize,
    /// The first piece of code, and how far it is to the next one.
    pub pieces: (u64, u64),
}

/// Runs cases of these forms.
pub fn run(pair: &mut Pair, (mode, forms): (Mode, &[Code]), bounds: Bounds) -> Outcome {
    let pool = Pool::new();
    let mut outcome = Outcome::default();
    let mut reached = vec![false; Code::values().len()];
    let before = pair.soft.steps();
    let (mut piece, step) = bounds.pieces;
    while outcome.cases < bounds.cases && outcome.found.len() < bounds.enough {
        let seed = seed().wrapping_add(piece);
        let generator = || Generator::new(seed, mode, masked(), &pool);
        let ran = run_piece(pair, (forms, seed), generator(), None);
        outcome.cases += ran.cases;
        for code in ran.reached() {
            reached[code as usize] = true;
        }
        if ran.differs {
            let known = outcome.found.len();
            run_piece(pair, (forms, seed), generator(), Some(&mut outcome.found));
            let lost = || format!("LOCKSTEP_SEED={seed:#x}: differs at first, and then no more\n");
            if outcome.found.is_empty() && known == 0 {
                outcome.found.insert("no one form".to_owned(), lost());
            }
        }
        piece += step;
    }
    let numbers = (0..reached.len()).filter(|code| reached[*code]);
    outcome.reached = numbers.collect();
    outcome.steps = pair.soft.steps() - before;
    outcome
}

/// How many of so many cases a set gets.
fn part(set: Set, cases: u64) -> u64 {
    cases * set.tenths() / 10
}

/// The share that this process has, if it has one: runs it and prints what came out, in lines that
/// [`read`] understands.
pub fn run_share(cases: u64) {
    let Ok(share) = std::env::var(SHARE) else {
        return;
    };
    let (first, all) = share.split_once('/').expect("a share is n/of");
    let (first, all): (u64, u64) = (first.parse().unwrap(), all.parse().unwrap());
    let mut pair = Pair::new(masked());
    for set in Set::ALL {
        let bounds = Bounds {
            cases: part(set, cases) / all + 1,
            enough: ENOUGH,
            pieces: (first, all),
        };
        let outcome = run(&mut pair, (set.mode(), &set.forms()), bounds);
        let mut text = String::new();
        for (form, words) in &outcome.found {
            let words = words.replace('\n', "\r");
            let _ = writeln!(text, "@found {set:?} {form} {words}");
        }
        let reached: Vec<String> = outcome.reached.iter().map(usize::to_string).collect();
        let reached = reached.join(",");
        let _ = writeln!(
            text,
            "@set {set:?} {} {} {reached}",
            outcome.cases, outcome.steps
        );
        // The test's name stands on this line.
        print!("\n{text}");
    }
}

/// Adds what a process printed.
fn read(text: &str, outcomes: &mut [Outcome]) {
    for line in text.lines() {
        let mut words = line.splitn(5, ' ');
        let kind = words.next();
        let set = words.next().map(str::to_owned);
        let place = Set::ALL.iter().position(|s| Some(format!("{s:?}")) == set);
        let mut outcome = Outcome::default();
        match kind {
            Some("@found") => {
                let form = words.next().expect("a form").to_owned();
                let rest: Vec<&str> = words.collect();
                outcome
                    .found
                    .insert(form, rest.join(" ").replace('\r', "\n"));
            }
            Some("@set") => {
                let mut number = || words.next().expect("a number");
                outcome.cases = number().parse().expect("a number");
                outcome.steps = number().parse().expect("a number");
                outcome.reached = number().split(',').map(|n| n.parse().unwrap()).collect();
            }
            _ => continue,
        }
        outcomes[place.expect("a set")].add(outcome);
    }
}

/// Runs so many cases in as many processes as there are cores: code runs at fixed addresses, so that a
/// process runs one piece at a time. What came of each set.
pub fn run_everywhere(test: &str, (seed, cases): (u64, u64)) -> Vec<Outcome> {
    let many = std::thread::available_parallelism().map_or(1, usize::from);
    let this = std::env::current_exe().expect("a program");
    let start = |share: usize| -> Child {
        let mut command = Command::new(&this);
        command.args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        command
            .env(SHARE, format!("{share}/{many}"))
            .env("LOCKSTEP_SEED", format!("{seed:#x}"))
            .env("LOCKSTEP_CASES", cases.to_string())
            .stdout(Stdio::piped());
        command.spawn().expect("a process")
    };
    let shares: Vec<Child> = (0..many).map(start).collect();
    let mut outcomes: Vec<Outcome> = Set::ALL.iter().map(|_| Outcome::default()).collect();
    for share in shares {
        let output = share.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {text}", output.status);
        read(&text, &mut outcomes);
    }
    outcomes
}
