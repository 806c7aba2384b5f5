//! What all connections share.

use crate::buffer::Budget;
use crate::churn::Churn;
use crate::db::Db;
use crate::resp::Arguments;

/// How much memory a server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For keys and values, bytes.
    pub data: usize,
    /// For commands not yet whole and replies not yet sent, all connections together, bytes.
    pub buffers: usize,
}

/// The database, the limits, and the counts that INFO tells.
pub struct Server {
    pub(crate) db: Db,
    pub(crate) buffers: Budget,
    pub(crate) arguments: Arguments,
    pub(crate) stats: Stats,
    pub(crate) churn: Churn,
}

/// Counts that INFO tells.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Connections there have been; also the id of the latest.
    pub connections: u64,
    /// Connections there are.
    pub connected: u64,
    /// Commands executed or refused.
    pub commands: u64,
}

impl Server {
    /// An empty one. `seed` makes it hard to find keys that collide.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            db: Db::new(limits.data, seed),
            buffers: Budget::new(limits.buffers),
            arguments: Arguments::default(),
            stats: Stats::default(),
            churn: Churn::default(),
        }
    }

    /// Pages that `DEBUG CHURN` has written, since it was told last.
    pub fn churned(&self) -> u64 {
        self.churn.pages()
    }

    /// Does what is due by now, nanoseconds since boot, whatever clients send. Returns when it wants
    /// to be called again, if it does.
    pub fn run(&mut self, now_ns: u64) -> Option<u64> {
        self.churn.run(now_ns)
    }
}
