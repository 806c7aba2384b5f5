//! Moving a machine's state, by the library's functions: a machine that follows a recording is saved,
//! dropped and restored again and again, and ends as if nothing had happened.

use crate::harness::{Random, Scratch, backend, run};
use crate::replay::KINDS;
use ft_protocol::log::{End, Header, MachineDigest};
use lockstep_backends::console::{ConsoleChoice, ConsoleOutput, Hurry};
use lockstep_backends::live::Direct;
use lockstep_devices::Output;
use lockstep_machine::drive::drive;
use lockstep_machine::{DriveError, Machine, MachineState, Moment, Next, Sink, Source, View};
use lockstep_memory::pages::CHUNK_PAGES;
use lockstep_memory::ram::PAGE;
use lockstep_memory::{PageReceiver, PageSender, PageSet, Ram, RamDigest};
use lockstep_replay::dir::LogFile;
use lockstep_replay::{FollowError, Follower, LogDir};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

type Edge = Follower<LogFile, Direct>;

/// A following edge that asks for the machine's state at random positions.
pub struct Moving {
    pub follower: Edge,
    random: Random,
    /// Most positions between two captures, depending on the number of outputs so far.
    every: fn(u64) -> usize,
    next: Cell<u64>,
    /// How often completing the instruction for a capture caused another exit.
    split: Cell<u64>,
    captured: Option<MachineState>,
    /// Capture only where a position was left, where all outputs are confirmed.
    pub only_left: bool,
    /// Number of captures where a position was left, and of those where the guest waits.
    left: u64,
    waiting: u64,
    /// Number of captures, by the number of outputs before them.
    phases: BTreeMap<u64, u64>,
}

#[derive(Debug)]
pub enum Stopped {
    Followed(FollowError),
    Captured,
}

impl Moving {
    fn due(&self) -> bool {
        match self.next.get() {
            0 => true,
            left => {
                self.next.set(left - 1);
                false
            }
        }
    }
}

impl Source for Moving {
    type Error = Stopped;

    fn next(&mut self, view: &View) -> Result<Next<'_>, Stopped> {
        if view.wait.is_some() && self.next.get() == 0 && !self.only_left {
            return Ok(Next::Capture);
        }
        self.follower.next(view).map_err(Stopped::Followed)
    }

    fn time(&mut self, moment: Moment) -> Result<Option<u64>, Stopped> {
        self.follower.time(moment).map_err(Stopped::Followed)
    }

    fn wants_state(&self) -> bool {
        let due = self.due();
        self.split.set(self.split.get() + u64::from(due));
        due
    }

    fn take_state(&mut self, machine: &mut Machine) -> Result<(), Stopped> {
        let state = machine.save().expect("it can be saved");
        self.left += u64::from(state.left());
        self.waiting += u64::from(!state.left());
        self.split.set(self.split.get() - u64::from(state.left()));
        self.captured = Some(state);
        let outputs = self.follower.followed().outputs;
        *self.phases.entry(outputs).or_default() += 1;
        self.next
            .set(self.random.below((self.every)(outputs)) as u64);
        Err(Stopped::Captured)
    }
}

impl Sink for Moving {
    type Error = Stopped;

    fn output(&mut self, moment: Moment, output: &Output) -> Result<(), Stopped> {
        self.follower
            .output(moment, output)
            .map_err(Stopped::Followed)
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), Stopped> {
        self.follower
            .leave(moment, vector)
            .map_err(Stopped::Followed)
    }

    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), Stopped> {
        self.follower
            .digest(moment, digest)
            .map_err(Stopped::Followed)
    }

    fn end(&mut self, moment: Moment, end: End) -> Result<(), Stopped> {
        self.follower.end(moment, end).map_err(Stopped::Followed)
    }
}

fn copy(from: &Ram) -> Ram {
    let to = Ram::new((from.len() >> 20) as u32).expect("as large as the other");
    let mut content = vec![0; from.len()];
    from.read(0, &mut content).expect("it is that long");
    to.write(0, &content).expect("it is as long");
    to
}

/// A machine at the beginning of the recording in `dir`, and its edge.
pub fn following(dir: &Path) -> (Header, Machine, Moving) {
    let dir = LogDir::open(dir);
    let log = dir.log().expect("a log");
    let header = log.header().clone();
    let image = dir.image(&header).expect("its image");
    let machine =
        Machine::new(backend(header.machine.cpu), &header.machine, &image).expect("a machine");
    let console = ConsoleOutput::open(&ConsoleChoice::None).expect("no console");
    let hurry = Hurry::new().expect("a descriptor");
    let edge = Moving {
        follower: Follower::new(log, Direct::new(None, console, hurry), None),
        random: Random::new(),
        every: |_| usize::MAX,
        next: Cell::new(0),
        split: Cell::new(0),
        captured: None,
        only_left: false,
        left: 0,
        waiting: 0,
        phases: BTreeMap::new(),
    };
    (header, machine, edge)
}

/// Drives `machine` until its state was captured, within this many positions.
pub fn capture(mut machine: Machine, edge: &mut Moving, within: usize) -> (Machine, MachineState) {
    edge.next.set(1 + edge.random.below(within) as u64);
    match drive(&mut machine, edge) {
        Err(DriveError::Edge(Stopped::Captured)) => {}
        other => panic!("{other:?}"),
    }
    (machine, edge.captured.take().expect("it was captured"))
}

/// Replays the recording in `dir` on a sequence of machines, each restored from the one before.
fn move_along(dir: &Path, every: fn(u64) -> usize) -> Moving {
    let (header, mut machine, mut edge) = following(dir);
    edge.every = every;
    loop {
        match drive(&mut machine, &mut edge) {
            Ok(_) => return edge,
            Err(DriveError::Edge(Stopped::Captured)) => {
                let state = edge.captured.take().expect("it was captured");
                let decoded = MachineState::decode(&state.encode()).expect("sound");
                assert_eq!(decoded, state);
                let ram = copy(machine.ram());
                let digest = RamDigest::of(&ram);
                machine = Machine::restore(
                    backend(header.machine.cpu),
                    &header.machine,
                    ram,
                    digest,
                    &decoded,
                )
                .unwrap_or_else(|e| panic!("{e}"));
                let again = machine.save().expect("it can be saved");
                assert_eq!(again.components(), state.components());
            }
            Err(DriveError::Edge(Stopped::Followed(error))) => panic!("{error}"),
            Err(DriveError::Machine(error)) => panic!("{error}"),
        }
    }
}

/// Records `guest` and replays it with [`move_along`].
fn moved(guest: &str, every: fn(u64) -> usize) -> Moving {
    let scratch = Scratch::new();
    let dir = scratch.arg(guest);
    run(["run", guest, "--mem", "32", "--record", &dir]).expect(0);
    let edge = move_along(&scratch.join(guest), every);
    println!(
        "{guest}: moved {} times after a position and {} at one, {} took another exit",
        edge.left,
        edge.waiting,
        edge.split.get()
    );
    assert!(edge.follower.followed().end.is_some());
    assert!(edge.left > 10, "{guest}");
    edge
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_machine_that_moves_ends_as_one_that_stays() {
    moved("chaos", |_| 400);
    moved("threads", |_| 500);
    moved("compute", |_| 40);
    let ticker = moved("ticker", |_| 20);
    assert!(ticker.waiting > 0);
}

/// Moved in the middle of every kind of instruction that exits.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_machine_moves_at_every_kind_of_position() {
    let edge = moved("positions", |outputs| match outputs {
        // So often that each kind is met several times whatever the seed is: at few positions the guest
        // halts or idles, many are in handlers.
        0..5 => 10,
        5 => 5,
        6 | 7 => 2,
        8 => 100,
        _ => 20,
    });
    for (outputs, kind) in KINDS.into_iter().enumerate() {
        let moves = edge.phases.get(&(outputs as u64)).copied().unwrap_or(0);
        assert!(moves >= 2, "{kind}: {:?}", edge.phases);
    }
    assert!(edge.waiting > 0, "{:?}", edge.phases);
}

/// Moved at HLT with a pending debug exception: it is taken after the move, and no other one is.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_machine_moves_with_an_exception_due() {
    moved("traps", |_| 10);
}

/// What a new backup does: memory is copied while the guest runs. Then the machine rests, the last
/// pages and the state follow, and the other machine goes on.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn memory_copied_while_the_guest_runs_is_the_machines_at_the_stop() {
    let scratch = Scratch::new();
    for (guest, exits) in [("chaos", 1500), ("compute", 300)] {
        let dir = scratch.arg(guest);
        run(["run", guest, "--record", &dir]).expect(0);
        copy_while_running(&scratch.join(guest), exits);
    }
}

/// Copies at most so often while the guest runs.
const MOST_ROUNDS: u32 = 2000;

fn copy_while_running(dir: &Path, exits: usize) {
    let (header, machine, mut edge) = following(dir);
    let (reader, ram) = (machine.dirty_pages(), machine.ram().clone());
    let stopped = AtomicBool::new(false);
    let ((mut sender, mut receiver, rounds), (machine, state)) = thread::scope(|scope| {
        let stopped = &stopped;
        let copier = scope.spawn(move || {
            let mut sender = PageSender::new(&ram);
            let mut receiver = PageReceiver::new(Ram::new((ram.len() >> 20) as u32).expect("room"));
            let mut rounds = 0;
            // A round that begins after the machine stopped is the last one. Each round has KVM protect the pages
            // that it copies: with no end of rounds the guest would hardly get on.
            loop {
                while rounds >= MOST_ROUNDS && !stopped.load(Ordering::Acquire) {
                    thread::park();
                }
                let last = stopped.load(Ordering::Acquire);
                transfer(&reader.take().expect("read"), &mut sender, &mut receiver);
                rounds += 1;
                if last {
                    return (sender, receiver, rounds);
                }
            }
        });
        let captured = capture(machine, &mut edge, exits);
        stopped.store(true, Ordering::Release);
        copier.thread().unpark();
        (copier.join().expect("it only copies"), captured)
    });
    assert!(rounds > 1, "{rounds}");
    let whole = RamDigest::of(machine.ram());
    assert_eq!(
        (sender.digest(), receiver.digest()),
        (whole.value(), whole.value())
    );
    println!("{rounds} rounds, {:?}", sender.stats());
    // One byte of one page is changed, and it shows.
    let page = machine.ram().pages() / 2;
    let mut byte = [0];
    let at = (page * PAGE) as u64 + 7;
    machine.ram().read(at, &mut byte).expect("it lies there");
    machine.ram().write(at, &[!byte[0]]).expect("it lies there");
    receiver.take(&sender.chunk(&[page])).expect("sound");
    assert_ne!(receiver.digest(), whole.value());
    machine.ram().write(at, &byte).expect("it lies there");
    receiver.take(&sender.chunk(&[page])).expect("sound");

    let (ram, digest) = receiver.into_parts();
    drop(machine);
    let mut other = Machine::restore(
        backend(header.machine.cpu),
        &header.machine,
        ram,
        digest,
        &state,
    )
    .unwrap_or_else(|e| panic!("{e}"));
    edge.next.set(u64::MAX);
    match drive(&mut other, &mut edge) {
        Ok(_) => assert!(edge.follower.followed().end.is_some()),
        Err(DriveError::Edge(Stopped::Followed(error))) => panic!("{error}"),
        Err(DriveError::Edge(Stopped::Captured)) => panic!("nobody wanted it"),
        Err(DriveError::Machine(error)) => panic!("{error}"),
    }
}

fn transfer(pages: &PageSet, sender: &mut PageSender, receiver: &mut PageReceiver) {
    let pages: Vec<usize> = pages.iter().collect();
    for pages in pages.chunks(CHUNK_PAGES) {
        receiver.take(&sender.chunk(pages)).expect("sound");
    }
}
