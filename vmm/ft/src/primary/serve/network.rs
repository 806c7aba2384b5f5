//! The guest's network on this side: a TAP that goes and returns, and announcements of the guest's MAC.

use super::Runtime;
use crate::announcer::Announcer;
use crate::now;
use lockstep_backends::Link;

impl Runtime {
    /// The state of the TAP has changed. A guest that lost its network here may still have one at the
    /// backup; if this side runs alone, it goes on without.
    pub(super) fn network_changed(&mut self, link: &Link) {
        self.network.tell(link, &mut self.events);
        let gone = match link {
            Link::Up | Link::Down => false,
            Link::Gone(_) => true,
        };
        if gone && self.primary.handle_switchover(now()) {
            tracing::warn!("the guest is handed over to the backup, as its TAP is gone here");
        }
    }

    /// This side goes on alone: announces the guest's MAC, now and for minutes.
    pub(super) fn announce(&mut self) {
        if let (Some(tap), Some(net)) = (self.direct.tap(), self.header.machine.net()) {
            self.announcer = Some(Announcer::new(tap.clone(), net, now()));
            self.announce_again();
        }
    }

    /// Announces it again, if that is due.
    pub(super) fn announce_again(&mut self) {
        let (now, may) = (now(), self.primary.may_release(now()));
        if let Some(announcer) = &mut self.announcer {
            announcer.tick(now, may);
        }
    }
}
