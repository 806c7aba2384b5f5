//! The fault-tolerant runtime: performs the actions of the state machines in `ft-protocol` with
//! threads, sockets and files.
//!
//! Each side has one thread with a tokio runtime, which owns the protocol's state machine, and one
//! thread with the vCPU. On the primary they share the journal, the waiting outputs and a brake; on the
//! backup, the log buffer. The map is in `docs/architecture.md`.

pub mod alarm;
pub mod announcer;
pub mod arbiter;
pub mod backup;
pub mod beats;
pub mod control;
pub mod cuts;
pub mod errands;
pub mod events;
pub mod feed;
pub mod fence;
pub mod link;
pub mod lobby;
pub mod network;
mod outcome;
pub mod outputs;
pub mod pace;
pub mod primary;
mod priority;
pub mod readable;
mod records;
mod silence;
mod sockets;
mod strangers;

pub use arbiter::{Arbiter, ArbiterUrl};
pub use events::EventLog;
pub use outcome::{Halt, MachineFailed, Outcome, StillOpen};

use ft_protocol::Time;
use ft_protocol::log::EndReason;
use ft_protocol::transfer::StateDigest;
use lockstep_machine::Parts;
use lockstep_signals::Hangup;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The status of an end in events: the guest's own, or 0 if it was stopped.
fn end_status(reason: EndReason) -> u32 {
    match reason {
        EndReason::Exited { status } => status,
        EndReason::Dead | EndReason::Reset => 1,
        EndReason::Stopped => 0,
    }
}

/// The digests of a machine's parts, in the protocol's form.
fn state_digest(parts: &Parts) -> StateDigest {
    let named = |(name, digest): (&str, u64)| (name.to_owned(), digest);
    StateDigest(parts.iter().map(named).collect())
}

/// Nanoseconds since 1970.
pub fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as u64)
}

/// The host's monotonic clock, which is the same for all processes of a host.
fn now() -> Time {
    let t = clock_gettime(ClockId::Monotonic);
    Time(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// How much later a tick may be done while nothing is under way. The next beat
/// ([`beats::INTERVAL`]) mostly wakes this thread before, and the tick is done then.
const CALM: Duration = Duration::from_millis(35);

/// May a tick that is due at `tick` be put off by [`CALM`]? Only while the peer's beats arrive in time,
/// which its silence shows.
fn may_put_off(tick: Time, now: Time, silence: Option<Duration>) -> bool {
    let beats_arrive = silence.is_none_or(|silence| silence < primary::timing().heartbeat + CALM);
    tick > now && beats_arrive
}

/// SIGINT, SIGTERM and SIGHUP.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Hangup,
}

/// What a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// To end; if that was requested before, to be cut off.
    End,
    /// To end. The end of a terminal may send it twice, by the system and by a shell or a `pair`, so it
    /// never cuts off.
    HungUp,
}

impl StopSignals {
    fn new() -> io::Result<StopSignals> {
        Ok(StopSignals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: Hangup::listen()?,
        })
    }

    async fn next(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.interrupt.recv() => StopSignal::End,
            _ = self.terminate.recv() => StopSignal::End,
            () = self.hangup.recv() => StopSignal::HungUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_put_off_only_while_beats_arrive() {
        let ms = Duration::from_millis;
        let (now, heartbeat) = (Time(1_000_000_000), primary::timing().heartbeat);
        let tick = now.after(ms(7));
        for silence in [None, Some(ms(0)), Some(beats::INTERVAL)] {
            assert!(may_put_off(tick, now, silence));
            assert!(!may_put_off(now, now, silence), "it is due");
        }
        assert!(!may_put_off(tick, now, Some(ms(60))));
        // A beat comes before a tick that was put off.
        assert!(heartbeat + CALM > beats::INTERVAL);
    }
}
