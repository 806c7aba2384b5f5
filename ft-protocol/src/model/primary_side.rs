//! The primary's runtime, as a model.

mod host;

use super::VM;
use super::backup_side::BackupSide;
use super::guest::digest_at;
use super::process::{Common, Rest};
use super::storage::{Ask, Storage};
use super::witness::Flaw;
use crate::arbiter::{ClaimAnswer, CloseAnswer, MemberId, Members, Nonce, OpenAnswer};
use crate::detector::Timing;
use crate::host::drive_primary;
use crate::log::Counts;
use crate::mutant::Mutant;
use crate::primary::{Primary, PrimaryConfig};
use crate::testing;
use crate::transfer::Capture;
use crate::wire::COPY_WINDOW_BYTES;
use host::Acting;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrimarySide {
    pub machine: Primary,
    pub started: bool,
    /// If it was a backup and went live: the last entry before its own first one.
    pub survivor: Option<u64>,
    /// It joined a machine that ran alone.
    pub joined: bool,
    /// The machine must be copied.
    copying: bool,
    /// The pair in which it is protected.
    pub members: Option<Members>,
    pub executed: u64,
    sent: u64,
    /// The last output that may leave, and the last that has left.
    passed: u64,
    left: u64,
    /// It was stopped, and the backup has not answered since.
    pub away: bool,
    /// The backup has answered since then, and an output has left because of the answer.
    pub released_anew: bool,
    /// Must the vCPU rest, and does it rest?
    pub parking: bool,
    parked: bool,
    pub fenced: bool,
    /// The vCPU rested, and ran on alone.
    pub took_back: bool,
}

pub fn config(me: MemberId, generation: u64, solo: bool, mutant: Option<Mutant>) -> PrimaryConfig {
    PrimaryConfig {
        solo,
        vm: VM.into(),
        me,
        host: testing::host(),
        counts: Counts::BranchEdges,
        generation,
        // Every member has its own, with room for its generations.
        nonce: Nonce(me.0 << 64),
        timing: Timing::default(),
        mutant,
    }
}

impl PrimarySide {
    pub fn new(machine: Primary) -> PrimarySide {
        PrimarySide {
            machine,
            started: false,
            survivor: None,
            joined: false,
            copying: false,
            members: None,
            executed: 0,
            sent: 0,
            passed: 0,
            left: 0,
            away: false,
            released_anew: false,
            parking: false,
            parked: false,
            fenced: false,
            took_back: false,
        }
    }

    /// The primary that a backup becomes when it goes live.
    pub fn survivor(backup: &BackupSide, me: &Common, rest: &Rest) -> PrimarySide {
        let executed = backup.executed;
        let left = rest.guest.outputs_up_to(executed);
        let config = config(me.id, backup.machine.generation(), false, rest.mutant);
        let machine = Primary::survivor(config, backup.machine.survivor(left), me.now);
        PrimarySide {
            started: true,
            survivor: Some(executed),
            joined: backup.copied,
            executed,
            sent: executed,
            passed: left,
            left,
            fenced: true,
            ..PrimarySide::new(machine)
        }
    }

    pub fn can_run(&self, guest_len: u64) -> bool {
        self.started && !self.parked && self.executed < guest_len && self.machine.may_run()
    }

    pub fn can_rest(&self, guest_len: u64) -> bool {
        self.parking && !self.parked && self.executed < guest_len
    }

    pub fn has_log_behind_copy(&self) -> bool {
        self.machine.has_waiting() && self.executed > self.sent
    }

    pub fn can_capture(&self) -> bool {
        self.copying
    }

    pub fn can_emit(&self, me: &Common) -> bool {
        self.left < self.passed && self.machine.may_release(me.now)
    }

    /// Executes a piece, and hands it on.
    pub fn run(&mut self, me: &Common, rest: &mut Rest) {
        let last = rest.guest.piece_after(self.executed);
        for seq in self.executed + 1..=last {
            if let Some(output) = rest.guest.output(seq) {
                self.machine.handle_output(me.now, output, seq, 1);
            }
        }
        self.executed = last;
        let first = self.survivor.unwrap_or(0) + 1;
        let bytes = rest.guest.frames(first, last, me.id).len() as u64;
        self.machine.handle_appended(me.now, last, bytes);
        if last == rest.guest.len() {
            self.machine.handle_guest_end(me.now, last);
        }
    }

    /// The backend takes an output.
    pub fn emit(&mut self, me: &Common, rest: &mut Rest) {
        self.left += 1;
        let backup = self.members.and_then(|members| members.backup);
        // A member's id is its index, from 1.
        let backup = backup.map(|backup| backup.0 as usize - 1);
        let witness = &mut rest.around.witness;
        witness.primary_emits(me.id, self.left, backup, rest.guest);
        self.released_anew |= self.machine.has_probed() && !witness.is_alone(me.id);
        if self.away && witness.is_another_alone(me.id) {
            witness.note(Flaw::SaidByWhoWasAway { output: self.left });
        }
        self.machine.handle_released(me.now, self.left);
    }

    /// The vCPU stops to be copied, and runs on.
    pub fn capture(&mut self, me: &Common, rest: &Rest) {
        (self.copying, self.sent) = (false, self.executed);
        let (seq, outputs) = (self.executed, rest.guest.outputs_up_to(self.executed));
        let capture = Capture {
            seq,
            outputs,
            digest: digest_at(seq, false),
        };
        for _ in 0..rest.pieces {
            self.machine.handle_piece(me.now, COPY_WINDOW_BYTES);
        }
        self.machine.handle_captured(me.now, capture);
    }

    /// Looks at its records in the arbiter.
    pub fn look(&mut self, me: &Common, storage: &Storage) {
        if let Some(standing) = self.machine.standing() {
            let look = storage.look(me.id, &standing);
            self.machine.handle_looked(me.now, standing, &look);
        }
    }

    /// The vCPU rests.
    pub fn rest(&mut self, me: &Common) {
        self.parked = true;
        self.machine.handle_parked(me.now, self.executed);
    }

    pub fn answer(&mut self, me: &Common, ask: Ask, known: bool, storage: &Storage) {
        let (now, unknown) = (me.now, String::new());
        match ask {
            Ask::Open(generation, members, nonce) => {
                let opened = || storage.opened(generation, members, nonce);
                let answer = match known {
                    true => opened(),
                    false => OpenAnswer::Unreachable(unknown),
                };
                self.machine.handle_opened(now, answer);
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
            Ask::ReadBack(_) => unreachable!("a primary reads nothing back"),
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
        let Ok(end) = drive_primary(&mut acting);
        let reacted = acting.reacted;
        assert!(end.is_none() || self.machine.poll_action().is_none());
        reacted
    }
}
