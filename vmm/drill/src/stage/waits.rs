//! Waits for what a scenario needs on its stage.

use super::{BETWEEN_ATTEMPTS, RunError, Stage, files};
use crate::client::{self, Client, Connected};
use crate::members::MemberId;
use lockstep_events::{Event, Stamped};
use std::time::{Duration, Instant};

/// A member that reports nothing is checked again after this time, even without a notification about
/// its file.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Stage {
    /// Connects the client, which may have to wait until the guest has booted, and lets it count.
    pub(crate) fn start_client(&mut self) -> Result<(), RunError> {
        let connected = self.await_guest()?;
        let client = Client::start(connected).map_err(|source| files(&self.dir, source))?;
        self.client = Some(client);
        Ok(())
    }

    /// Waits until the guest has booted and answers.
    pub(crate) fn await_guest(&mut self) -> Result<Connected, RunError> {
        let limit = self.server.boot_limit();
        let deadline = Instant::now() + limit;
        loop {
            match client::connect(self.guest) {
                Ok(connected) => return Ok(connected),
                Err(e) if Instant::now() >= deadline => {
                    let reason = e.to_string();
                    return Err(RunError::NoPing { limit, reason });
                }
                Err(_) => self
                    .members
                    .pause("the guest answered PING", BETWEEN_ATTEMPTS)?,
            }
        }
    }

    /// The number of answers that the client has.
    pub(crate) fn answers(&self) -> u64 {
        self.client.as_ref().map_or(0, Client::answers)
    }

    /// Waits until the client has `answers`. Returns false if it ended before that, or `limit` passed.
    /// If a member ends unexpectedly, it is an error.
    pub(crate) fn wait_for_answers(
        &mut self,
        answers: u64,
        limit: Duration,
    ) -> Result<bool, RunError> {
        let client = self.client.as_ref();
        let reached = client.is_some_and(|c| c.wait_for(answers, limit));
        self.members.refuse_deaths("the client had its answers")?;
        Ok(reached)
    }

    /// Waits for an event of a member; see [`Members::wait_for`].
    pub(crate) fn wait_for(
        &mut self,
        id: MemberId,
        what: &'static str,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Stamped, RunError> {
        self.wait_for_nth(id, what, 1, limit, wanted)
    }

    /// The same for the `times`-th such event.
    pub(crate) fn wait_for_nth(
        &mut self,
        id: MemberId,
        what: &'static str,
        times: usize,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Stamped, RunError> {
        Ok(self.members.wait_for(id, what, times, limit, wanted)?)
    }

    /// Waits for `limit`, or less if a member reports an event that `wanted` accepts; returns whether
    /// one did. If a member ends, it is an error.
    pub(crate) fn happens_within(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<bool, RunError> {
        let deadline = Instant::now() + limit;
        loop {
            let told = self.members.logs();
            let mut events = told.iter().flat_map(|(_, events)| events);
            if events.any(|e| wanted(&e.event)) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.members
                .pause("the quiet was over", left.min(LOOK_AGAIN))?;
        }
    }
}
