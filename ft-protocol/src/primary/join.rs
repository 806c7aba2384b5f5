//! A backup says Hello: can it be one, and for what?

use super::{Doubt, Phase, Primary, PrimaryTurn};
use crate::Time;
use crate::arbiter::MemberId;
use crate::log::{Counts, HostPrint};
use crate::wire::{Message, PROTOCOL_VERSION, common_version};

impl Primary {
    /// Why the backup that says Hello cannot join.
    pub(super) fn refusal(
        &self,
        protocol: u32,
        vm: &str,
        member: MemberId,
        host: &HostPrint,
    ) -> Option<String> {
        let ours = &self.config;
        if common_version(PROTOCOL_VERSION, protocol).is_none() {
            return Some(format!(
                "the primary speaks protocol version {PROTOCOL_VERSION} and the backup {protocol}: \
                 update the older one"
            ));
        }
        if vm != ours.vm {
            return Some(format!(
                "the primary runs VM {:?}, the backup wants {vm:?}",
                ours.vm
            ));
        }
        if member == ours.me {
            return Some("the backup has the primary's own member id".into());
        }
        host_refusal(ours.counts, &ours.host, host)
    }

    /// Refuses the connected backup.
    pub(super) fn refuse(&mut self, reason: String) {
        self.send(Message::Refuse { reason });
        self.disconnect();
    }

    /// Opens a generation for the pair.
    pub(super) fn welcome(&mut self, now: Time, protocol: u32, backup: MemberId) {
        self.peer.detector.relimit(self.config.timing.joining, now);
        self.protocol = protocol.min(PROTOCOL_VERSION);
        self.members.backup = Some(backup);
        self.peer.is_new();
        self.ask(Phase::Opening);
    }

    /// The backup's machine is at the same position as this one.
    pub(super) fn start(&mut self, now: Time) {
        (self.phase, self.doubt) = (Phase::Paired, Doubt::No);
        self.peer.detector.relimit(self.config.timing.silence, now);
        self.push(PrimaryTurn::Start);
    }
}

/// Why these two hosts cannot be a pair that counts this; `None` if they can. Instructions are counted by the
/// software CPU, whose model the machine's configuration names: it is the same on every host. Branch edges are
/// counted at exits, which must be the same; and a host's CPU leaves results to chance that the manuals do not
/// define, as another one does. The software CPU is bound to none of them: it may be the other side of any.
pub(crate) fn host_refusal(
    counts: Counts,
    primary: &HostPrint,
    backup: &HostPrint,
) -> Option<String> {
    let fits = match counts {
        Counts::Instructions => true,
        Counts::BranchEdges => {
            let one_is_soft = primary.is_software() != backup.is_software();
            primary.exits == backup.exits && (one_is_soft || primary.cpu == backup.cpu)
        }
    };
    (!fits).then(|| {
        format!(
            "the hosts differ (primary: CPU {}, exits {:016x}; backup: CPU {}, exits {:016x}), so \
             positions would not mean the same: use two hosts with the same CPU and KVM, or --cpu soft",
            primary.cpu, primary.exits, backup.cpu, backup.exits
        )
    })
}
