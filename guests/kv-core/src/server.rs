//! What all connections share.

use crate::buffer::Budget;
use crate::churn::Churn;
use crate::data::Keyspace;
use crate::random::Random;
use crate::resp::Arguments;
use crate::session::Sessions;

const NS_PER_MS: u64 = 1_000_000;

/// The memory that a server may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For keys and values, bytes.
    pub data: usize,
    /// For incomplete commands and unsent replies, of all connections together, bytes.
    pub buffers: usize,
}

/// The databases, the connections, the limits, and the counts for INFO.
pub struct Server {
    pub(crate) keys: Keyspace,
    pub(crate) buffers: Budget,
    pub(crate) arguments: Arguments,
    pub(crate) sessions: Sessions,
    pub(crate) random: Random,
    /// Commands executed or refused.
    pub(crate) commands: u64,
    pub(crate) churn: Churn,
    /// Difference between time since 1970 and time since boot, nanoseconds.
    wall_offset_ns: u64,
}

impl Server {
    /// An empty server. `seed` makes it hard to find keys that collide, and is used to choose members
    /// for SPOP.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            keys: Keyspace::new(limits.data, seed),
            buffers: Budget::new(limits.buffers),
            arguments: Arguments::default(),
            sessions: Sessions::default(),
            random: Random::new(seed),
            commands: 0,
            churn: Churn::default(),
            wall_offset_ns: 0,
        }
    }

    /// Sets the time, nanoseconds since boot and since 1970. All commands until the next call see this
    /// time. Removes the keys that have expired.
    pub fn set_time(&mut self, now_ns: u64, wall_ns: u64) {
        self.sessions.now_ns = now_ns;
        self.wall_offset_ns = wall_ns.saturating_sub(now_ns);
        self.keys.set_time((wall_ns / NS_PER_MS) as i64);
    }

    /// Pages that `DEBUG CHURN` has written since it was last set.
    pub fn churned(&self) -> u64 {
        self.churn.pages()
    }

    /// Does what is due at `now_ns`, nanoseconds since boot, without any command. Returns when it must
    /// be called again, after [`set_time`](Self::set_time); `None` if it need not be.
    pub fn run(&mut self, now_ns: u64) -> Option<u64> {
        let expires = self.keys.next_deadline().map(|deadline| {
            // A key still exists in the millisecond of its deadline.
            let over = (deadline as u64)
                .saturating_add(1)
                .saturating_mul(NS_PER_MS);
            over.saturating_sub(self.wall_offset_ns)
        });
        [self.churn.run(now_ns), expires]
            .into_iter()
            .flatten()
            .min()
    }
}
