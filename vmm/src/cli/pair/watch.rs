//! Watches the two sides: how the pair ends, and which new member replaces a lost one.

use super::super::Status;
use super::PairArgs;
use super::member::{Member, Place, Told, how};
use lockstep_signals::Hangup;
use rustix::process::Signal;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

/// A process that a signal ended has this plus the signal's number as its status, as in a shell.
const SIGNAL_BASE: u8 = 128;
/// A member that ended sooner than this counts as one that failed at once.
const STEADY: Duration = Duration::from_secs(5);
/// The pause before the first member that failed at once is replaced; it doubles with each further one
/// in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Within this time, the last message of a dead primary (that its new backup has joined) arrives, and
/// is among the backup's events.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The two sides. Only the member that runs the guest reads console input.
pub struct Pair {
    args: PairArgs,
    place: Place,
    sides: [Side; 2],
    /// Number of members that were started.
    members: u32,
    /// Number of members in a row that failed at once.
    failures: u32,
    terminate: SignalStream,
    interrupt: SignalStream,
    hangup: Hangup,
    /// The guest has ended, or must end: no member is replaced any more.
    over: bool,
    /// SIGTERM was passed on.
    told: bool,
    /// The guest never ran; this is the status of the member that prevented it.
    failed: Option<ExitCode>,
}

/// One side: its TAP and its address stay, its members are replaced.
struct Side {
    net: String,
    member: Option<Member>,
    /// When a new member must be started here.
    due: Option<Instant>,
}

/// A member that has ended.
struct End {
    side: usize,
    status: ExitStatus,
    told: Told,
    lived: Duration,
}

impl Side {
    /// Waits until its member ends; for ever if there is none. Cancel-safe.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        match &mut self.member {
            Some(member) => member.end().await,
            None => std::future::pending().await,
        }
    }
}

impl Pair {
    pub fn start(args: PairArgs, nets: [String; 2], place: Place) -> io::Result<Pair> {
        let side = |net| Side {
            net,
            member: None,
            due: None,
        };
        let mut pair = Pair {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: Hangup::listen()?,
            args,
            place,
            sides: nets.map(side),
            members: 0,
            failures: 0,
            over: false,
            told: false,
            failed: None,
        };
        pair.start_member(0)?;
        pair.start_member(1)?;
        Ok(pair)
    }

    /// Starts the next member on this side. The first of all members is the primary, all others are
    /// backups.
    fn start_member(&mut self, side: usize) -> io::Result<()> {
        let number = self.members;
        let (role, name) = match number {
            0 => ("primary", "primary".into()),
            1 => ("backup", "backup".into()),
            _ => ("backup", format!("backup-{number}")),
        };
        self.place.await_events(&name);
        let own = &self.place.listen[side];
        let other = &self.place.listen[1 - side];
        let channel = if number == 0 { own } else { other };
        let net = &self.sides[side].net;
        let mut command = self.args.command(role, &name, channel, net, &self.place);
        if self.args.keep && number > 0 {
            command.args(["--listen", own]);
        }
        self.sides[side].member = Some(Member::start(name, number, command)?);
        self.members += 1;
        Ok(())
    }

    /// Runs the pair to its end.
    pub async fn run(&mut self) -> io::Result<ExitCode> {
        loop {
            let end = self.next_end().await?;
            if let Some(code) = self.ended(&end).await? {
                return Ok(code);
            }
        }
    }

    /// Waits until a member has ended. Starts members that are due meanwhile.
    async fn next_end(&mut self) -> io::Result<End> {
        loop {
            let due = self.sides.iter().filter_map(|side| side.due).min();
            let [one, other] = &mut self.sides;
            let (side, status) = tokio::select! {
                status = one.end() => (0, status?),
                status = other.end() => (1, status?),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.start_due();
                    continue;
                }
                _ = self.terminate.recv() => {
                    self.pass_on();
                    continue;
                }
                // If a terminal ends, the members get the signal from it too; a second SIGHUP has no
                // effect on them.
                () = self.hangup.recv() => {
                    self.hang_up();
                    continue;
                }
                // The terminal sends SIGINT to the members too. This process stays, to see how they
                // end.
                _ = self.interrupt.recv() => {
                    self.no_more();
                    continue;
                }
            };
            let member = self.sides[side].member.take().expect("it ended");
            return Ok(End {
                side,
                status,
                told: self.place.told(&member.name),
                lived: member.lived(),
            });
        }
    }

    /// Reacts to a member's end. Returns the pair's status if the pair is over.
    async fn ended(&mut self, end: &End) -> io::Result<Option<ExitCode>> {
        let other = 1 - end.side;
        if end.told.ended() {
            self.no_more();
        }
        if !self.place.told("primary").started() {
            // The member that ended before the guest ran has reported why. Without it there is no pair.
            let failed = *self.failed.get_or_insert(code(end.status));
            return Ok(match &self.sides[other].member {
                Some(member) => {
                    member.end_by(Signal::TERM);
                    None
                }
                None => Some(failed),
            });
        }
        if self.goes_on(end).await? {
            if self.args.keep && !self.over {
                self.replace(end);
            }
            return Ok(None);
        }
        // The other member hangs, does not know yet that it lost, or could not go on.
        if let Some(member) = &mut self.sides[other].member {
            member.kill().await?;
        }
        if self.args.keep && !self.over {
            tracing::error!(
                "the {} {}, and nobody is left to go on: VM {} is down",
                role(&end.told),
                how(end.status),
                self.args.vm
            );
            return Ok(Some(ExitCode::from(Status::Failed as u8)));
        }
        Ok(Some(code(end.status)))
    }

    /// Does the VM go on with the other side's member?
    async fn goes_on(&mut self, end: &End) -> io::Result<bool> {
        let Some(member) = &mut self.sides[1 - end.side].member else {
            return Ok(false);
        };
        // A member that ran alone can only lose the VM to one that joined later.
        let part = |place: &Place, name: &str| place.told(name).generation() > end.told.alone();
        if part(&self.place, &member.name) || self.over || !self.args.keep {
            return Ok(part(&self.place, &member.name));
        }
        if let Ok(status) = timeout(LAST_WORD, member.end()).await {
            status?;
        }
        Ok(part(&self.place, &member.name))
    }

    /// Replaces a member that ended by a new backup, at once or after a pause.
    fn replace(&mut self, end: &End) {
        self.failures = match end.lived < STEADY {
            true => self.failures.saturating_add(1),
            false => 0,
        };
        let pause = pause(self.failures);
        tracing::warn!(
            "the {} {}; a new backup joins{}",
            role(&end.told),
            how(end.status),
            match pause.is_zero() {
                true => String::new(),
                false => format!(" in {pause:?}"),
            }
        );
        self.sides[end.side].due = Some(Instant::now() + pause);
    }

    /// Starts the members that are due.
    fn start_due(&mut self) {
        for side in 0..self.sides.len() {
            if self.sides[side].due.is_none_or(|due| due > Instant::now()) {
                continue;
            }
            self.sides[side].due = None;
            if let Err(e) = self.start_member(side) {
                self.failures = self.failures.saturating_add(1);
                let pause = pause(self.failures);
                tracing::error!("a new backup cannot be started ({e}): tried again in {pause:?}");
                self.sides[side].due = Some(Instant::now() + pause);
            }
        }
    }

    /// Passes SIGTERM to the member that runs the guest, which is the eldest; a second one to both.
    fn pass_on(&mut self) {
        self.no_more();
        let members = self.by_age();
        let count = if self.told { members.len() } else { 1 };
        for member in members.iter().take(count) {
            member.end_by(Signal::TERM);
        }
        if count < members.len() {
            tracing::info!("the primary is told to end; a second signal tells the backup too");
        }
        self.told = true;
    }

    /// Passes SIGHUP to the member that runs the guest.
    fn hang_up(&mut self) {
        self.no_more();
        if let Some(eldest) = self.by_age().first() {
            eldest.end_by(Signal::HUP);
        }
    }

    /// The running members, the eldest first.
    fn by_age(&self) -> Vec<&Member> {
        let members = self.sides.iter().filter_map(|side| side.member.as_ref());
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|member| member.number);
        members
    }

    /// From now on no member is replaced.
    fn no_more(&mut self) {
        self.over = true;
        for side in &mut self.sides {
            side.due = None;
        }
    }
}

/// The role that a member had.
fn role(told: &Told) -> &'static str {
    match told.ran() {
        true => "primary",
        false => "backup",
    }
}

/// The pause before a member is replaced, after `failures` members in a row that failed at once.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
            FIRST_PAUSE.saturating_mul(factor).min(MAX_PAUSE)
        }
    }
}

/// A process's status as the status of this process.
fn code(status: ExitStatus) -> ExitCode {
    let byte = |number: i32| u8::try_from(number).ok();
    let code = status.code().and_then(byte);
    let signal = status.signal().and_then(byte);
    let told = code.or_else(|| signal?.checked_add(SIGNAL_BASE));
    ExitCode::from(told.unwrap_or(Status::Failed as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_a_signal_ended_gives_its_number_as_a_shell_does() {
        for (raw, wanted) in [(0, 0), (3 << 8, 3), (9, 137)] {
            let given = code(ExitStatus::from_raw(raw));
            assert_eq!(given, ExitCode::from(wanted), "{raw}");
        }
    }

    #[test]
    fn members_that_fail_at_once_are_replaced_ever_more_slowly() {
        assert_eq!(pause(0), Duration::ZERO);
        assert_eq!(pause(1), FIRST_PAUSE);
        assert_eq!(pause(2), 2 * FIRST_PAUSE);
        for failures in 10..100 {
            assert_eq!(pause(failures), MAX_PAUSE, "{failures}");
        }
    }
}
