//! Events for tests of the checks. What no check looks at is zero or a word.

use ft_protocol::arbiter::MemberId;
use lockstep_events::{CopyProgress, Event};

pub(super) fn connecting() -> Event {
    let member = MemberId(1);
    Event::Connecting { member }
}

pub(super) fn joined(generation: u64) -> Event {
    Event::Joined { generation }
}

pub(super) fn joining(generation: u64) -> Event {
    Event::Joining { generation }
}

pub(super) fn caught_up() -> Event {
    Event::CaughtUp {
        position: 1,
        edges: 0,
    }
}

pub(super) fn unreachable() -> Event {
    let why = "it is away".to_owned();
    Event::Unreachable { why }
}

pub(super) fn solo(generation: u64) -> Event {
    Event::Solo { generation }
}

pub(super) fn live(generation: u64) -> Event {
    Event::Live {
        generation,
        reemitted: 0,
        shadowed: 0,
    }
}

pub(super) fn copied(pause_ms: f64) -> Event {
    Event::Copied {
        pause_ms,
        progress: CopyProgress::default(),
    }
}

pub(super) fn diverged(position: u64) -> Event {
    Event::Diverged {
        position,
        edges: 0,
        what: "RIP differs".to_owned(),
        parts: None,
    }
}
