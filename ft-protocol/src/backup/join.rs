//! How a backup joins: Hello, Welcome, the arbiter's record, the machine, Ready.

use super::{Backup, BackupAction, BackupTurn, Build, Expectations, Phase};
use crate::Time;
use crate::arbiter::{MAX_GENERATION, OpenRecord, ReadBackAnswer};
use crate::log::Header;
use crate::primary::host_refusal;
use crate::reason::{HaltReason, Loss};
use crate::transfer::Right;
use crate::wire::{Message, PROTOCOL_VERSION, common_version};

/// A Welcome or an Offer for which the arbiter is still being asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Joining {
    pub right: Right,
    /// The VM already runs.
    pub copied: bool,
    pub header: Box<Header>,
    pub image: Vec<u8>,
}

impl Backup {
    /// A connection was made.
    ///
    /// # Panics
    /// If [`Backup::wants_connection`] is false.
    pub fn handle_connected(&mut self, now: Time) {
        assert!(
            self.wants_connection(),
            "one connection at a time, and only when it is of use"
        );
        let timing = self.config.timing;
        self.peer.connect(&timing, timing.joining, now);
        self.peer.is_new();
        self.phase = Phase::Greeting;
        self.push(BackupAction::Send(Message::Hello {
            protocol: PROTOCOL_VERSION,
            vm: self.config.vm.clone(),
            member: self.config.me,
            host: self.config.host.clone(),
        }));
    }

    /// Checks whether this is the expected pair, and asks the arbiter for its record.
    pub(super) fn welcome(&mut self, message: Message) {
        let Message::Welcome {
            protocol,
            generation,
            members,
            nonce,
            header,
            image,
        } = message
        else {
            unreachable!("{} is no Welcome", message.name());
        };
        let ours = members.backup == Some(self.config.me) && members.primary != self.config.me;
        let stranger =
            (!ours).then(|| "the primary has opened the generation for another backup".into());
        let refusal = self.header_refusal(protocol, &header).or(stranger);
        if let Some(reason) = refusal.or_else(|| generation_refusal(generation)) {
            return self.refuse(reason);
        }
        let right = Right {
            generation,
            members,
            nonce,
        };
        self.right = Some(right);
        self.generation = generation;
        self.primary = Some(members.primary);
        self.ask(Phase::ReadingBack(Joining {
            right,
            copied: false,
            header,
            image,
        }));
    }

    /// Why it does not join the machine that it is offered.
    pub(super) fn header_refusal(&self, protocol: u32, header: &Header) -> Option<String> {
        let ours = &self.config;
        if common_version(PROTOCOL_VERSION, protocol) != Some(protocol) {
            return Some(format!(
                "the primary wants to speak protocol version {protocol} and the backup speaks \
                 {PROTOCOL_VERSION}: update the older one"
            ));
        }
        if header.vm != ours.vm {
            return Some(format!(
                "the primary runs VM {:?}, the backup wants {:?}",
                header.vm, ours.vm
            ));
        }
        host_refusal(header.machine.counts, &header.host, &ours.host)
            .or_else(|| header.machine.refusal("the primary's machine"))
            .or_else(|| ours.expect.refusal(header))
    }

    /// The answer to [`BackupQuestion::ReadBack`].
    pub fn handle_read_back(&mut self, now: Time, answer: ReadBackAnswer) {
        if !self.question.answered() {
            return;
        }
        let Phase::ReadingBack(joining) = &self.phase else {
            return;
        };
        match answer {
            ReadBackAnswer::Unreachable(_) => self.question.unreachable(now),
            ReadBackAnswer::Found(record) if joining.is_in(&record) => {
                let Joining {
                    copied,
                    header,
                    image,
                    ..
                } = joining.clone();
                self.phase = Phase::Booting { copied };
                self.push(Build::Boot {
                    generation: self.generation,
                    header,
                    image,
                    copied,
                });
            }
            ReadBackAnswer::Found(_) | ReadBackAnswer::Missing => self.refuse(format!(
                "the backup does not find in its arbiter what the primary wrote into its own for \
                 generation {}: the two --arbiter are different places, and must be one",
                self.generation
            )),
        }
    }

    /// The machine of [`Build::Boot`] stands at position 0, or there is room for the copy.
    pub fn handle_booted(&mut self, now: Time, generation: u64) {
        let Phase::Booting { copied } = self.phase else {
            return;
        };
        if generation != self.generation {
            return;
        }
        self.phase = match copied {
            true => Phase::Receiving,
            false => Phase::Following,
        };
        if !copied {
            self.peer.detector.relimit(self.config.timing.silence, now);
        }
        self.push(BackupAction::Send(Message::Ready));
    }

    /// The machine of [`Build::Boot`], or its copy, cannot be built here, for a reason that no
    /// retry can change.
    pub fn handle_boot_failed(&mut self, _now: Time, reason: String) {
        let builds = matches!(
            self.phase,
            Phase::Booting { .. } | Phase::Receiving | Phase::Restoring
        );
        if builds {
            self.refuse(reason);
        }
    }

    pub(super) fn refuse(&mut self, reason: String) {
        self.push(BackupAction::Send(Message::Refuse {
            reason: reason.clone(),
        }));
        self.halt(HaltReason::Refused(reason));
    }

    /// It is not armed, so there is nothing to claim: connect again.
    pub(super) fn start_over(&mut self, loss: Loss) {
        self.disconnect();
        if matches!(self.phase, Phase::Booting { .. }) {
            self.push(Build::Discard);
        }
        self.question.give_up();
        self.phase = Phase::Connecting;
        self.push(BackupTurn::PrimaryLost(loss));
    }
}

/// Why it cannot join in this generation; `None` if it can.
pub(super) fn generation_refusal(generation: u64) -> Option<String> {
    let told = format!("the primary names generation {generation}, which no VM reaches");
    (generation > MAX_GENERATION).then_some(told)
}

impl Joining {
    /// Is this record the primary's?
    fn is_in(&self, record: &OpenRecord) -> bool {
        record.nonce == self.right.nonce && record.members == self.right.members
    }
}

impl Expectations {
    /// In what the primary's machine differs from the options of this backup's operator; `None` if it
    /// does not.
    fn refusal(&self, header: &Header) -> Option<String> {
        let machine = &header.machine;
        if self.image.is_some_and(|image| image != header.guest.hash) {
            return Some(format!(
                "the primary runs another guest image ({}, hash {:032x}) than the backup was told: \
                 give both the same file",
                header.guest.name, header.guest.hash
            ));
        }
        if let Some(quantum) = self.quantum.filter(|&q| q != machine.quantum) {
            return Some(format!(
                "the primary's machine has a quantum of {} edges and the backup was told {quantum}: \
                 give both the same --quantum",
                machine.quantum
            ));
        }
        if let Some(mem) = self.mem_mib.filter(|&mem| mem != machine.mem_mib) {
            return Some(format!(
                "the primary's machine has {} MiB of RAM and the backup was told {mem}: give both \
                 the same --mem",
                machine.mem_mib
            ));
        }
        let differs = match machine.net() {
            Some(net) => [
                ("mac=", self.mac.is_some_and(|mac| mac != net.mac)),
                (
                    "ip=",
                    self.ip.is_some_and(|ip| ip != (net.ip, net.prefix_len)),
                ),
                ("gw=", self.gateway.is_some_and(|gw| gw != net.gateway)),
            ],
            None => [
                ("mac=", self.mac.is_some()),
                ("ip=", self.ip.is_some()),
                ("gw=", self.gateway.is_some()),
            ],
        };
        let (what, _) = differs.into_iter().find(|(_, differs)| *differs)?;
        Some(format!(
            "the primary's machine has another network ({what}) than the backup was told: give \
             both the same --net"
        ))
    }
}
