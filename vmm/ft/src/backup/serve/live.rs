//! Going live: the machine goes on with live inputs, and this side with the primary's runtime.

use super::Runtime;
use crate::backup::vcpu::{Job, Promotion};
use crate::beats::Beats;
use crate::cuts::CutPoint;
use crate::link::Port;
use crate::lobby::Lobby;
use crate::now;
use crate::primary::{Resumed, SurvivorParts, Vcpu, new_nonce, timing};
use ft_protocol::primary::PrimaryConfig;
use ft_protocol::wire::Request;
use lockstep_events::Event;
use lockstep_pulse::PulseWatch;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Runtime {
    /// All held outputs were emitted and the MAC was announced: lets the machine run on.
    pub(super) fn go_live(mut self, generation: u64) -> io::Result<SurvivorParts> {
        self.drain_tap()?;
        let early = self.shadow.take().map_or(vec![], |mut s| s.take(now()));
        let shadowed = early.len() as u64;
        let (live, direct) = self.backends.take().expect("a side goes live once");
        let survivor = self.backup.survivor(self.held.last());
        let (consumer, recording) = match self.recording.take() {
            // The same consumer is used to the end: a recording that was given up is not begun again.
            Some(recording) => (recording.consumer, Some(recording.writer)),
            None => (None, None),
        };
        let watch = std::mem::replace(&mut self.watch, PulseWatch::new(self.cuts.pulse()));
        let controls = Arc::clone(&self.controls);
        let mut vcpu = Vcpu::new(survivor.seq, consumer, controls, watch, self.cuts.clone());
        self.job(Job::GoLive(Box::new(Promotion {
            generation,
            live,
            early,
            seat: vcpu.seat(survivor.outputs),
        })));
        self.feed.close();
        self.events.emit(Event::Live {
            generation,
            reemitted: self.reemitted as u64,
            shadowed,
        });
        self.control.finish(Request::Switchover, &Ok(()));
        if self.control.is_waited_for(Request::Stop) {
            // A request to stop was passed on to the primary, and may have died with it.
            self.controls.stop.store(true, Ordering::Release);
        }
        self.cuts.pass(CutPoint::LiveAnnounced);
        Ok(self.resumed(survivor, vcpu, direct, recording))
    }

    /// The parts with which this side goes on as a primary.
    fn resumed(
        self,
        survivor: ft_protocol::transfer::Survivor,
        vcpu: Vcpu,
        direct: lockstep_backends::live::Direct,
        recording: Option<lockstep_replay::LogDirWriter>,
    ) -> SurvivorParts {
        let (lobby, beats) = match self.port.map(Port::listen).transpose() {
            Ok(None) => (None, Beats::none()),
            Ok(Some((listener, beats))) => (Some(Lobby::open(listener)), beats),
            // The VM is worth more than its next backup.
            Err(e) => {
                tracing::error!("no backup can join, as nobody can listen ({e}): see to --listen");
                (None, Beats::none())
            }
        };
        let (header, image) = self.made_of.expect("the machine is built");
        SurvivorParts {
            survivor,
            config: PrimaryConfig {
                vm: self.vm,
                me: self.me,
                host: self.host,
                counts: header.machine.counts,
                generation: survivor.right.generation,
                nonce: new_nonce(),
                solo: false,
                timing: timing(),
            },
            lobby,
            beats,
            signals: self.signals,
            recording,
            rest: Resumed {
                me: self.me,
                header,
                image,
                asker: self.asker.anew(),
                watch: self.records,
                vcpu,
                direct,
                waker: self.waker,
                events: self.events,
                control: self.control,
                fence: self.fence,
                alarm: self.alarm,
                copier: self.copier,
                cuts: self.cuts,
                silence: self.silence,
            },
        }
    }
}
