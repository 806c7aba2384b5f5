//! How a backup joins: Hello, Welcome, the arbiter's record, the machine, Ready.

use super::{Backup, BackupAction, Expectations, Phase};
use crate::Time;
use crate::arbiter::{Members, Nonce, OpenRecord, ReadBackAnswer};
use crate::detector::Detector;
use crate::log::Header;
use crate::primary::host_refusal;
use crate::reason::{HaltReason, Loss};
use crate::wire::{Message, PROTOCOL_VERSION, common_version};

/// A Welcome whose arbiter is still being asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Joining {
    members: Members,
    nonce: Nonce,
    header: Box<Header>,
    image: Vec<u8>,
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
        self.connected = true;
        self.phase = Phase::Greeting;
        let timing = self.config.timing;
        self.detector = Detector::new(&timing, timing.joining, now);
        self.push(BackupAction::Send(Message::Hello {
            protocol: PROTOCOL_VERSION,
            vm: self.config.vm.clone(),
            member: self.config.me,
            host: self.config.host.clone(),
        }));
    }

    /// Looks whether this is the pair it wants, and asks its arbiter whether it is one.
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
        if let Some(reason) = self.refusal(protocol, members, &header) {
            return self.refuse(reason);
        }
        self.generation = generation;
        self.primary = Some(members.primary);
        self.joining = Some(Joining {
            members,
            nonce,
            header,
            image,
        });
        self.ask(Phase::ReadingBack);
    }

    /// Why it does not join what it is offered.
    fn refusal(&self, protocol: u32, members: Members, header: &Header) -> Option<String> {
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
        if members.backup != Some(ours.me) || members.primary == ours.me {
            return Some("the primary has opened the generation for another backup".into());
        }
        host_refusal(&header.host, &ours.host).or_else(|| ours.expect.refusal(header))
    }

    /// The answer to [`BackupAction::ReadBack`].
    pub fn handle_read_back(&mut self, now: Time, answer: ReadBackAnswer) {
        if !self.question.answered() || self.phase != Phase::ReadingBack {
            return;
        }
        let joining = self.joining.take().expect("a Welcome is read back");
        match answer {
            ReadBackAnswer::Unreachable(_) => {
                self.joining = Some(joining);
                self.question.unreachable(now);
            }
            ReadBackAnswer::Found(record) if joining.is_in(&record) => {
                self.phase = Phase::Booting;
                self.push(BackupAction::Boot {
                    generation: self.generation,
                    header: joining.header,
                    image: joining.image,
                });
            }
            ReadBackAnswer::Found(_) | ReadBackAnswer::Missing => self.refuse(format!(
                "the backup does not find in its arbiter what the primary wrote into its own for \
                 generation {}: the two --arbiter are different places, and must be one",
                self.generation
            )),
        }
    }

    /// The machine of [`BackupAction::Boot`] stands at position 0.
    pub fn handle_booted(&mut self, now: Time, generation: u64) {
        if self.phase == Phase::Booting && generation == self.generation {
            self.phase = Phase::Following;
            self.detector.relimit(self.config.timing.silence, now);
            self.push(BackupAction::Send(Message::Ready));
        }
    }

    /// The machine of [`BackupAction::Boot`] cannot be built here, for a reason that no retry mends.
    pub fn handle_boot_failed(&mut self, _now: Time, reason: String) {
        if self.phase == Phase::Booting {
            self.refuse(reason);
        }
    }

    fn refuse(&mut self, reason: String) {
        self.push(BackupAction::Send(Message::Refuse {
            reason: reason.clone(),
        }));
        self.halt(HaltReason::Refused(reason));
    }

    /// Not armed, so there is nothing to claim: connect anew.
    pub(super) fn start_over(&mut self, loss: Loss) {
        self.disconnect();
        self.joining = None;
        if self.phase == Phase::Booting {
            self.push(BackupAction::Discard);
        }
        self.question.give_up();
        self.phase = Phase::Connecting;
        self.push(BackupAction::PrimaryLost(loss));
    }
}

impl Joining {
    /// Whether this record is the primary's.
    fn is_in(&self, record: &OpenRecord) -> bool {
        record.nonce == self.nonce && record.members == self.members
    }
}

impl Expectations {
    /// What of the primary's machine is not as the operator of the backup said.
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
        let differs = match machine.net {
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
