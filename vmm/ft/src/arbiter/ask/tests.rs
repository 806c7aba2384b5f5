//! Storage that hangs, answered for in time.

use super::super::tests::Hangs;
use super::*;
use std::time::Instant;
use tokio::sync::mpsc::unbounded_channel;

#[test]
fn a_storage_that_hangs_is_unreachable_after_its_limit_and_is_asked_again_only_so_often() {
    let storage = Arc::new(Hangs::new());
    let asker = Asker::new(storage.clone(), "vm", MemberId(1));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let began = Instant::now();
    runtime.block_on(async {
        let (sender, mut answers) = unbounded_channel();
        for _ in 0..3 * MAX_WAITING {
            asker.ask(
                &sender,
                |arbiter, vm, _| {
                    arbiter
                        .list(vm)
                        .map_or_else(|e| e.to_string(), |_| "answered".into())
                },
                |why| why,
            );
        }
        for _ in 0..3 * MAX_WAITING {
            let why = answers.recv().await.expect("an answer");
            assert!(why.contains("cannot be reached"), "{why}");
        }
    });
    let limit = storage.answer_limit();
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
    assert_eq!(storage.asked(), MAX_WAITING, "no thread for each question");
    // The runtime's end waits for none of them.
    let ending = Instant::now();
    drop(runtime);
    assert!(ending.elapsed() < limit, "{:?}", ending.elapsed());
    let why = asker
        .ask_now(|arbiter, vm, _| arbiter.list(vm))
        .unwrap_err();
    assert!(why.to_string().contains("no answer yet"), "{why}");
    // Once it answers again, so does the asker.
    storage.answer();
    let deadline = Instant::now() + 10 * limit;
    while asker.ask_now(|arbiter, vm, _| arbiter.list(vm)).is_err() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}
