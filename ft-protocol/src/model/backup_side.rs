//! The backup's runtime, as a model.

mod host;

use super::guest::digest_at;
use super::process::{Common, Rest};
use super::storage::{Ask, Storage};
use crate::arbiter::{ClaimAnswer, CloseAnswer, MemberId, ReadBackAnswer};
use crate::backup::{Backup, LogItem};
use crate::host::drive_backup;
use crate::log::{Event, Position};
use crate::wire::COPY_WINDOW_BYTES;
use host::Acting;
use std::collections::VecDeque;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackupSide {
    pub machine: Backup,
    /// The generation of the machine that it must build.
    booting: Option<u64>,
    /// It joins a machine that runs.
    pub copied: bool,
    /// Pieces of the copy that are not in the memory yet, and bytes that are.
    unloaded: u64,
    loaded: u64,
    /// The copy must be built.
    restoring: bool,
    /// The copy differs from its source.
    damaged: bool,
    /// It is half of a pair, and may claim.
    pub armed: bool,
    pub suspects: bool,
    /// It has asked the arbiter for a claim.
    pub claimed: bool,
    buffer: VecDeque<LogItem>,
    consumed: u64,
    pub executed: u64,
    /// Outputs that were not reported as released, and the members that made them.
    held: VecDeque<(u64, MemberId)>,
    forgotten: u64,
    pub fenced: bool,
    pub planned: bool,
    diverged: bool,
    /// It went live, and goes on as a primary.
    pub live: bool,
    /// It withdrew a suspicion, as it had heard the primary again.
    pub withdrew: bool,
}

impl BackupSide {
    pub fn new(machine: Backup) -> BackupSide {
        BackupSide {
            machine,
            booting: None,
            copied: false,
            unloaded: 0,
            loaded: 0,
            restoring: false,
            damaged: false,
            armed: false,
            suspects: false,
            claimed: false,
            buffer: VecDeque::new(),
            consumed: 0,
            executed: 0,
            held: VecDeque::new(),
            forgotten: 0,
            fenced: false,
            planned: false,
            diverged: false,
            live: false,
            withdrew: false,
        }
    }

    pub fn can_boot(&self) -> bool {
        self.booting.is_some()
    }

    pub fn can_run(&self) -> bool {
        !self.buffer.is_empty() && !self.restoring
    }

    pub fn can_load(&self) -> bool {
        self.unloaded > 0
    }

    pub fn can_restore(&self) -> bool {
        self.restoring && self.unloaded == 0
    }

    /// A divergence only shows when an entry is executed.
    pub fn can_diverge(&self) -> bool {
        self.can_run()
    }

    pub fn can_leave(&self) -> bool {
        !self.claimed
    }

    pub fn boot(&mut self, me: &Common) {
        let generation = self.booting.take().expect("there is something to boot");
        self.machine.handle_booted(me.now, generation);
    }

    pub fn fail_to_boot(&mut self, me: &Common) {
        self.booting = None;
        self.machine.handle_boot_failed(me.now, String::new());
    }

    /// A piece of the copy gets into the memory.
    pub fn load(&mut self, me: &Common) {
        self.unloaded -= 1;
        self.loaded += COPY_WINDOW_BYTES;
        self.machine.handle_loaded(me.now, self.loaded);
    }

    /// The copy is built, damaged or not.
    pub fn restore(&mut self, me: &Common, damaged: bool) {
        (self.restoring, self.damaged) = (false, damaged);
        let digest = digest_at(self.executed, damaged);
        self.machine.handle_restored(me.now, digest);
        // The vCPU stands at a position, and at once waits for the log.
        if self.buffer.is_empty() {
            self.machine.handle_drained(me.now, self.executed);
        }
    }

    /// Executes the next entry of the log.
    pub fn run(&mut self, me: &Common) {
        let item = self
            .buffer
            .pop_front()
            .expect("there is something to execute");
        (self.consumed, self.executed) = (self.consumed + item.bytes, item.seq);
        if let Event::Output(mark) = item.entry.event
            && mark.number > self.forgotten
        {
            self.held
                .push_back((mark.number, MemberId(mark.hash.into())));
        }
        self.machine
            .handle_consumed(me.now, self.consumed, self.executed);
        if self.buffer.is_empty() {
            self.machine.handle_drained(me.now, self.executed);
        }
    }

    pub fn diverge(&mut self, me: &Common) {
        self.diverged = true;
        let at = Position::exit(self.executed);
        self.machine.handle_diverged(me.now, at, String::new());
    }

    pub fn answer(&mut self, me: &Common, ask: Ask, known: bool, storage: &Storage) {
        let (now, unknown) = (me.now, String::new());
        match ask {
            Ask::ReadBack(generation) => {
                let answer = match known {
                    true => storage.read_back(generation),
                    false => ReadBackAnswer::Unreachable(unknown),
                };
                self.machine.handle_read_back(now, answer);
            }
            Ask::Claim(_) => {
                assert!(!known, "what a claim came to is known when it is written");
                let unknown = ClaimAnswer::Unreachable(unknown);
                self.machine.handle_claim(now, unknown);
            }
            Ask::Close(_) => {
                let answer = match known {
                    true => CloseAnswer::Closed,
                    false => CloseAnswer::Unreachable(unknown),
                };
                self.machine.handle_closed(now, answer);
            }
            Ask::Open(..) => unreachable!("a backup opens nothing"),
        }
    }

    /// Performs the actions of the state machine. Returns true if they were more than messages.
    pub fn act(&mut self, me: &mut Common, rest: &mut Rest) -> bool {
        let mut acting = Acting {
            side: self,
            me,
            rest,
            reacted: false,
        };
        let Ok(end) = drive_backup(&mut acting);
        let reacted = acting.reacted;
        assert!(end.is_none() || self.machine.poll_action().is_none());
        reacted
    }
}
