//! What a process does, or what happens to it alone.

use super::{PrimarySide, Process, Rest};
use crate::model::step::Own;

impl Process {
    /// A step of its own.
    pub fn take(&mut self, own: Own, rest: &mut Rest) {
        match own {
            Own::ReachArbiter => self.reach_arbiter(rest),
            Own::ReceiveAnswer => self.receive_answer(rest),
            Own::LoseQuestion => self.lose_question(rest),
            Own::LoseAnswer => self.lose_answer(rest),
            Own::Fence { succeeds } => self.fenced(succeeds, rest),
            Own::Run => self.run(rest),
            Own::AskAgain => self.wait_to_ask(rest),
            Own::NoticeDeath | Own::HearNothing => self.wait(rest),
            Own::Tick => drop(self.tick(rest)),
            Own::Stop => self.oversleep(rest),
            Own::VcpuHangs => self.hang(true, rest),
            Own::VcpuAnswers => self.hang(false, rest),
            Own::Crash { without_a_word } => self.crash(without_a_word, rest),
            Own::Load => self.on_backup(rest, |backup, me| backup.load(me)),
            Own::Boot => self.on_backup(rest, |backup, me| backup.boot(me)),
            Own::BootFails => self.on_backup(rest, |backup, me| backup.fail_to_boot(me)),
            Own::Emit => self.on_primary(rest, PrimarySide::emit),
            Own::Rest => self.on_primary(rest, |primary, me, _| primary.rest(me)),
            Own::Capture => self.on_primary(rest, |primary, me, rest| primary.capture(me, rest)),
            Own::Restore => self.on_backup(rest, |backup, me| backup.restore(me, false)),
            Own::CopyDamaged => self.on_backup(rest, |backup, me| backup.restore(me, true)),
            Own::Diverge => self.on_backup(rest, |backup, me| backup.diverge(me)),
            Own::Switchover => self.on_primary(rest, |primary, me, _| {
                primary.machine.handle_switchover(me.now);
            }),
            Own::Leave => self.leave(rest),
            Own::Look => self.look(rest),
            Own::PutBack => self.put_back(rest),
        }
    }
}
