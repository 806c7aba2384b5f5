use super::*;
use ft_protocol::arbiter::{Members, Nonce};
use std::path::Path;
use std::sync::{Barrier, Condvar, Mutex};

fn record(generation: u64) -> OpenRecord {
    OpenRecord {
        vm: "vm".into(),
        generation,
        members: Members {
            primary: MemberId(1),
            backup: Some(MemberId(2)),
        },
        nonce: Nonce(7),
        at: 0,
    }
}

#[test]
fn one_of_two_claimants_wins_and_stays_the_winner() {
    let dir = tempfile::tempdir().unwrap();
    one_wins(&FileArbiter::new(dir.path()));
}

fn one_wins(arbiter: &dyn Arbiter) {
    assert_eq!(open(arbiter, &record(1)), OpenAnswer::Opened);
    let together = Barrier::new(2);
    let answers = std::thread::scope(|scope| {
        let ask = |member| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                claim(arbiter, "vm", 1, MemberId(member))
            })
        };
        let (one, two) = (ask(1), ask(2));
        [one.join().unwrap(), two.join().unwrap()]
    });
    let won = |answer: &ClaimAnswer| *answer == ClaimAnswer::Won;
    assert_eq!(answers.iter().filter(|a| won(a)).count(), 1, "{answers:?}");
    let again = [1, 2].map(|member| claim(arbiter, "vm", 1, MemberId(member)));
    assert_eq!(again, answers, "asking again changes nothing");
    let names = arbiter.list("vm").unwrap();
    assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
}

#[test]
fn a_stranger_cannot_claim() {
    let dir = tempfile::tempdir().unwrap();
    refuses_strangers(&FileArbiter::new(dir.path()));
}

fn refuses_strangers(arbiter: &dyn Arbiter) {
    assert_eq!(open(arbiter, &record(1)), OpenAnswer::Opened);
    let answer = claim(arbiter, "vm", 1, MemberId(3));
    assert!(matches!(answer, ClaimAnswer::Refused(_)), "{answer:?}");
    assert_eq!(claim(arbiter, "vm", 1, MemberId(2)), ClaimAnswer::Won);
}

#[test]
fn two_directories_are_found_out() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let primary = FileArbiter::new(ours.path());
    assert_eq!(open(&primary, &record(1)), OpenAnswer::Opened);
    let backup = FileArbiter::new(theirs.path());
    assert_eq!(read_back(&backup, "vm", 1), ReadBackAnswer::Missing);
    assert_eq!(
        read_back(&primary, "vm", 1),
        ReadBackAnswer::Found(record(1))
    );
}

#[test]
fn storage_that_is_not_there_is_unreachable_not_empty() {
    let arbiter = FileArbiter::new(Path::new("/nonexistent/arbiter"));
    assert!(latest(&arbiter, "vm").is_err());
    assert!(matches!(
        read_back(&arbiter, "vm", 1),
        ReadBackAnswer::Unreachable(_)
    ));
    assert!(matches!(
        claim(&arbiter, "vm", 1, MemberId(1)),
        ClaimAnswer::Unreachable(_)
    ));
}

#[test]
fn the_latest_generation_is_found_with_its_claim_and_its_end() {
    let dir = tempfile::tempdir().unwrap();
    finds_the_latest(&FileArbiter::new(dir.path()));
}

fn finds_the_latest(arbiter: &dyn Arbiter) {
    assert_eq!(latest(arbiter, "vm").unwrap(), None);
    for generation in [1, 10] {
        open(arbiter, &record(generation));
    }
    let found = latest(arbiter, "vm").unwrap().unwrap();
    assert_eq!(found.generation, 10);
    assert!(!found.claimed && !found.closed);
    claim(arbiter, "vm", 10, MemberId(1));
    close(arbiter, "vm", 10, MemberId(1));
    let found = latest(arbiter, "vm").unwrap().unwrap();
    assert!(found.claimed && found.closed);
}

#[test]
fn a_vm_has_one_founder() {
    let dir = tempfile::tempdir().unwrap();
    one_founds(&FileArbiter::new(dir.path()));
}

fn one_founds(arbiter: &dyn Arbiter) {
    let together = Barrier::new(2);
    let founders = std::thread::scope(|scope| {
        let ask = |port| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                let listen = SocketAddr::from(([192, 168, 9, 1], port));
                found(arbiter, "vm", listen).unwrap()
            })
        };
        let (one, two) = (ask(7700), ask(7701));
        [one.join().unwrap(), two.join().unwrap()]
    });
    assert_eq!(founders[0], founders[1]);
    assert_eq!(latest(arbiter, "vm").unwrap(), None, "nothing ran yet");
    assert_eq!(open(arbiter, &record(1)), OpenAnswer::Opened);
    let found = latest(arbiter, "vm").unwrap().unwrap();
    assert_eq!(found.generation, 1);
}

mod on_etcd;
mod vanishing;

/// Storage that hangs until it is told to answer.
pub(super) struct Hangs {
    asked: Mutex<usize>,
    /// What was asked up to this one is answered.
    answers: (Mutex<usize>, Condvar),
}

impl Hangs {
    pub fn new() -> Hangs {
        Hangs {
            asked: Mutex::default(),
            answers: Default::default(),
        }
    }

    pub fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    /// Answers from here on.
    pub fn answer(&self) {
        self.answers_up_to(usize::MAX);
    }

    /// Answers what was asked so far.
    pub fn answer_those(&self) {
        self.answers_up_to(self.asked());
    }

    fn answers_up_to(&self, asked: usize) {
        *self.answers.0.lock().unwrap() = asked;
        self.answers.1.notify_all();
    }

    fn wait(&self) -> Unreachable {
        let mine = {
            let mut asked = self.asked.lock().unwrap();
            *asked += 1;
            *asked
        };
        let answers = self.answers.0.lock().unwrap();
        drop(self.answers.1.wait_while(answers, |up_to| *up_to < mine));
        self.damaged(&"it answers")
    }
}

impl Arbiter for Hangs {
    fn prove(&self, _: &str) -> Result<(), Unreachable> {
        Err(self.wait())
    }
    fn keep(&self, _: &str, _: &[RecordName]) {}
    fn answer_limit(&self) -> Duration {
        Duration::from_millis(200)
    }
    fn create_under(
        &self,
        _: &str,
        _: RecordName,
        _: RecordName,
        _: &str,
    ) -> Result<Option<String>, Unreachable> {
        Err(self.wait())
    }
    fn remove(&self, _: &str, _: RecordName) -> Result<(), Unreachable> {
        Err(self.wait())
    }
    fn create(&self, _: &str, _: RecordName, _: &str) -> Result<String, Unreachable> {
        Err(self.wait())
    }
    fn read(&self, _: &str, _: RecordName) -> Result<Option<String>, Unreachable> {
        Err(self.wait())
    }
    fn list(&self, _: &str) -> Result<Vec<RecordName>, Unreachable> {
        self.wait();
        Ok(vec![])
    }
    fn damaged(&self, why: &dyn std::fmt::Display) -> Unreachable {
        Unreachable {
            arbiter: "hangs".into(),
            why: why.to_string(),
        }
    }
}
