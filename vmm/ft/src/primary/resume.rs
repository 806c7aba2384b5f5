//! A backup that went live goes on with the primary's runtime: alone, until a new backup joins.

use super::serve::{Answer, Runtime};
use super::vcpu::Vcpu;
use crate::alarm::Alarm;
use crate::arbiter::{Asker, Watch};
use crate::beats::Beats;
use crate::control::Control;
use crate::cuts::Cuts;
use crate::errands::Errands;
use crate::fence::Fence;
use crate::lobby::Lobby;
use crate::network::Network;
use crate::silence::LongestSilence;
use crate::{EventLog, StopSignals};
use ft_protocol::arbiter::MemberId;
use ft_protocol::log::Header;
use ft_protocol::primary::{Primary, PrimaryConfig};
use ft_protocol::transfer::Survivor;
use lockstep_backends::Waker;
use lockstep_backends::live::Direct;
use lockstep_replay::LogDirWriter;
use std::collections::VecDeque;
use tokio::sync::mpsc::UnboundedSender;

/// The parts with which a survivor goes on.
pub struct SurvivorParts {
    /// The state of its machine and its right.
    pub survivor: Survivor,
    /// With what its state machine starts.
    pub config: PrimaryConfig,
    /// Where a new backup may connect; `None` if no address was given.
    pub lobby: Option<Lobby>,
    /// For heartbeats.
    pub beats: Beats,
    /// The signals, of which one may have come already.
    pub signals: StopSignals,
    /// The recording, if there is one.
    pub recording: Option<LogDirWriter>,
    /// The parts of the runtime.
    pub rest: Resumed,
}

/// The parts that the runtime of a backup that went live hands on.
pub struct Resumed {
    /// Its id.
    pub me: MemberId,
    /// The log's header.
    pub header: Header,
    /// The guest's ELF file.
    pub image: Vec<u8>,
    /// The arbiter.
    pub asker: Asker<()>,
    /// The state of its records there.
    pub watch: Watch,
    /// The vCPU's thread, which runs with live inputs now.
    pub vcpu: Vcpu,
    /// Where outputs go.
    pub direct: Direct,
    /// Wakes the vCPU's thread.
    pub waker: Waker,
    /// Where events go.
    pub events: EventLog,
    /// The control socket.
    pub control: Control,
    /// The fence.
    pub fence: Fence,
    /// The runtime's timer.
    pub alarm: Alarm,
    /// The thread for copies.
    pub copier: Errands,
    /// Where to die, for drills.
    pub cuts: Cuts,
    /// The longest silence of the other side so far.
    pub silence: LongestSilence,
}

impl Resumed {
    /// The runtime of a primary with these parts.
    pub(super) fn resume(
        self,
        primary: Primary,
        survivor: Survivor,
        answers: UnboundedSender<Answer>,
        beats: Beats,
    ) -> Runtime {
        // If a look of the backup is under way, its answer is dropped.
        let mut watch = self.watch;
        watch.end();
        Runtime {
            primary,
            me: self.me,
            header: self.header,
            image: self.image,
            asker: self.asker.anew(),
            watch,
            answers,
            link: None,
            vcpu: self.vcpu,
            idle: None,
            network: Network::new(self.direct.tap()),
            announcer: None,
            direct: self.direct,
            unsent: VecDeque::new(),
            log_queued: false,
            won: Some(survivor.right.generation),
            ended: None,
            waker: self.waker,
            events: self.events,
            beats,
            control: self.control,
            fence: self.fence,
            cuts: self.cuts,
            lag_told: None,
            copy: None,
            alarm: self.alarm,
            copier: self.copier,
            copies: 0,
            progress: None,
            unclosed: None,
            silence: self.silence,
        }
    }
}
