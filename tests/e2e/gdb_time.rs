//! Time travel by the library's functions: whatever way a session comes to a moment, the machine is the same.

use crate::harness::{Random, Scratch, record, run, text};
use crate::soft::own_with;
use ft_protocol::log::EndReason;
use lockstep_backends::console::{ConsoleChoice, ConsoleOutput, Hurry};
use lockstep_backends::live::Direct;
use lockstep_debug::{Ending, Halt, Session};
use lockstep_machine::Machine;
use lockstep_replay::LogDir;
use lockstep_vcpu::debug::{Watched, Watchpoint, When};
use lockstep_x86::Soft;
use std::collections::BTreeMap;
use std::path::Path;

/// A session at the beginning of the recording.
fn session(dir: &Path, most_bytes: usize) -> Session {
    let dir = LogDir::open(dir);
    let log = dir.log().expect("a log");
    let header = log.header().clone();
    let image = dir.image(&header).expect("its image");
    let machine = Machine::new(&Soft, &header.machine, &image).expect("a machine");
    let console = ConsoleOutput::open(&ConsoleChoice::None).expect("no console");
    let outlet = Direct::new(None, console, Hurry::new().expect("a descriptor"));
    Session::new(&Soft, log, machine, Box::new(outlet), most_bytes).expect("a session")
}

fn go(session: &mut Session, to: When) -> When {
    session.seek(to, &mut || false).expect("it goes there");
    session.when()
}

/// Goes to the end, and says how many steps that is.
fn end(session: &mut Session) -> u64 {
    let halt = session.resume(&mut || false).expect("it runs");
    assert_eq!(halt, Halt::End);
    let ended = session.ended().expect("it has ended").clone();
    assert!(
        matches!(ended, Ending::Ended(EndReason::Exited { .. })),
        "{ended:?}"
    );
    session.when().steps
}

/// Goes around at random, and looks whether each moment is always the same.
fn wander(dir: &Path, most_bytes: usize, rounds: usize) {
    let mut random = Random::new();
    let mut session = session(dir, most_bytes);
    let steps = end(&mut session);
    let mut seen: BTreeMap<When, String> = BTreeMap::new();
    let mut compared = 0;
    for _ in 0..rounds {
        // Often where it was before.
        let known: Vec<When> = seen.keys().copied().collect();
        let to = match random.below(2) {
            0 if !known.is_empty() => known[random.below(known.len())],
            _ => When::step(random.below(steps as usize) as u64),
        };
        let mut now = go(&mut session, to);
        for turn in 0..random.below(4) {
            let parts = session.parts().expect("it has parts").to_string();
            compared += usize::from(seen.contains_key(&now));
            let first = seen.entry(now).or_insert_with(|| parts.clone());
            assert_eq!(*first, parts, "{now:?}, turn {turn}");
            match random.below(2) {
                0 => session.step().expect("it steps"),
                _ => session.step_back().expect("it steps back"),
            };
            let then = std::mem::replace(&mut now, session.when());
            assert!(now.steps.abs_diff(then.steps) <= 1, "{then:?} {now:?}");
        }
    }
    assert!(compared > 0, "{} moments", seen.len());
    // And everything that follows is as the log has it.
    assert_eq!(end(&mut session), steps);
}

#[test]
fn a_moment_is_the_same_whatever_way_leads_there() {
    let scratch = Scratch::new();
    let image = own_with(&scratch, "primes.c", &[]);
    let dir = scratch.join("primes.log");
    run(["run", &image, "--record", &text(&dir)]).expect(0);
    wander(&dir, 1 << 30, 60);
    // So little that most checkpoints are dropped.
    wander(&dir, 200 << 10, 20);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn so_is_one_of_a_log_of_kvm() {
    let scratch = Scratch::new();
    for guest in ["traps", "positions"] {
        let dir = scratch.join(guest);
        record(guest, &dir);
        wander(&dir, 1 << 30, 30);
    }
}

/// Every write to a counter, found forwards, is found backwards in the opposite order, one moment earlier.
#[test]
fn what_stops_the_guest_forwards_stops_it_backwards() {
    let scratch = Scratch::new();
    let image = own_with(&scratch, "primes.c", &[]);
    let dir = scratch.join("primes.log");
    run(["run", &image, "--record", &text(&dir)]).expect(0);
    let mut session = session(&dir, 1 << 30);
    let ticks = symbol(&image, "ticks");
    let watched = Watchpoint {
        address: ticks,
        len: 8,
        kind: Watched::Write,
    };
    session.set_watchpoints(vec![watched]);
    session.set_breakpoints(vec![symbol(&image, "tick")]);
    let mut forwards = Vec::new();
    loop {
        match session.resume(&mut || false).expect("it runs") {
            Halt::End => break,
            halt => forwards.push((halt, session.when())),
        }
    }
    let mut backwards = Vec::new();
    loop {
        match session.resume_back(&mut || false).expect("it runs") {
            Halt::Beginning => break,
            halt => backwards.push((halt, session.when())),
        }
    }
    // The counter is written by the handler's first instruction: both stop in one place backwards.
    let handlers: Vec<When> = forwards
        .iter()
        .filter(|(halt, _)| *halt == Halt::Breakpoint)
        .map(|(_, when)| *when)
        .collect();
    assert_eq!(forwards.len(), 2 * handlers.len());
    assert!(handlers.len() >= 500);
    let expected: Vec<When> = handlers.into_iter().rev().collect();
    let found: Vec<When> = backwards.iter().map(|(_, when)| *when).collect();
    assert_eq!(found, expected);
}

/// Every access of every instruction is looked at. The guest does the same: all that the log says is compared.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_guest_does_not_notice_that_all_its_memory_is_watched() {
    let scratch = Scratch::new();
    let dir = scratch.join("hello");
    record("hello", &dir);
    let mut session = session(&dir, 1 << 30);
    session.set_watchpoints(vec![Watchpoint {
        address: 0,
        len: 1 << 32,
        kind: Watched::Access,
    }]);
    let mut stops = 0u64;
    while session.resume(&mut || false).expect("it runs") != Halt::End {
        stops += 1;
    }
    let ended = session.ended().expect("it has ended");
    assert!(
        matches!(ended, Ending::Ended(EndReason::Exited { status: 0 })),
        "{ended:?}"
    );
    let steps = session.when().steps;
    println!("{stops} stops in {steps} steps");
    assert!(stops > steps / 10, "{stops} of {steps}");
}

/// The address of a symbol.
fn symbol(image: &str, name: &str) -> u64 {
    use object::{Object, ObjectSymbol};
    let bytes = std::fs::read(image).expect("an image");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let symbol = file.symbol_by_name(name).expect("it has the symbol");
    symbol.address()
}
