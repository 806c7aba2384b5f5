//! Faults planted in the log of a guest with a network, across a failover.

use crate::harness::{Scratch, run};
use crate::planted::{Sound, is_output};
use ft_protocol::log::Event;

/// The log of the surviving backup of a drill.
fn survivor() -> Sound {
    let scratch = Scratch::new();
    let report = scratch.arg("drill");
    run(["drill", "kill-primary", "--report", &report]).expect(0);
    Sound::open(scratch, "drill/kill-primary-001/backup")
}

/// A frame with the client's command, which the guest uses.
fn is_request(event: &Event) -> bool {
    let incr = |data: &[u8]| data.windows(4).any(|word| word == b"INCR");
    matches!(event, Event::Frame { data } if incr(data))
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_frame_that_is_not_as_it_came_is_found() {
    let kv = survivor();
    for at in kv.some(is_request) {
        kv.caught(&format!("dropped frame {at}"), |log| drop(log.remove(at)));
        for (what, offset) in [("first", 0), ("last", usize::MAX)] {
            kv.caught(&format!("{what} byte of frame {at}"), |log| {
                let Event::Frame { data } = &mut log[at].event else {
                    panic!("a frame")
                };
                let offset = offset.min(data.len() - 1);
                data[offset] ^= 0x40;
            });
        }
        kv.caught(&format!("frame {at} twice"), |log| {
            log.insert(at, log[at].clone());
        });
    }
    for at in kv.some(is_output) {
        kv.caught(&format!("dropped output {at}"), |log| drop(log.remove(at)));
    }
    let frames = kv.some(is_request);
    kv.caught("two frames exchanged", |log| {
        let second = log[frames[1]].event.clone();
        log[frames[1]].event = std::mem::replace(&mut log[frames[0]].event, second);
    });
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn frames_that_no_network_sends_are_no_panic() {
    let kv = survivor();
    let frames = kv.some(is_request);
    for length in [0, 1, 13, 1515, 65_536] {
        kv.caught(&format!("a frame of {length} bytes"), |log| {
            log[frames[1]].event = Event::Frame {
                data: vec![0; length],
            };
        });
    }
}
