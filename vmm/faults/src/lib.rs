//! Faults that tests and drills plant into a member: `--cut POINT[:N]` kills it with SIGKILL at a named
//! step of the protocol, or does something else to it there.
//!
//! Only the program `lockstep-faults` links this crate, so nothing of it can be reached in `lockstep`.

mod seal;

use lockstep_ft::cuts::{CutPoint, Cuts, Plant};
use lockstep_machine::{Input, Machine};
use lockstep_memory::RamError;
use lockstep_memory::ram::PAGE;
use lockstep_pulse::{AtPositions, Pulse};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use thiserror::Error;

/// What can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The member is killed at this step.
    Dies(CutPoint),
    /// The vCPU's thread hangs for good at its N-th position.
    VcpuHangs,
    /// The runtime's thread stands still for [`STALL`] at its N-th tick.
    RuntimeStalls,
    /// A byte of the N-th machine that was built or copied here is another.
    PageFlips,
    /// A device of the N-th machine that was built or copied here is another.
    DeviceFlips,
    /// Once the guest runs, the threads of the vCPU and of the runtime may do nothing that is done before.
    /// This is no fault: a member must live with it.
    Sealed,
    /// The same, and the vCPU's thread opens a file at its N-th position.
    VcpuBreaksSeal,
    /// The same, and the runtime's thread does so once it is sealed.
    RuntimeBreaksSeal,
}

const FAULTS: [(&str, Fault); 14] = [
    ("entry-logged", Fault::Dies(CutPoint::EntryLogged)),
    ("log-sent", Fault::Dies(CutPoint::LogSent)),
    ("ack-received", Fault::Dies(CutPoint::AckReceived)),
    ("output-released", Fault::Dies(CutPoint::OutputReleased)),
    ("claim-asked", Fault::Dies(CutPoint::ClaimAsked)),
    ("claim-won", Fault::Dies(CutPoint::ClaimWon)),
    ("live-announced", Fault::Dies(CutPoint::LiveAnnounced)),
    ("vcpu-hangs", Fault::VcpuHangs),
    ("runtime-stalls", Fault::RuntimeStalls),
    ("page-flips", Fault::PageFlips),
    ("device-flips", Fault::DeviceFlips),
    ("sealed", Fault::Sealed),
    ("vcpu-breaks-seal", Fault::VcpuBreaksSeal),
    ("runtime-breaks-seal", Fault::RuntimeBreaksSeal),
];

/// The names of all that can be planted.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAULTS.into_iter().map(|(name, _)| name)
}

/// A text that names nothing which can be planted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{text}` is not a cut: give POINT or POINT:N, with POINT one of {known}")]
pub struct NoCut {
    text: String,
    known: String,
}

/// `--cut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    fault: Fault,
    /// At which of its times, counted from 1.
    at: u64,
}

impl FromStr for Cut {
    type Err = NoCut;

    fn from_str(text: &str) -> Result<Cut, NoCut> {
        let (name, at) = text.split_once(':').unwrap_or((text, "1"));
        let fault = FAULTS.iter().find(|(known, _)| *known == name);
        let at = at.parse().ok().filter(|at| *at > 0);
        match (fault, at) {
            (Some((_, fault)), Some(at)) => Ok(Cut { fault: *fault, at }),
            _ => Err(NoCut {
                text: text.to_owned(),
                known: names().collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

impl Cut {
    /// The fault, for a member.
    pub fn plant(self) -> Cuts {
        Cuts::planted(Arc::new(Planted::new(self)))
    }
}

/// So long a planted stall lasts: as that of a thread which gets no processor on a busy host. Longer than
/// a peer's patience with silence, and too short for a thread that hangs.
const STALL: Duration = Duration::from_millis(600);

/// A fault in a member, whose threads all count towards its time.
#[derive(Debug)]
struct Planted {
    cut: Cut,
    passed: AtomicU64,
    /// The guest runs, so that the runtime's thread is to be sealed.
    seals: Arc<AtomicBool>,
}

impl Planted {
    fn new(cut: Cut) -> Planted {
        Planted {
            cut,
            passed: AtomicU64::new(0),
            seals: Arc::default(),
        }
    }

    /// Whether this is the time for this fault.
    fn is_now(&self, fault: Fault) -> bool {
        self.cut.fault == fault && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.cut.at
    }
}

impl Plant for Planted {
    fn pass(&self, point: CutPoint) {
        if self.is_now(Fault::Dies(point)) {
            // What the member said before it got here has left.
            lockstep_out::finish();
            let this = rustix::process::getpid();
            let killed = rustix::process::kill_process(this, rustix::process::Signal::KILL);
            panic!("a cut that does not kill ({killed:?})");
        }
    }

    fn tick(&self) {
        if self.is_now(Fault::RuntimeStalls) {
            tracing::warn!("the runtime's thread stands still, as it was told to");
            // Not a wait for anything: the pause is what is planted.
            std::thread::sleep(STALL);
            tracing::warn!("the runtime's thread goes on");
        }
        if self.seals.swap(false, Ordering::AcqRel) {
            seal::this_thread();
            if self.is_now(Fault::RuntimeBreaksSeal) {
                seal::break_it();
            }
        }
    }

    /// Each vCPU thread counts its own positions.
    fn pulse(&self) -> Pulse {
        match self.cut.fault {
            Fault::VcpuHangs => Pulse::seen_by(Box::new(Hang(Planted::new(self.cut)))),
            Fault::Sealed | Fault::VcpuBreaksSeal | Fault::RuntimeBreaksSeal => {
                Pulse::seen_by(Box::new(Sealing {
                    planted: Planted::new(self.cut),
                    begun: AtomicBool::new(false),
                    runtime: self.seals.clone(),
                }))
            }
            Fault::Dies(_) | Fault::RuntimeStalls | Fault::PageFlips | Fault::DeviceFlips => {
                Pulse::default()
            }
        }
    }

    fn built(&self, machine: &mut Machine) -> Result<(), RamError> {
        if self.is_now(Fault::PageFlips) {
            // The guest does not read it: only a digest can find it.
            let at = lockstep_abi::BOOT_INFO + PAGE as u64 - 1;
            let mut byte = [0];
            machine.ram().read(at, &mut byte)?;
            machine.ram().write(at, &[byte[0] ^ 1])?;
        }
        if self.is_now(Fault::DeviceFlips) {
            let ns = machine.view().now_ns + 1;
            machine.apply(Input::Clock { ns });
        }
        Ok(())
    }
}

/// A vCPU's thread that hangs at a position.
#[derive(Debug)]
struct Hang(Planted);

impl AtPositions for Hang {
    fn position(&self) {
        if self.0.is_now(Fault::VcpuHangs) {
            tracing::warn!("the vCPU's thread hangs, as it was told to");
            loop {
                std::thread::park();
            }
        }
    }
}

/// A vCPU's thread that is sealed at its first position, and then lets the runtime's thread be sealed.
#[derive(Debug)]
struct Sealing {
    planted: Planted,
    begun: AtomicBool,
    runtime: Arc<AtomicBool>,
}

impl AtPositions for Sealing {
    fn position(&self) {
        if !self.begun.swap(true, Ordering::AcqRel) {
            seal::this_thread();
            self.runtime.store(true, Ordering::Release);
        }
        if self.planted.is_now(Fault::VcpuBreaksSeal) {
            seal::break_it();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_parsed() {
        let cut = |fault, at| Ok(Cut { fault, at });
        assert_eq!("log-sent".parse(), cut(Fault::Dies(CutPoint::LogSent), 1));
        assert_eq!("vcpu-hangs:7".parse(), cut(Fault::VcpuHangs, 7));
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
        let planted = Planted::new("ack-received:3".parse().unwrap());
        let dies = Fault::Dies(CutPoint::AckReceived);
        let hits: Vec<bool> = (0..5).map(|_| planted.is_now(dies)).collect();
        assert_eq!(hits, [false, false, true, false, false]);
        let other = Planted::new("ack-received".parse().unwrap());
        assert!(!other.is_now(Fault::Dies(CutPoint::LogSent)));
        assert!(other.is_now(dies), "another point's passing does not count");
    }
}
