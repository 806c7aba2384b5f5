//! The backup's log buffer, between the channel and the vCPU.

use ft_protocol::backup::LogItem;
use ft_protocol::log::{Entry, LogError};
use lockstep_pulse::Pulse;
use lockstep_replay::{Ahead, Entries};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

/// The runtime is woken when the vCPU has taken this many bytes since the last time.
const WAKE_BYTES: u64 = 512 << 10;

/// Both ends of the buffer.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    shared: Arc<Shared>,
    pulse: Pulse,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    /// Wakes the runtime: the vCPU has run dry, or has taken a lot.
    progress: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<LogItem>,
    /// The first entry comes after this one.
    begun_after: u64,
    /// Sequence number of the last entry that was taken, and bytes taken in total.
    taken_seq: u64,
    taken_bytes: u64,
    woken_bytes: u64,
    /// The vCPU has executed everything that it took, and waits for more.
    dry: bool,
    /// The runtime waits until the vCPU has run dry.
    tell_dry: bool,
    closed: bool,
}

/// How far the vCPU has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes of the log taken out of the buffer.
    pub bytes: u64,
    /// The last sequence number executed.
    pub seq: u64,
    /// The last sequence number executed, if the vCPU has executed everything that there is.
    pub executed: Option<u64>,
}

impl Feed {
    /// An empty buffer, for a vCPU's thread with this pulse.
    pub fn new(pulse: Pulse) -> Feed {
        Feed {
            shared: Arc::default(),
            pulse,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .expect("nobody panics with this lock")
    }

    /// The buffer is empty; the first entry that comes follows this one, which is executed.
    pub fn begin_after(&self, seq: u64) {
        let mut state = self.lock();
        (state.begun_after, state.taken_seq) = (seq, seq);
    }

    /// Adds a part of the log, from the channel.
    pub fn push(&self, items: Vec<LogItem>) {
        let mut state = self.lock();
        state.items.extend(items);
        state.dry = false;
        self.shared.filled.notify_one();
    }

    /// No more will come: the vCPU's side gets `None` when the buffer is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.filled.notify_one();
    }

    /// How far the vCPU has got. With `tell_dry`, [`Feed::progress`] wakes when it runs dry.
    pub fn taken(&self, tell_dry: bool) -> Taken {
        let mut state = self.lock();
        state.tell_dry = tell_dry;
        Taken {
            bytes: state.taken_bytes,
            // The entry that was taken last may not be executed yet.
            seq: match state.dry {
                true => state.taken_seq,
                false => state.taken_seq.saturating_sub(1).max(state.begun_after),
            },
            executed: state.dry.then_some(state.taken_seq),
        }
    }

    /// Returns when [`Feed::taken`] has changed.
    pub async fn progress(&self) {
        self.shared.progress.notified().await;
    }

    /// Sequence number of the last entry that the vCPU took.
    pub fn last_seq(&self) -> u64 {
        self.lock().taken_seq
    }
}

impl Shared {
    /// Takes the next entry, if there is one.
    fn take(&self, state: &mut State) -> Option<Entry> {
        let item = state.items.pop_front()?;
        state.taken_seq = item.seq;
        state.taken_bytes += item.bytes;
        if state.taken_bytes - state.woken_bytes >= WAKE_BYTES {
            state.woken_bytes = state.taken_bytes;
            self.progress.notify_one();
        }
        Some(item.entry)
    }
}

impl Entries for Feed {
    fn next(&mut self) -> Result<Option<Entry>, LogError> {
        let mut state = self.lock();
        loop {
            if let Some(entry) = self.shared.take(&mut state) {
                return Ok(Some(entry));
            }
            if state.closed {
                return Ok(None);
            }
            state.dry = true;
            if state.tell_dry {
                self.shared.progress.notify_one();
            }
            let _rest = self.pulse.rest();
            state = self
                .shared
                .filled
                .wait(state)
                .expect("nobody panics with this lock");
        }
    }

    /// While the runtime waits for the vCPU to run dry, a guest that may compute for ever is not
    /// entered again: the vCPU counts as dry now, and stays outside the guest until there are more
    /// entries, or the end.
    fn ahead(&mut self, kicked: bool) -> Result<Ahead, LogError> {
        {
            let mut state = self.lock();
            if let Some(entry) = self.shared.take(&mut state) {
                return Ok(Ahead::Entry(entry));
            }
            let wanted = kicked && state.tell_dry;
            if !state.closed && !wanted {
                return Ok(Ahead::Nothing);
            }
        }
        Ok(self.next()?.map_or(Ahead::End, Ahead::Entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vcpu_in_its_guest_is_dry_only_if_the_runtime_waits_for_that() {
        let mut feed = Feed::default();
        feed.begin_after(7);
        let nothing = |ahead| matches!(ahead, Ok(Ahead::Nothing));
        assert!(nothing(feed.ahead(true)), "nobody suspects anything");
        assert_eq!(feed.taken(true).executed, None);
        assert!(nothing(feed.ahead(false)), "it was not kicked");
        assert_eq!(feed.taken(true).executed, None);
        let mut vcpu = feed.clone();
        let thread = std::thread::spawn(move || matches!(vcpu.ahead(true), Ok(Ahead::End)));
        while feed.taken(true).executed != Some(7) {
            std::thread::yield_now();
        }
        assert!(!thread.is_finished(), "it stays outside its guest");
        feed.close();
        assert!(thread.join().unwrap());
        assert!(matches!(feed.ahead(false), Ok(Ahead::End)));
    }
}
