//! Strangers: connections that have not said yet what they want. There may be several at once, each
//! with little time, so that none of them keeps others waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::{AbortHandle, JoinSet};

/// The tasks of the strangers of one socket. They end when this is dropped.
#[derive(Debug)]
pub struct Strangers {
    limit: usize,
    tasks: JoinSet<()>,
    unknown: VecDeque<(Known, AbortHandle)>,
}

/// With this a stranger's task reports that it is known what the stranger wants.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<AtomicBool>);

impl Known {
    /// It is not a stranger any more, and makes room for others.
    pub fn note(&self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Strangers {
    /// At most `limit` strangers at once.
    pub fn at_most(limit: usize) -> Strangers {
        Strangers {
            limit,
            tasks: JoinSet::new(),
            unknown: VecDeque::new(),
        }
    }

    /// Admits one more, served by a task that drops its connection at the end. If there are too many,
    /// the oldest is ended: a peer that knows what to say has said it by then.
    pub fn admit<T>(&mut self, task: impl FnOnce(Known) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        let waits = |(known, task): &(Known, AbortHandle)| {
            !known.0.load(Ordering::Acquire) && !task.is_finished()
        };
        self.unknown.retain(waits);
        if self.unknown.len() >= self.limit
            && let Some((_, oldest)) = self.unknown.pop_front()
        {
            oldest.abort();
        }
        let known = Known::default();
        let task = self.tasks.spawn(task(known.clone()));
        self.unknown.push_back((known, task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    /// A task that is ended has ended within this.
    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn the_oldest_goes_for_one_too_many_unless_it_is_known() {
        let mut strangers = Strangers::at_most(2);
        let mut ends = Vec::new();
        for number in 0..4 {
            let (end, ended) = oneshot::channel::<()>();
            strangers.admit(|known| async move {
                // Dropped with the task.
                let _end = end;
                if number == 0 {
                    known.note();
                }
                std::future::pending().await
            });
            tokio::task::yield_now().await;
            ends.push(ended);
        }
        // 0 is known; 1, 2 and 3 are not, and only two of them fit.
        let oldest = timeout(SOON, ends.remove(1)).await;
        assert!(matches!(oldest, Ok(Err(_))), "1 was the oldest: {oldest:?}");
        for still in &mut ends {
            assert!(
                still
                    .try_recv()
                    .is_err_and(|e| e == oneshot::error::TryRecvError::Empty)
            );
        }
        drop(strangers);
        for end in ends {
            let end = timeout(SOON, end).await;
            assert!(matches!(end, Ok(Err(_))), "{end:?}");
        }
    }
}
