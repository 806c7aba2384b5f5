//! Threads that do what may wait for ever. They are started before the guest runs, so that a thread that
//! runs a machine or a runtime starts none.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use thiserror::Error;

type Errand = Box<dyn FnOnce() + Send>;

/// A few threads, each of which does one errand at a time. They end with the last handle.
#[derive(Clone, Debug)]
pub struct Errands {
    queue: Sender<Errand>,
    /// Threads that have an errand.
    busy: Arc<AtomicUsize>,
    threads: usize,
}

impl Errands {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the host gives no thread.
    pub fn start(name: &str, threads: usize) -> io::Result<Errands> {
        let (queue, errands) = channel();
        let errands = Arc::new(Mutex::new(errands));
        for _ in 0..threads {
            let errands = errands.clone();
            // Not one of tokio's threads: the process would wait for it at its end.
            thread::Builder::new()
                .name(name.into())
                .spawn(move || work(&errands))?;
        }
        Ok(Errands {
            queue,
            busy: Arc::default(),
            threads,
        })
    }

    /// Hands an errand to a thread that has none. If each has one, it is not done.
    pub fn run(&self, errand: impl FnOnce() + Send + 'static) -> Result<(), AllBusy> {
        let (busy, threads) = (self.busy.clone(), self.threads);
        if busy.fetch_add(1, Ordering::AcqRel) >= threads {
            busy.fetch_sub(1, Ordering::AcqRel);
            return Err(AllBusy);
        }
        let done = Done(busy);
        self.run_next(move || {
            errand();
            drop(done);
        });
        Ok(())
    }

    /// Hands an errand to the first thread that is free. Only for errands that end.
    pub fn run_next(&self, errand: impl FnOnce() + Send + 'static) {
        let queued = self.queue.send(Box::new(errand));
        queued.expect("the threads end with the last handle");
    }
}

/// Each thread has an errand that has not ended.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("its threads are all busy")]
pub struct AllBusy;

/// Its thread is free again once this is dropped.
struct Done(Arc<AtomicUsize>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn work(errands: &Mutex<Receiver<Errand>>) {
    loop {
        // Those that wait for this lock would wait for an errand otherwise.
        let next = errands.lock().expect("nobody panics with it").recv();
        match next {
            Ok(errand) => errand(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_may_wait_for_the_one_before() {
        let errands = Errands::start("errands", 1).expect("a thread");
        let (done, ends) = channel();
        for number in 0..3 {
            let done = done.clone();
            errands.run_next(move || done.send(number).expect("the test waits"));
        }
        assert_eq!(ends.iter().take(3).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn as_many_errands_are_done_at_once_as_there_are_threads() {
        let errands = Errands::start("errands", 2).expect("two threads");
        let (done, ends) = channel();
        let held: Vec<Sender<()>> = (0..2)
            .map(|number| {
                let (release, released) = channel();
                let done = done.clone();
                let run = errands.run(move || {
                    let _end = released.recv();
                    done.send(number).expect("the test waits");
                });
                run.expect("a free thread");
                release
            })
            .collect();
        assert_eq!(errands.run(|| unreachable!("not done")), Err(AllBusy));
        for (number, release) in held.into_iter().enumerate().rev() {
            release.send(()).expect("the errand waits");
            assert_eq!(ends.recv(), Ok(number));
        }
        while errands.run(|| {}).is_err() {
            thread::yield_now();
        }
    }
}
