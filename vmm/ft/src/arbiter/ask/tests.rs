//! Storage that hangs, answered for in time; and storage that is only slow.

use super::super::tests::Hangs;
use super::*;
use std::thread;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Asks once, and waits for what comes of it.
fn ask(runtime: &Runtime, asker: &Asker<String>, question: Question) -> String {
    runtime.block_on(async {
        let (sender, mut answers) = unbounded_channel();
        asker.ask(
            question,
            &sender,
            |arbiter, vm, _| {
                let answered = arbiter.list(vm);
                answered.map_or_else(|e| e.to_string(), |_| "answered".into())
            },
            |why| why,
        );
        answers.recv().await.expect("an answer")
    })
}

#[test]
fn a_storage_that_hangs_is_unreachable_after_its_limit_and_is_asked_only_so_often() {
    let storage = Arc::new(Hangs::new());
    let asker = Asker::new(storage.clone(), "vm", MemberId(1)).expect("threads");
    let (runtime, limit) = (runtime(), storage.answer_limit());
    for _ in 0..MAX_WAITING + 3 {
        let began = Instant::now();
        let why = ask(&runtime, &asker, Question::Claim(1));
        assert!(why.contains("cannot be reached"), "{why}");
        assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    }
    assert_eq!(storage.asked(), MAX_WAITING, "no thread for each attempt");
    // The runtime's end waits for none of them.
    let ending = Instant::now();
    drop(runtime);
    assert!(ending.elapsed() < limit, "{:?}", ending.elapsed());
    let now = || asker.ask_now(|arbiter, vm, _| arbiter.list(vm));
    let why = now().unwrap_err().to_string();
    assert!(why.contains("no answer yet"), "{why}");
    // Once it answers again, so does the asker.
    storage.answer();
    let deadline = Instant::now() + 10 * limit;
    while now().is_err() {
        assert!(Instant::now() < deadline);
        thread::yield_now();
    }
}

#[test]
fn a_late_answer_is_the_answer_of_the_same_question_and_of_no_other() {
    let storage = Arc::new(Hangs::new());
    let asker = Asker::new(storage.clone(), "vm", MemberId(1)).expect("threads");
    let runtime = runtime();
    for question in [Question::Claim(1), Question::Look, Question::Look] {
        let why = ask(&runtime, &asker, question);
        assert!(why.contains("did not answer"), "{why}");
    }
    assert_eq!(storage.asked(), 2, "one look at a time");
    storage.answer_those();
    // From here on it hangs again: what comes is the answer of before.
    assert_eq!(ask(&runtime, &asker, Question::Claim(1)), "answered");
    assert_eq!(ask(&runtime, &asker, Question::Look), "answered");
    for other in [Question::Claim(2), Question::Claim(1), Question::Look] {
        let why = ask(&runtime, &asker, other);
        assert!(why.contains("did not answer"), "{other:?}: {why}");
    }
}

#[test]
fn an_answer_that_came_while_the_process_stood_still_is_not_late() {
    let storage = Arc::new(Hangs::new());
    let asker = Asker::new(storage.clone(), "vm", MemberId(1)).expect("threads");
    let limit = storage.answer_limit();
    let answer = runtime().block_on(async {
        let (sender, mut answers) = unbounded_channel();
        let asked = |arbiter: &dyn Arbiter, vm: &str, _| match arbiter.list(vm) {
            Ok(_) => "answered".into(),
            Err(e) => e.to_string(),
        };
        asker.ask(Question::Claim(1), &sender, asked, |why| why);
        tokio::task::yield_now().await;
        // Not a wait for anything: the runtime's thread stands still.
        thread::sleep(limit * STOOD_STILL * 2);
        // The runtime sees that the limit has passed before the storage's thread can answer.
        tokio::time::sleep(limit / 2).await;
        storage.answer();
        answers.recv().await.expect("an answer")
    });
    assert_eq!(answer, "answered");
}
