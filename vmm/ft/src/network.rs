//! A member's end of the guest's network, as its operator sees it: whether its TAP is there and up, and
//! what was dropped; and a survivor's announcements.

use super::EventLog;
use lockstep_backends::{Link, Tap};
use lockstep_events::{Event, LinkState, NetworkStatus};
use std::future::pending;
use std::sync::Arc;
use tokio::sync::watch;

/// The TAP of a member, if the guest has a network.
#[derive(Debug, Default)]
pub struct Network {
    tap: Option<(Arc<Tap>, watch::Receiver<Link>)>,
}

impl Network {
    /// With this TAP.
    pub fn new(tap: Option<&Arc<Tap>>) -> Network {
        let watched = |tap: &Arc<Tap>| {
            let mut changes = tap.changes();
            // What was wrong from the start is to be told as well.
            if tap.link() != Link::Up {
                changes.mark_changed();
            }
            (Arc::clone(tap), changes)
        };
        Network {
            tap: tap.map(watched),
        }
    }

    /// How it stands with the TAP's interface once that is news. Cancel-safe.
    pub async fn changed(&mut self) -> Link {
        if let Some((tap, changes)) = &mut self.tap
            && changes.changed().await.is_ok()
        {
            return tap.link();
        }
        pending().await
    }

    /// Tells supervisors of it. The TAP itself has warned.
    pub fn tell(&self, link: &Link, events: &mut EventLog) {
        if let Some((tap, _)) = &self.tap {
            let why = match link {
                Link::Gone(why) => Some(why.clone()),
                Link::Up | Link::Down => None,
            };
            events.emit(Event::Network {
                tap: tap.name().into(),
                link: state(link),
                why,
            });
        }
    }

    /// For `lockstep status`: none without a network.
    pub fn status(&self) -> Option<NetworkStatus> {
        let (tap, _) = self.tap.as_ref()?;
        let filtered = tap.filtered();
        Some(NetworkStatus {
            tap: tap.name().into(),
            link: state(&tap.link()),
            dropped: tap.dropped(),
            foreign: filtered.foreign,
            over_rate: filtered.over_rate,
        })
    }
}

/// In a word.
fn state(link: &Link) -> LinkState {
    match link {
        Link::Up => LinkState::Up,
        Link::Down => LinkState::Down,
        Link::Gone(_) => LinkState::Gone,
    }
}
