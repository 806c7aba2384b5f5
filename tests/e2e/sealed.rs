//! What opens files and sockets, and starts threads and processes, is done before the guest runs, or by
//! threads of its own: those of the vCPU and of the runtime are sealed here, and a member whose thread
//! breaks the seal is killed.

use crate::harness::Scratch;
use crate::join::joiner;
use crate::member::{Member, Told, echo, free_address, pair, stage};
use rustix::process::Signal;

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_sealed_vm_outlives_its_hosts() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let fenced = scratch.arg("fenced");
    let fence = format!("echo $LOCKSTEP_GENERATION >> {fenced}");
    let told = Told::new(&scratch)
        .planting("sealed")
        .and(&["--fence", &fence]);
    let mut at = told.channel.clone();
    let mut live = Member::primary(&scratch, "primary", "echo", &told);
    for round in 1..=3 {
        let listen = free_address();
        let name = format!("backup-{round}");
        // From the second round on, it joins a machine that runs: this is copied.
        let mut next = Member::backup(&scratch, &name, &joiner(&told, &at, &listen));
        next.await_event("joined");
        let event = match round {
            1 => "started",
            _ => "protected",
        };
        live.await_event(event);
        echo(&mut live, &format!("line {round}"));
        live.kill();
        next.await_event("live");
        echo(&mut next, "live");
        (live, at) = (next, listen);
    }
    live.process.end_input();
    live.process.end().expect(0);
    let generations = std::fs::read_to_string(&fenced).expect("the fence's file");
    assert_eq!(generations, "1\n2\n3\n");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_sealed_primary_goes_on_alone_and_ends_well() {
    let (_stage, scratch) = (stage(), Scratch::new());
    let told = Told::new(&scratch).planting("sealed");
    let (mut primary, backup) = pair(&scratch, "echo", &told);
    backup.kill();
    primary.await_event("solo");
    echo(&mut primary, "alone");
    primary.process.signal(Signal::TERM);
    primary.process.end().expect(0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_broken_seal_is_noticed() {
    let (_stage, scratch) = (stage(), Scratch::new());
    for (number, breaks) in ["vcpu-breaks-seal:2", "runtime-breaks-seal"]
        .iter()
        .enumerate()
    {
        let mut told = Told::new(&scratch);
        told.vm = format!("vm-{number}");
        let [primary, backup] = ["primary", "backup"].map(|side| format!("{side}-{number}"));
        let primary = Member::primary(&scratch, &primary, "echo", &told.planting(breaks));
        let mut backup = Member::backup(&scratch, &backup, &told);
        let done = primary.process.end();
        assert_eq!(done.signal, Some(Signal::SYS.as_raw()), "{done:#?}");
        backup.await_event("live");
    }
}
