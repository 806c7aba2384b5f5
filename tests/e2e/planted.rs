//! Every check must be seen to fire. Faults of each type are planted into a good log, and its CRCs
//! corrected.

use crate::harness::{Done, LOCKSTEP, Scratch, record, replay_equal, run, text};
use ft_protocol::log::file::{read_all, write_all};
use ft_protocol::log::{Check, End, Entry, Event, Header, OutputMark, OutputPort, Position};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Changes of a value, with their names.
type Changes<T, const N: usize> = [(&'static str, fn(&mut T)); N];

/// A good log, into which faults are planted.
pub struct Sound {
    /// The directory that contains it, as `sound`.
    pub scratch: Scratch,
    header: Header,
    /// Its entries.
    pub entries: Vec<Entry>,
    image: std::path::PathBuf,
}

impl Sound {
    /// Records `guest`.
    pub fn of(guest: &str) -> Sound {
        let scratch = Scratch::new();
        record(guest, &scratch.join("sound"));
        Sound::open(scratch, "sound")
    }

    /// The recording in `scratch` under this name.
    pub fn open(scratch: Scratch, name: &str) -> Sound {
        let dir = scratch.join(name);
        let log = fs::File::open(dir.join("log")).expect("a log");
        let (header, entries, _) = read_all(log).expect("a sound log");
        replay_equal(&dir);
        Sound {
            header,
            entries,
            image: dir.join("guest.elf"),
            scratch,
        }
    }

    /// Replays the log after `change`.
    pub fn replay(&self, change: impl FnOnce(&mut Header, &mut Vec<Entry>)) -> Done {
        let dir = self.scratch.join("planted");
        fs::create_dir_all(&dir).expect("made");
        let (mut header, mut entries) = (self.header.clone(), self.entries.clone());
        change(&mut header, &mut entries);
        let log = fs::File::create(dir.join("log")).expect("made");
        write_all(std::io::BufWriter::new(log), &header, &entries).expect("written");
        fs::copy(&self.image, dir.join("guest.elf")).expect("copied");
        run(["replay", &text(&dir), "--json"])
    }

    /// Replays the log after `change`, which must be detected: status 3, and a position. Returns the
    /// message.
    #[track_caller]
    pub fn caught(&self, what: &str, change: impl FnOnce(&mut Vec<Entry>)) -> String {
        let done = self.replay(|_, entries| change(entries));
        diverged(what, done)
    }

    /// The times that `ticker` printed, nanoseconds.
    fn printed(&self) -> Vec<u64> {
        let out = run(["replay", &self.scratch.arg("sound")]).expect(0).stdout;
        let words = out.split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    }

    /// Three entries of a kind: the first, one in the middle, the last.
    pub fn some(&self, kind: impl Fn(&Event) -> bool) -> Vec<usize> {
        let is = |&i: &usize| kind(&self.entries[i].event);
        let all: Vec<usize> = (0..self.entries.len()).filter(is).collect();
        assert!(!all.is_empty(), "the recording has none");
        let mut some = vec![all[0], all[all.len() / 2], all[all.len() - 1]];
        some.dedup();
        some
    }
}

/// Fails unless a replay found a divergence and named its position. Returns the message.
#[track_caller]
pub fn diverged(what: &str, done: Done) -> String {
    assert_eq!(done.status, Some(3), "{what}: {done:#?}");
    let verdict = done.json();
    assert_eq!(verdict["ok"], false, "{what}: {verdict}");
    assert_eq!(verdict["diverged"], true, "{what}: {verdict}");
    let sentence = done.one_sentence(3);
    assert!(sentence.contains("at position "), "{what}: {sentence}");
    sentence
}

pub fn is_output(event: &Event) -> bool {
    matches!(event, Event::Output(_))
}

fn is_interrupt(event: &Event) -> bool {
    matches!(event, Event::Interrupt { .. })
}

pub fn is_time(event: &Event) -> bool {
    matches!(event, Event::Time { .. })
}

fn is_console_input(event: &Event) -> bool {
    matches!(event, Event::ConsoleInput { .. })
}

/// The clock entries that caused a timer interrupt at the same position.
fn ticking_clocks(sound: &Sound) -> Vec<usize> {
    let all: Vec<usize> = (0..sound.entries.len() - 1)
        .filter(|&i| {
            let (entry, next) = (&sound.entries[i], &sound.entries[i + 1]);
            let ticks = is_interrupt(&next.event) && entry.at == next.at;
            ticks && matches!(entry.event, Event::Clock { .. })
        })
        .collect();
    vec![all[0], all[all.len() / 2], all[all.len() - 1]]
}

/// A recording of `echo` with input from the console.
fn typed() -> Sound {
    let scratch = Scratch::new();
    let script = "printf 'one\\ntwo\\n' | \"$0\" run echo --record \"$1\"";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, LOCKSTEP])
        .arg(scratch.join("sound"));
    crate::harness::Process::start(&mut shell).end().expect(0);
    Sound::open(scratch, "sound")
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_log_written_back_unchanged_is_equal() {
    let done = Sound::of("ticker").replay(|_, _| {}).expect(0);
    assert_eq!(done.json()["ok"], true);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_dropped_entry_is_found() {
    let ticker = Sound::of("ticker");
    for (kind, places) in [
        ("clock", ticking_clocks(&ticker)),
        ("time", ticker.some(is_time)),
        ("interrupt", ticker.some(is_interrupt)),
        ("output", ticker.some(is_output)),
    ] {
        for at in places {
            ticker.caught(&format!("dropped {kind} {at}"), |log| drop(log.remove(at)));
        }
    }
    let echo = typed();
    for at in echo.some(is_console_input) {
        echo.caught(&format!("dropped console input {at}"), |log| {
            drop(log.remove(at))
        });
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_dropped_end_is_a_cut() {
    let done = Sound::of("ticker")
        .replay(|_, log| drop(log.pop()))
        .expect(0);
    assert_eq!(done.json()["cut"], true, "{done:#?}");
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_changed_input_is_found() {
    let ticker = Sound::of("ticker");
    // A clock value that the guest never read may differ. One that it printed may not.
    let seen = ticker.printed();
    for at in ticker.some(|event| matches!(event, Event::Clock { ns } if seen.contains(ns))) {
        ticker.caught(
            &format!("clock {at} a nanosecond later"),
            |log| match &mut log[at].event {
                Event::Clock { ns } => *ns += 1,
                other => panic!("{other:?}"),
            },
        );
    }
    // The time answer with which the timer was started, changed so that the first tick cannot have come
    // yet.
    let is_tick = |entry: &Entry| is_interrupt(&entry.event);
    let tick = ticker.entries.iter().position(is_tick).expect("a tick");
    let clock = |entry: &Entry| match entry.event {
        Event::Clock { ns } => Some(ns),
        _ => None,
    };
    let late = ticker.entries[..tick].iter().rev().find_map(clock);
    let starts = ticker.entries[..tick]
        .iter()
        .rposition(|entry| is_time(&entry.event));
    ticker.caught("a later answer", |log| {
        let ns = late.expect("a clock brings the tick");
        log[starts.expect("the timer was started")].event = Event::Time { ns };
    });
    let echo = typed();
    echo.caught("another byte typed", |log| {
        let typed = log.iter_mut().find_map(|entry| match &mut entry.event {
            Event::ConsoleInput { data } => data.first_mut(),
            _ => None,
        });
        *typed.expect("a byte") ^= 1;
    });
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_changed_output_is_found_in_each_of_its_parts() {
    let changes: Changes<OutputMark, 4> = [
        ("number", |mark| mark.number += 1),
        ("port", |mark| mark.port = OutputPort::Net),
        ("length", |mark| mark.len -= 1),
        ("hash", |mark| mark.hash ^= 1),
    ];
    let ticker = Sound::of("ticker");
    for (part, change) in changes {
        for at in ticker.some(is_output) {
            let said = ticker.caught(&format!("{part} of {at}"), |log| match &mut log[at].event {
                Event::Output(mark) => change(mark),
                other => panic!("{other:?}"),
            });
            assert!(said.contains("output"), "{said}");
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn another_interrupt_is_found_and_so_is_one_elsewhere() {
    for guest in ["ticker", "positions"] {
        let sound = Sound::of(guest);
        for at in sound.some(is_interrupt) {
            let what = format!("{guest}, interrupt {at}");
            let said = sound.caught(&format!("{what}: vector"), |log| match &mut log[at].event {
                Event::Interrupt { vector } => *vector ^= 1,
                other => panic!("{other:?}"),
            });
            assert!(said.contains("vector"), "{said}");
            let next = sound.entries[at].at.next();
            // With its check and without it: without, only the interrupt itself can be compared.
            for keep_check in [true, false] {
                sound.caught(&format!("{what}: later"), |log| {
                    let mut moved = log.remove(at);
                    moved.at = next;
                    moved.check = moved.check.filter(|_| keep_check);
                    let place = log.partition_point(|entry| entry.at <= next);
                    log.insert(place, moved);
                });
            }
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn another_vcpu_at_an_entry_is_found() {
    let sound = Sound::of("positions");
    let changes: Changes<Check, 2> = [
        ("RIP", |check| check.rip += 1),
        ("registers", |check| check.regs ^= 1),
    ];
    for kind in [is_output, is_interrupt] {
        for at in sound.some(kind) {
            for (part, change) in changes {
                let said = sound.caught(&format!("{part} at {at}"), |log| {
                    change(log[at].check.as_mut().expect("a check"));
                });
                assert!(said.contains(part), "{said}");
                let position = format!("at position {}", sound.entries[at].at);
                assert!(said.contains(&position), "{said}");
            }
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn another_machine_at_the_end_is_found_and_its_component_named() {
    let changes: Changes<End, 3> = [
        ("memory", |end| end.digest.ram ^= 1),
        ("vCPU", |end| end.digest.cpu ^= 1),
        ("devices", |end| end.digest.devices ^= 1),
    ];
    let ticker = Sound::of("ticker");
    for (component, change) in changes {
        let said = ticker.caught(component, |log| match log.last_mut() {
            Some(Entry {
                event: Event::End(end),
                ..
            }) => change(end),
            other => panic!("{other:?}"),
        });
        for (other, _) in changes {
            assert_eq!(said.contains(other), other == component, "{said}");
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_digest_on_the_way_is_checked_too() {
    // It runs long enough for a digest, which comes every second.
    let sound = Sound::of("compute");
    let digest = |event: &Event| matches!(event, Event::Digest(_) | Event::End(_));
    for at in sound.some(digest) {
        let said = sound.caught(&format!("digest {at}"), |log| match &mut log[at].event {
            Event::Digest(digest) => digest.ram ^= 1,
            Event::End(end) => end.digest.ram ^= 1,
            other => panic!("{other:?}"),
        });
        assert!(said.contains("memory"), "{said}");
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn another_order_is_found() {
    let ticker = Sound::of("ticker");
    for at in ticking_clocks(&ticker) {
        ticker.caught("the interrupt before its clock", |log| log.swap(at, at + 1));
    }
    let outputs = ticker.some(is_output);
    ticker.caught("two outputs exchanged", |log| {
        let second = log[outputs[1]].event.clone();
        log[outputs[1]].event = std::mem::replace(&mut log[outputs[0]].event, second);
    });
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_entry_that_the_guest_did_not_ask_for_is_found() {
    let mark = OutputMark {
        number: 1,
        port: OutputPort::Console,
        len: 1,
        hash: 0,
    };
    let added = [
        Event::Time { ns: 1 },
        Event::Output(mark),
        Event::Interrupt { vector: 0x20 },
        Event::ConsoleInput { data: vec![b'x'] },
        Event::ConsoleInput {
            data: vec![b'x'; 100_000],
        },
        Event::Clock { ns: 1 << 62 },
    ];
    let ticker = Sound::of("ticker");
    for event in added {
        for at in ticker.some(is_output) {
            ticker.caught(&format!("added {event:?} at {at}"), |log| {
                let entry = Entry {
                    at: log[at].at,
                    check: None,
                    event: event.clone(),
                };
                log.insert(at + 1, entry);
            });
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn another_beginning_is_found_at_the_end() {
    let changes: Changes<Header, 2> = [
        ("seed", |header| header.machine.seed ^= 1),
        ("wall clock", |header| header.machine.wall_ns += 1),
    ];
    let ticker = Sound::of("ticker");
    for (what, change) in changes {
        let done = ticker.replay(|header, _| change(header));
        let said = diverged(what, done);
        assert!(said.contains("memory"), "{said}");
    }
    let done = ticker.replay(|header, _| header.machine.mem_mib += 16);
    diverged("memory size", done);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_end_elsewhere_is_found() {
    let ticker = Sound::of("ticker");
    let outputs = ticker.some(is_output);
    ticker.caught("the log ends before the guest", |log| {
        let mut end = log.pop().expect("an end");
        log.truncate(outputs[1] + 1);
        (end.at, end.check) = (log[outputs[1]].at, None);
        log.push(end);
    });
    ticker.caught("the log goes on after the guest's end", |log| {
        let mut end = log.pop().expect("an end");
        end.at = Position::exit(end.at.exit + 5);
        log.push(end);
    });
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_recording_of_something_else_is_refused() {
    let ticker = Sound::of("ticker");
    let exits = ticker.replay(|header, _| header.host.exits ^= 1);
    let sentence = exits.one_sentence(2);
    assert!(sentence.contains("fingerprint"), "{sentence}");
    let hash = ticker.replay(|header, _| header.guest.hash ^= 1);
    assert!(hash.one_sentence(2).contains("guest image"));
    let mem = ticker.replay(|header, _| header.machine.mem_mib = 0);
    mem.one_sentence(2);

    let dir: &Path = &ticker.scratch.join("sound");
    fs::write(dir.join("guest.elf"), lockstep_images::HELLO).expect("written");
    let other = run(["replay", &text(dir)]).refused();
    assert!(other.contains("original"), "{other}");
    fs::remove_file(dir.join("guest.elf")).expect("removed");
    let none = run(["replay", &text(dir)]).refused();
    assert!(none.contains("guest image"), "{none}");
}
