//! The exit fingerprint: which positions this host's KVM makes of a fixed guest.
//!
//! A self-test guest makes every kind of exit, with interrupts at each of them and with made-up time,
//! so that its trace depends on KVM alone. Two hosts with the same hash make the same positions.

use super::drive::{DriveError, Driven, drive};
use super::edge::{Moment, Next, Sink, Source, View};
use super::made_up::MadeUpTime;
use super::{Machine, MachineError};
use ft_protocol::log::{Counts, End, HostPrint, MachineConfig, MachineDigest};
use lockstep_devices::Output;
use lockstep_loader::Image;
use lockstep_memory::Ram;
use lockstep_vcpu::CpuBackend;
use std::convert::Infallible;
use xxhash_rust::xxh3::Xxh3;

/// Made-up time that passes between two positions, nanoseconds.
const STEP_NS: u64 = 40_000;
/// After this many positions the self-test guest counts as hanging.
const MAX_POSITIONS: u64 = 200_000;
/// Memory of the self-test machine, MiB.
const MEM_MIB: u32 = 32;

/// The result of the self-test guest's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTest {
    /// Hash of its exit trace.
    pub exits: u64,
    /// How many exits it made.
    pub positions: u64,
}

/// Runs the self-test guest.
pub fn self_test(backend: &dyn CpuBackend) -> Result<SelfTest, MachineError> {
    let config = MachineConfig::new(MEM_MIB).on(backend.kind(), Counts::BranchEdges);
    let image = Image::parse("positions", lockstep_images::POSITIONS.to_vec())?;
    let mut machine = Machine::new(backend, &config, &image)?;
    let mut trace = Trace {
        ram: machine.ram().clone(),
        hash: Xxh3::new(),
        time: MadeUpTime::new(STEP_NS),
    };
    match drive(&mut machine, &mut trace) {
        Ok(Driven::Ended(_)) => Ok(SelfTest {
            exits: trace.hash.digest(),
            positions: machine.position().exit,
        }),
        Ok(Driven::Stopped) => Err(MachineError::SelfTest),
        Err(DriveError::Machine(e)) => Err(e),
        Err(DriveError::Edge(never)) => match never {},
    }
}

/// The properties of this host on which a log depends. Runs the self-test guest.
pub fn host_print(backend: &dyn CpuBackend) -> Result<HostPrint, MachineError> {
    Ok(HostPrint {
        exits: self_test(backend)?.exits,
        cpu: backend.host_cpu(),
    })
}

struct Trace {
    ram: Ram,
    hash: Xxh3,
    time: MadeUpTime,
}

impl Trace {
    /// Does RIP still point at the instruction that exited, or past it? That depends on KVM alone. RIP
    /// itself also depends on the compiler of the self-test guest.
    fn at_exiting_instruction(&self, moment: Moment) -> u8 {
        let mut opcode = [0];
        match self.ram.read(moment.check.rip, &mut opcode) {
            // IN, OUT and HLT.
            Ok(()) => u8::from(matches!(opcode[0], 0xe4..=0xe7 | 0xec..=0xef | 0xf4)),
            Err(_) => 0,
        }
    }
}

impl Source for Trace {
    type Error = Infallible;

    fn next(&mut self, view: &View) -> Result<Next<'_>, Infallible> {
        if view.ended.is_none() && view.moment.at.exit > MAX_POSITIONS {
            return Ok(Next::Stop);
        }
        Ok(self.time.next(view))
    }

    fn time(&mut self, _: Moment) -> Result<Option<u64>, Infallible> {
        Ok(Some(self.time.now_ns()))
    }
}

impl Sink for Trace {
    type Error = Infallible;

    fn output(&mut self, _: Moment, output: &Output) -> Result<(), Infallible> {
        self.hash.update(&output.data);
        Ok(())
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), Infallible> {
        self.hash.update(&moment.at.exit.to_le_bytes());
        self.hash.update(&[vector.unwrap_or(0)]);
        self.hash.update(&[self.at_exiting_instruction(moment)]);
        Ok(())
    }

    fn digest(&mut self, _: Moment, _: MachineDigest) -> Result<(), Infallible> {
        Ok(())
    }

    fn end(&mut self, moment: Moment, _: End) -> Result<(), Infallible> {
        self.hash.update(&moment.at.exit.to_le_bytes());
        Ok(())
    }
}
