//! Cut points: `--cut POINT[:N]` kills this member with SIGKILL at a named step of the protocol, so that
//! drills can sweep over a failure between every two of them. Some plant another fault there.

use lockstep_pulse::Pulse;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A step of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutPoint {
    /// A piece of the log is made, and not sent.
    EntryLogged,
    /// A piece of the log is sent.
    LogSent,
    /// An acknowledgement came, and nothing was done about it.
    AckReceived,
    /// An output has left, and nobody was told.
    OutputReleased,
    /// The arbiter was asked for the test-and-set.
    ClaimAsked,
    /// The test-and-set was won, and nothing was done about it.
    ClaimWon,
    /// This side goes on alone, and has said so.
    LiveAnnounced,
    /// No kill: the vCPU's thread hangs for good at its N-th position.
    VcpuHangs,
    /// No kill: the runtime's thread stands still for [`STALL`] at its N-th tick.
    RuntimeStalls,
    /// No kill: a byte of the machine that was built or copied here is another.
    PageFlips,
    /// No kill: a device of the machine that was built or copied here is another.
    DeviceFlips,
}

const NAMES: [(&str, CutPoint); 11] = [
    ("entry-logged", CutPoint::EntryLogged),
    ("log-sent", CutPoint::LogSent),
    ("ack-received", CutPoint::AckReceived),
    ("output-released", CutPoint::OutputReleased),
    ("claim-asked", CutPoint::ClaimAsked),
    ("claim-won", CutPoint::ClaimWon),
    ("live-announced", CutPoint::LiveAnnounced),
    ("vcpu-hangs", CutPoint::VcpuHangs),
    ("runtime-stalls", CutPoint::RuntimeStalls),
    ("page-flips", CutPoint::PageFlips),
    ("device-flips", CutPoint::DeviceFlips),
];

/// `--cut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    point: CutPoint,
    /// At which of its times, counted from 1.
    at: u64,
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Cut, String> {
        let (name, at) = text.split_once(':').unwrap_or((text, "1"));
        let point = NAMES.iter().find(|(known, _)| *known == name);
        let at = at.parse().ok().filter(|at| *at > 0);
        match (point, at) {
            (Some((_, point)), Some(at)) => Ok(Cut { point: *point, at }),
            _ => Err(format!(
                "`{text}` is no cut: give POINT or POINT:N, with POINT one of {}",
                NAMES.map(|(name, _)| name).join(", ")
            )),
        }
    }
}

/// So long a runtime stands still that is told to: as one that gets no processor on a busy host. Longer
/// than a peer's patience with silence, and too short for a thread that hangs.
const STALL: Duration = Duration::from_millis(600);

/// Counts towards the cut, on all threads of a member.
#[derive(Clone, Debug, Default)]
pub struct Cuts {
    cut: Option<Cut>,
    passed: Arc<AtomicU64>,
}

impl Cuts {
    /// With this cut, if there is to be one.
    pub fn new(cut: Option<Cut>) -> Cuts {
        Cuts {
            cut,
            passed: Arc::default(),
        }
    }

    /// The pulse of this member's vCPU, which may be to stop.
    pub fn pulse(&self) -> Pulse {
        match self.cut {
            Some(Cut {
                point: CutPoint::VcpuHangs,
                at,
            }) => Pulse::that_stops(at),
            _ => Pulse::default(),
        }
    }

    /// This member passes a point; it may be its last.
    pub fn pass(&self, point: CutPoint) {
        if self.is_now(point) {
            // What it said before it got here has left.
            lockstep_out::finish();
            let this = rustix::process::getpid();
            let killed = rustix::process::kill_process(this, rustix::process::Signal::KILL);
            panic!("a cut that does not kill ({killed:?})");
        }
    }

    /// On the runtime's thread, at a tick: it may be the one at which it stands still.
    pub fn tick(&self) {
        if self.is_now(CutPoint::RuntimeStalls) {
            tracing::warn!("the runtime's thread stands still, as it was told to");
            // Not a wait for anything: the pause is what is planted.
            std::thread::sleep(STALL);
            tracing::warn!("the runtime's thread goes on");
        }
    }

    /// Whether this member passes the point for the time that it was told.
    pub fn is_now(&self, point: CutPoint) -> bool {
        self.cut.is_some_and(|cut| {
            cut.point == point && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == cut.at
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_parsed() {
        let cut = |point, at| Ok(Cut { point, at });
        assert_eq!("log-sent".parse(), cut(CutPoint::LogSent, 1));
        assert_eq!("claim-won:7".parse(), cut(CutPoint::ClaimWon, 7));
        for bad in [
            "",
            "log",
            "log-sent:",
            "log-sent:0",
            "log-sent:x",
            "log-sent:1:2",
        ] {
            assert!(bad.parse::<Cut>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cut_comes_at_its_time_and_only_there() {
        let cuts = Cuts::new(Some("ack-received:3".parse().unwrap()));
        let hits: Vec<bool> = (0..5).map(|_| cuts.is_now(CutPoint::AckReceived)).collect();
        assert_eq!(hits, [false, false, true, false, false]);
        assert!(!cuts.is_now(CutPoint::LogSent));
        assert!(!Cuts::default().is_now(CutPoint::AckReceived));
    }
}
