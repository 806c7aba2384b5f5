//! Made-up time: for machines whose exits must depend on nothing but their CPU and their guest.

use crate::edge::{Input, Moment, Next, View};

/// A wait lasts for this many steps at most.
const LONGEST_WAIT: u64 = 100;

/// Guest time that goes on by a step at each position, and as far as the guest waits.
#[derive(Debug)]
pub struct MadeUpTime {
    step_ns: u64,
    now_ns: u64,
    given_at: Option<Moment>,
}

impl MadeUpTime {
    /// Begins at 0, with steps of this many nanoseconds.
    pub fn new(step_ns: u64) -> MadeUpTime {
        MadeUpTime {
            step_ns,
            now_ns: 0,
            given_at: None,
        }
    }

    /// Guest time, nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// The time for this position, and then nothing more; while the guest waits, more time. Ends with the
    /// guest.
    pub fn next(&mut self, view: &View) -> Next<'static> {
        if let Some(reason) = view.ended {
            return Next::Finish(reason);
        }
        if self.given_at == Some(view.moment) && view.wait.is_none() {
            return Next::Leave;
        }
        self.given_at = Some(view.moment);
        self.now_ns += self.step_ns;
        if let Some(wait) = view.wait {
            let longest = self.now_ns + LONGEST_WAIT * self.step_ns;
            self.now_ns = self.now_ns.max(wait.until_ns.min(longest));
        }
        Next::Apply(Input::Clock { ns: self.now_ns })
    }
}
