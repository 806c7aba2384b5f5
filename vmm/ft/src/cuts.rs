//! Cut points: named steps of the protocol, at which a program may plant faults into a member, so that
//! drills and tests can sweep over a failure between every two of them. `lockstep` plants none: what can be
//! planted is in `vmm/faults`, which only `lockstep-faults` links.

use lockstep_machine::Machine;
use lockstep_memory::RamError;
use lockstep_pulse::Pulse;
use std::fmt::Debug;
use std::sync::Arc;

/// A step of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutPoint {
    /// A piece of the log is made, and not sent.
    EntryLogged,
    /// A piece of the log is sent.
    LogSent,
    /// An acknowledgement came, and nothing was done about it.
    AckReceived,
    /// An output has left, and the backup was not told.
    OutputReleased,
    /// The arbiter was asked for the test-and-set.
    ClaimAsked,
    /// The test-and-set was won, and nothing was done about it.
    ClaimWon,
    /// This side goes on alone, and has said so.
    LiveAnnounced,
}

/// A fault that a program plants into a member.
pub trait Plant: Debug + Send + Sync {
    /// The member passes a cut point.
    fn pass(&self, point: CutPoint);

    /// The runtime's thread is at a tick.
    fn tick(&self);

    /// The pulse for a vCPU's thread that is to start.
    fn pulse(&self) -> Pulse;

    /// A backup's machine was built or copied, and has not run.
    fn built(&self, machine: &mut Machine) -> Result<(), RamError>;
}

/// What is planted into a member: nothing, unless its program says so.
#[derive(Clone, Debug, Default)]
pub struct Cuts(Option<Arc<dyn Plant>>);

impl Cuts {
    /// With this fault.
    pub fn planted(plant: Arc<dyn Plant>) -> Cuts {
        Cuts(Some(plant))
    }

    /// See [`Plant::pass`].
    pub(crate) fn pass(&self, point: CutPoint) {
        if let Some(plant) = &self.0 {
            plant.pass(point);
        }
    }

    /// See [`Plant::tick`].
    pub(crate) fn tick(&self) {
        if let Some(plant) = &self.0 {
            plant.tick();
        }
    }

    /// See [`Plant::pulse`].
    pub(crate) fn pulse(&self) -> Pulse {
        self.0
            .as_ref()
            .map_or_else(Pulse::default, |plant| plant.pulse())
    }

    /// See [`Plant::built`].
    pub(crate) fn built(&self, machine: &mut Machine) -> Result<(), RamError> {
        self.0.as_ref().map_or(Ok(()), |plant| plant.built(machine))
    }
}
