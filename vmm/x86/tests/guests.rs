//! The guests that ship, on this CPU and on KVM: the same exits, outputs and memory.

use ft_protocol::log::{End, EndReason, MachineConfig, MachineDigest};
use lockstep_devices::Output;
use lockstep_loader::Image;
use lockstep_machine::edge::{Moment, Next, Sink, Source, View};
use lockstep_machine::fingerprint::self_test;
use lockstep_machine::made_up::MadeUpTime;
use lockstep_machine::{Machine, drive};
use lockstep_vcpu::CpuBackend;
use std::convert::Infallible;

const SOFT: &dyn CpuBackend = &lockstep_x86::Soft;
const KVM: &dyn CpuBackend = &lockstep_kvm::Kvm;

/// Made-up time between two positions, nanoseconds.
const STEP_NS: u64 = 40_000;
const MEM_MIB: u32 = 32;

/// A world without a clock.
struct World {
    time: MadeUpTime,
    outputs: Vec<u8>,
    trace: Vec<Moment>,
    end: Option<End>,
}

impl Source for World {
    type Error = Infallible;

    fn next(&mut self, view: &View) -> Result<Next<'_>, Infallible> {
        Ok(self.time.next(view))
    }

    fn time(&mut self, _: Moment) -> Result<Option<u64>, Infallible> {
        Ok(Some(self.time.now_ns()))
    }
}

impl Sink for World {
    type Error = Infallible;

    fn output(&mut self, _: Moment, output: &Output) -> Result<(), Infallible> {
        self.outputs.extend(&output.data);
        Ok(())
    }

    fn leave(&mut self, moment: Moment, _: Option<u8>) -> Result<(), Infallible> {
        self.trace.push(moment);
        Ok(())
    }

    fn digest(&mut self, _: Moment, _: MachineDigest) -> Result<(), Infallible> {
        Ok(())
    }

    fn end(&mut self, _: Moment, end: End) -> Result<(), Infallible> {
        self.end = Some(end);
        Ok(())
    }
}

/// What a guest does until it ends.
fn world(cpu: &dyn CpuBackend, name: &str) -> World {
    let image = lockstep_images::find(name).expect("it ships").to_vec();
    let image = Image::parse(name, image).expect("it is an image");
    let mut machine = Machine::new(cpu, &MachineConfig::new(MEM_MIB), &image).expect("a machine");
    let mut world = World {
        time: MadeUpTime::new(STEP_NS),
        outputs: Vec::new(),
        trace: Vec::new(),
        end: None,
    };
    drive(&mut machine, &mut world).unwrap_or_else(|error| panic!("{name}: {error}"));
    world
}

fn same(name: &str) {
    let (ours, theirs) = (world(SOFT, name), world(KVM, name));
    let (ours_end, theirs_end) = (ours.end.expect("an end"), theirs.end.expect("an end"));
    let text = |outputs: &[u8]| String::from_utf8_lossy(outputs).into_owned();
    assert_eq!(text(&ours.outputs), text(&theirs.outputs), "{name}");
    let differs = (0..ours.trace.len()).find(|n| ours.trace.get(*n) != theirs.trace.get(*n));
    if let Some(at) = differs {
        let theirs = theirs.trace.get(at);
        panic!(
            "{name}, exit {at}: here {:?}, on KVM {theirs:?}",
            ours.trace[at]
        );
    }
    assert_eq!(ours_end, theirs_end, "{name}");
    assert!(matches!(ours_end.reason, EndReason::Exited { status: 0 }));
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn hello_says_the_same_as_on_kvm() {
    same("hello");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn ticker_ticks_as_on_kvm() {
    same("ticker");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn compute_computes_the_same_as_on_kvm() {
    same("compute");
}

/// Interrupts at every kind of position.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_self_test_guest_makes_the_same_exits_as_on_kvm() {
    let (ours, theirs) = (self_test(SOFT).unwrap(), self_test(KVM).unwrap());
    assert_eq!(ours, theirs);
}
