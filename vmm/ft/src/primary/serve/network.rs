//! The guest's network on this side: a TAP that goes and comes back, and where the guest lives.

use super::Runtime;
use crate::announcer::Announcer;
use crate::now;
use lockstep_backends::Link;

impl Runtime {
    /// It stands otherwise with the TAP. A guest that lost its network here may still have one at the
    /// backup; alone it goes on without.
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

    /// This side goes on alone: tells the network where the guest is, from now on and for minutes.
    pub(super) fn announce(&mut self) {
        if let (Some(tap), Some(net)) = (self.direct.tap(), self.header.machine.net()) {
            self.announcer = Some(Announcer::new(tap.clone(), net, now()));
            self.announce_again();
        }
    }

    /// Tells it once more, if that is due.
    pub(super) fn announce_again(&mut self) {
        let (now, may) = (now(), self.primary.may_release(now()));
        if let Some(announcer) = &mut self.announcer {
            announcer.tick(now, may);
        }
    }
}
