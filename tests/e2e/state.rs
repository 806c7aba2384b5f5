//! State transfer at the level of the library: a machine that follows a recording is saved, thrown away
//! and restored again and again, and ends as if nothing had happened.

use crate::harness::{Random, Scratch, run};
use ft_protocol::log::{End, MachineDigest};
use lockstep::backends::console::{ConsoleChoice, ConsoleOutput};
use lockstep::backends::live::Direct;
use lockstep::devices::Output;
use lockstep::machine::drive::drive;
use lockstep::machine::{DriveError, Machine, MachineState, Moment, Next, Sink, Source, View};
use lockstep::memory::{Ram, RamDigest};
use lockstep::replay::dir::LogFile;
use lockstep::replay::{FollowError, Follower, LogDir};
use std::cell::Cell;
use std::path::Path;

type Edge = Follower<LogFile, Direct>;

/// A following edge that wants the machine's state at random positions.
struct Moving {
    follower: Edge,
    random: Random,
    /// Positions between two captures, at most.
    every: usize,
    next: Cell<u64>,
    /// States wanted where finishing the instruction took another exit.
    split: Cell<u64>,
    captured: Option<MachineState>,
    /// Captures of a position that was left, and of one where the guest waits.
    left: u64,
    waiting: u64,
}

enum Stopped {
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

    fn next(&mut self, view: &View) -> Result<Next, Stopped> {
        if view.wait.is_some() && self.next.get() == 0 {
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
        self.next.set(self.random.below(self.every) as u64);
        Err(Stopped::Captured)
    }
}

impl Sink for Moving {
    type Error = Stopped;

    fn output(&mut self, moment: Moment, output: Output) -> Result<(), Stopped> {
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

/// Replays the recording in `dir` on machines that are restored from each other.
fn move_along(dir: &Path, every: usize) -> Moving {
    let dir = LogDir::open(dir);
    let log = dir.log().expect("a log");
    let header = log.header().clone();
    let image = dir.image(&header).expect("its image");
    let mut machine = Machine::new(&header.machine, &image).expect("a machine");
    let console = ConsoleOutput::open(&ConsoleChoice::None).expect("no console");
    let mut edge = Moving {
        follower: Follower::new(log, Direct::new(None, console), None),
        random: Random::new(),
        every,
        next: Cell::new(0),
        split: Cell::new(0),
        captured: None,
        left: 0,
        waiting: 0,
    };
    loop {
        match drive(&mut machine, &mut edge) {
            Ok(_) => return edge,
            Err(DriveError::Edge(Stopped::Captured)) => {
                let state = edge.captured.take().expect("it was captured");
                let decoded = MachineState::decode(&state.encode()).expect("sound");
                assert_eq!(decoded, state);
                let ram = copy(machine.ram());
                let digest = RamDigest::of(&ram);
                machine = Machine::restore(&header.machine, ram, digest, &decoded)
                    .unwrap_or_else(|e| panic!("{e}"));
                let again = machine.save().expect("it can be saved");
                assert_eq!(again.components(), state.components());
            }
            Err(DriveError::Edge(Stopped::Followed(error))) => panic!("{error}"),
            Err(DriveError::Machine(error)) => panic!("{error}"),
        }
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_machine_that_moves_ends_as_one_that_stays() {
    let scratch = Scratch::new();
    for (guest, every) in [
        ("chaos", 400),
        ("threads", 100),
        ("ticker", 20),
        ("compute", 20),
        ("positions", 300),
    ] {
        let dir = scratch.arg(guest);
        run(["run", guest, "--mem", "32", "--record", &dir]).expect(0);
        let edge = move_along(&scratch.join(guest), every);
        let followed = edge.follower.followed();
        println!(
            "{guest}: {followed:?}, moved {} times after a position and {} at one, {} took another exit",
            edge.left,
            edge.waiting,
            edge.split.get()
        );
        assert!(followed.end.is_some());
        assert!(edge.left > 10, "{guest}");
    }
}
