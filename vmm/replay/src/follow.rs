//! The following edge: inputs come from a log, and everything that the machine does is compared with
//! the log. A replay follows a file, a backup follows the logging channel.

use ft_protocol::log::{
    Check, Control, End, EndReason, Entry, Event, LogError, MachineDigest, OutputMark, Position,
};
use lockstep_devices::Output;
use lockstep_machine::world::Outlet;
use lockstep_machine::{Input, Moment, Next, Sink, Source, View, output_hash};
use std::collections::VecDeque;
use thiserror::Error;

mod state;

pub use state::FollowerState;

/// A stream of entries.
pub trait Entries {
    /// The next entry. Waits for it if the log may still grow. `None` means that no more will come.
    fn next(&mut self) -> Result<Option<Entry>, LogError>;

    /// The next entry, if it is there; the guest can be entered without it. This may wait only if the
    /// guest was `kicked`, for a follower that must know whether the log has ended.
    fn ahead(&mut self, kicked: bool) -> Result<Ahead, LogError>;
}

/// The result of [`Entries::ahead`].
#[derive(Debug)]
pub enum Ahead {
    /// The next entry.
    Entry(Entry),
    /// There is none yet.
    Nothing,
    /// No more will come.
    End,
}

/// The machine did something else than the log says (invariant I6).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("diverged at position {at}: {what}")]
pub struct Divergence {
    /// The position at which the difference showed.
    pub at: Position,
    /// What differs.
    pub what: String,
}

/// Why following stopped.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The machine diverged from the log.
    #[error(transparent)]
    Diverged(#[from] Divergence),
    /// The log cannot be read any further.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An output cannot be kept or printed.
    #[error("an output of the guest cannot be written: {0}")]
    Outlet(#[from] std::io::Error),
}

/// How far a follower has got, and what it has compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Number of entries that were consumed.
    pub entries: u64,
    /// Number of the last output.
    pub outputs: u64,
    /// Outputs whose hash was compared.
    pub outputs_checked: u64,
    /// Digests compared, the one at the end included.
    pub digests: u64,
    /// Interrupts compared.
    pub interrupts: u64,
    /// Number of control entries.
    pub go_lives: u64,
    /// The digest at the end, if the log had one.
    pub end: Option<End>,
}

/// An input out of the log.
#[derive(Debug)]
enum Applied {
    Clock { ns: u64 },
    Frame { data: Vec<u8> },
    Console { data: Vec<u8> },
    Entropy { data: Vec<u8> },
}

impl Applied {
    /// As the machine takes it.
    fn input(&self) -> Input<'_> {
        match self {
            Applied::Clock { ns } => Input::Clock { ns: *ns },
            Applied::Frame { data } => Input::Frame { data },
            Applied::Console { data } => Input::Console { data },
            Applied::Entropy { data } => Input::Entropy { data },
        }
    }
}

/// What an entry asks for.
enum Step {
    /// Apply the input that is to be applied.
    Apply,
    Digest,
    Finish(EndReason),
}

/// The following edge.
pub struct Follower<S, O> {
    entries: S,
    outlet: O,
    ahead: Option<Entry>,
    /// All entries before this exit are known.
    horizon: u64,
    exhausted: bool,
    /// The exit at which to stop, without leaving it.
    until: Option<u64>,
    /// Outputs of the guest that no entry has confirmed yet, oldest first.
    unconfirmed: VecDeque<OutputMark>,
    /// The input that is applied.
    applied: Applied,
    vector: Option<u8>,
    expected_digest: Option<MachineDigest>,
    expected_end: Option<End>,
    followed: Followed,
}

impl<S: Entries, O: Outlet> Follower<S, O> {
    /// Follows `entries`. The guest's outputs go to `outlet`.
    pub fn new(entries: S, outlet: O, until: Option<u64>) -> Follower<S, O> {
        Follower {
            entries,
            outlet,
            ahead: None,
            horizon: 0,
            exhausted: false,
            until,
            unconfirmed: VecDeque::new(),
            applied: Applied::Clock { ns: 0 },
            vector: None,
            expected_digest: None,
            expected_end: None,
            followed: Followed::default(),
        }
    }

    /// The same, for a machine that had emitted `outputs` outputs before the first entry.
    pub fn after_outputs(mut self, outputs: u64) -> Follower<S, O> {
        self.followed.outputs = outputs;
        self
    }

    /// How far it has got, and what it has compared.
    pub fn followed(&self) -> Followed {
        self.followed
    }

    /// Outputs that the guest emitted and that the log does not have, because it ended before.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &OutputMark> {
        self.unconfirmed.iter()
    }

    /// The entries and the outlet.
    pub fn into_parts(self) -> (S, O) {
        (self.entries, self.outlet)
    }

    /// Looks at the next entry. Waits for it, unless the log says already that `at` may be left.
    fn peek(&mut self, at: Position) -> Result<Option<&Entry>, FollowError> {
        if self.ahead.is_none() && !self.exhausted && self.horizon <= at.exit {
            self.ahead = self.entries.next()?;
            match &self.ahead {
                Some(entry) => self.horizon = self.horizon.max(entry.at.exit),
                None => self.exhausted = true,
            }
        }
        Ok(self.ahead.as_ref())
    }

    fn take(&mut self, moment: Moment) -> Result<Event, FollowError> {
        let entry = self.ahead.take().expect("an entry was peeked at");
        assert_eq!(entry.at.exit, moment.at.exit);
        self.followed.entries += 1;
        // A progress mark may be made before its edges are known.
        if entry.at.edges != moment.at.edges && entry.event != Event::Progress {
            let what = format!(
                "the guest's count is {}, the log has {}",
                moment.at.edges, entry.at.edges
            );
            return Err(diverged(moment, what));
        }
        if let Some(check) = entry.check {
            compare_check(moment, check)?;
        }
        Ok(entry.event)
    }

    fn confirm(&mut self, moment: Moment, mark: OutputMark) -> Result<(), FollowError> {
        let Some(ours) = self.unconfirmed.pop_front() else {
            let what = format!("the log has output {}, the guest emitted none", mark.number);
            return Err(diverged(moment, what));
        };
        if ours != mark {
            let what = format!(
                "the guest emitted {}, the log has {}",
                tell(&ours),
                tell(&mark)
            );
            return Err(diverged(moment, what));
        }
        self.followed.outputs_checked += 1;
        Ok(())
    }

    /// Handles an entry of this position.
    #[expect(clippy::too_many_lines, reason = "an arm for each kind of entry")]
    fn step(&mut self, view: &View, event: Event) -> Result<Option<Step>, FollowError> {
        let moment = view.moment;
        if self.vector.is_some() {
            let what = "the log has more here after it delivered an interrupt";
            return Err(diverged(moment, what.into()));
        }
        let step = match event {
            Event::Clock { ns } => self.apply(Applied::Clock { ns }),
            Event::Frame { .. } if view.net_room == 0 => {
                let what = "the log has a frame here, and virtio-net takes none in";
                return Err(diverged(moment, what.into()));
            }
            Event::ConsoleInput { data } if data.len() > view.console_room => {
                let what = "the log has more console input here than the console takes in";
                return Err(diverged(moment, what.into()));
            }
            Event::Entropy { data } if data.len() != view.entropy_wanted => {
                let what = format!(
                    "the log has {} random bytes here, and virtio-rng asks for {}",
                    data.len(),
                    view.entropy_wanted
                );
                return Err(diverged(moment, what));
            }
            Event::Frame { data } => self.apply(Applied::Frame { data }),
            Event::ConsoleInput { data } => self.apply(Applied::Console { data }),
            Event::Entropy { data } => self.apply(Applied::Entropy { data }),
            Event::Output(mark) => return self.confirm(moment, mark).map(|()| None),
            Event::Interrupt { vector } => {
                // This is the last entry of its position: a survivor may add nothing before it leaves.
                self.vector = Some(vector);
                self.horizon = moment.at.exit + 1;
                return Ok(None);
            }
            Event::Progress => return Ok(None),
            Event::Control(Control::GoLive { .. }) => {
                self.followed.go_lives += 1;
                return Ok(None);
            }
            Event::Digest(digest) => {
                self.expected_digest = Some(digest);
                Step::Digest
            }
            Event::End(end) if view.ended.is_some_and(|reason| reason != end.reason) => {
                let what = format!(
                    "the guest ended ({:?}), the log has {:?}",
                    view.ended, end.reason
                );
                return Err(diverged(moment, what));
            }
            Event::End(End { reason, .. })
                if view.ended.is_none() && reason != EndReason::Stopped =>
            {
                let what = format!("the log ends here ({reason:?}), and the guest goes on");
                return Err(diverged(moment, what));
            }
            Event::End(end) => {
                self.expected_end = Some(end);
                Step::Finish(end.reason)
            }
            Event::Time { .. } => {
                let what = "the log answers the time here, and the guest did not ask";
                return Err(diverged(moment, what.into()));
            }
        };
        Ok(Some(step))
    }

    fn apply(&mut self, input: Applied) -> Step {
        self.applied = input;
        Step::Apply
    }

    /// Nothing follows what was followed so far.
    fn reached_end(&mut self) {
        self.followed.entries += u64::from(self.ahead.take().is_some());
        self.exhausted = true;
    }

    /// Every output of a position must be in the log at that position.
    fn all_confirmed(&self, moment: Moment) -> Result<(), FollowError> {
        match self.unconfirmed.front() {
            Some(mark) => {
                let what = format!(
                    "the guest emitted {}, the log has no output here",
                    tell(mark)
                );
                Err(diverged(moment, what))
            }
            None => Ok(()),
        }
    }
}

fn diverged(moment: Moment, what: String) -> FollowError {
    FollowError::Diverged(Divergence {
        at: moment.at,
        what,
    })
}

fn compare_check(moment: Moment, check: Check) -> Result<(), FollowError> {
    if check == moment.check {
        return Ok(());
    }
    let (ours, theirs) = (moment.check, check);
    Err(diverged(
        moment,
        format!(
            "the vCPU is at RIP {:#x} with registers {:08x}, the log has RIP {:#x} with {:08x}",
            ours.rip, ours.regs, theirs.rip, theirs.regs
        ),
    ))
}

fn tell(mark: &OutputMark) -> String {
    let OutputMark {
        number,
        port,
        len,
        hash,
    } = mark;
    format!("output {number} ({port:?}, {len} bytes, hash {hash:016x})")
}

fn compare_digests(
    moment: Moment,
    ours: MachineDigest,
    log: MachineDigest,
) -> Result<(), FollowError> {
    let different: Vec<&str> = [
        (ours.ram != log.ram, "memory"),
        (ours.cpu != log.cpu, "vCPU"),
        (ours.devices != log.devices, "devices"),
    ]
    .into_iter()
    .filter_map(|(differs, name)| differs.then_some(name))
    .collect();
    if different.is_empty() {
        return Ok(());
    }
    let what = format!(
        "the digest of {} differs (ours {ours}, the log's {log})",
        different.join(" and ")
    );
    Err(diverged(moment, what))
}

impl<S: Entries, O: Outlet> Source for Follower<S, O> {
    type Error = FollowError;

    fn next(&mut self, view: &View) -> Result<Next<'_>, FollowError> {
        let moment = view.moment;
        loop {
            let next_at = self.peek(moment.at)?.map(|entry| entry.at);
            match next_at {
                Some(at) if at.exit == moment.at.exit => {
                    let event = self.take(moment)?;
                    match self.step(view, event)? {
                        None => {}
                        Some(Step::Apply) => return Ok(Next::Apply(self.applied.input())),
                        Some(Step::Digest) => return Ok(Next::Digest),
                        Some(Step::Finish(reason)) => return Ok(Next::Finish(reason)),
                    }
                }
                Some(at) if at.exit < moment.at.exit => {
                    let what = format!("the log has an entry at {at} that the guest ran past");
                    return Err(diverged(moment, what));
                }
                None if self.exhausted && self.horizon <= moment.at.exit => return Ok(Next::Stop),
                _ if self.until == Some(moment.at.exit) => return Ok(Next::Stop),
                _ if view.ended.is_some() => {
                    let what = "the guest ended here, and the log goes on";
                    return Err(diverged(moment, what.into()));
                }
                _ if view.wait.is_some() => {
                    let what = "the guest waits here, and the log goes on";
                    return Err(diverged(moment, what.into()));
                }
                _ => return Ok(Next::Leave),
            }
        }
    }

    /// The log may end while the guest computes, perhaps for ever. Then it is followed to the last
    /// position that was left: a progress mark is not a reason to run the guest to another one.
    fn is_over(&mut self, kicked: bool) -> Result<bool, FollowError> {
        let only_marks = |ahead: &Entry| ahead.event == Event::Progress;
        while self.ahead.as_ref().is_none_or(only_marks) && !self.exhausted {
            match self.entries.ahead(kicked)? {
                Ahead::Nothing => return Ok(false),
                Ahead::End => self.reached_end(),
                Ahead::Entry(entry) => {
                    self.horizon = self.horizon.max(entry.at.exit);
                    let mark = self.ahead.replace(entry);
                    self.followed.entries += u64::from(mark.is_some());
                }
            }
        }
        Ok(self.exhausted && self.ahead.is_none())
    }

    fn time(&mut self, moment: Moment) -> Result<Option<u64>, FollowError> {
        loop {
            match self.peek(moment.at)?.map(|entry| entry.at) {
                Some(at) if at.exit == moment.at.exit => {}
                None if self.exhausted => return Ok(None),
                _ => {
                    let what = "the guest asked for the time, and the log has no answer here";
                    return Err(diverged(moment, what.into()));
                }
            }
            match self.take(moment)? {
                Event::Time { ns } => return Ok(Some(ns)),
                Event::Progress => {}
                Event::Control(Control::GoLive { .. }) => self.followed.go_lives += 1,
                other => {
                    let what = format!("the guest asked for the time, and the log has {other:?}");
                    return Err(diverged(moment, what));
                }
            }
        }
    }
}

impl<S: Entries, O: Outlet> Sink for Follower<S, O> {
    type Error = FollowError;

    fn output(&mut self, _: Moment, output: &Output) -> Result<(), FollowError> {
        self.followed.outputs += 1;
        self.unconfirmed.push_back(OutputMark {
            number: self.followed.outputs,
            port: output.port,
            len: output.data.len() as u32,
            hash: output_hash(&output.data),
        });
        self.outlet.emit(self.followed.outputs, 0, output)?;
        Ok(())
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), FollowError> {
        self.all_confirmed(moment)?;
        let expected = self.vector.take();
        if vector != expected {
            let name = |v: Option<u8>| v.map_or("none".into(), |v| format!("vector {v:#x}"));
            let what = format!(
                "the interrupt delivered is {}, the log has {}",
                name(vector),
                name(expected)
            );
            return Err(diverged(moment, what));
        }
        self.followed.interrupts += u64::from(vector.is_some());
        Ok(())
    }

    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), FollowError> {
        let expected = self.expected_digest.take();
        compare_digests(moment, digest, expected.expect("a digest was asked for"))?;
        self.followed.digests += 1;
        Ok(())
    }

    fn end(&mut self, moment: Moment, end: End) -> Result<(), FollowError> {
        let expected = self.expected_end.take().expect("the log ended here");
        self.all_confirmed(moment)?;
        compare_digests(moment, end.digest, expected.digest)?;
        self.followed.digests += 1;
        self.followed.end = Some(end);
        Ok(())
    }
}
