//! What a member has of its peer, whichever of the two it is: the connection, what is heard, and whether
//! this side shows itself.

use crate::Time;
use crate::arbiter::MemberId;
use crate::detector::{Detector, Timing};
use crate::wire::Beat;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// Is there a connection?
    connected: bool,
    pub detector: Detector,
    /// The vCPU's thread of this side does not answer: a member that hangs must not look alive.
    pub mute: bool,
    /// The number of beats sent, and of the last one heard.
    sent: u64,
    heard: u64,
}

impl Peer {
    /// Nobody is connected.
    pub fn new(timing: &Timing, limit: Duration, now: Time) -> Peer {
        Peer {
            connected: false,
            detector: Detector::new(timing, limit, now),
            mute: false,
            sent: 0,
            heard: 0,
        }
    }

    /// There is a connection, and silence on it is suspicious after `limit`.
    pub fn connect(&mut self, timing: &Timing, limit: Duration, now: Time) {
        self.connected = true;
        self.detector = Detector::new(timing, limit, now);
    }

    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// There is no connection any more; whether there was one.
    pub fn disconnect(&mut self) -> bool {
        std::mem::take(&mut self.connected)
    }

    /// It is another member than before: its beats count from the first.
    pub fn is_new(&mut self) {
        self.heard = 0;
    }

    /// The next beat of this side.
    pub fn next_beat(&mut self, generation: u64, from: MemberId) -> Beat {
        self.sent += 1;
        Beat {
            generation,
            from,
            count: self.sent,
        }
    }

    /// A beat came; whether it is the peer's, which is `from` in this generation, and newer than the last.
    pub fn hears(
        &mut self,
        now: Time,
        beat: Beat,
        generation: u64,
        from: Option<MemberId>,
    ) -> bool {
        let its = self.connected
            && Some(beat.from) == from
            && beat.generation == generation
            && beat.count > self.heard;
        if its {
            self.heard = beat.count;
            self.detector.heard_beat(now);
        }
        its
    }

    /// How long it has been silent, as it counts after a tick; none without a connection.
    pub fn silence(&self, now: Time) -> Option<Duration> {
        self.connected.then(|| self.detector.silence(now))
    }
}
