//! A member's side of the guest's network, as its operator sees it: the state of its TAP, counts of
//! dropped frames, and a survivor's announcements.

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
    /// A member with this TAP.
    pub fn new(tap: Option<&Arc<Tap>>) -> Network {
        let watched = |tap: &Arc<Tap>| {
            let mut changes = tap.changes();
            // A problem from the start must be reported too.
            if tap.link() != Link::Up {
                changes.mark_changed();
            }
            (Arc::clone(tap), changes)
        };
        Network {
            tap: tap.map(watched),
        }
    }

    /// The state of the TAP's interface, when it has changed. Cancel-safe.
    pub async fn changed(&mut self) -> Link {
        if let Some((tap, changes)) = &mut self.tap
            && changes.changed().await.is_ok()
        {
            return tap.link();
        }
        pending().await
    }

    /// Reports it in the events. The TAP itself has logged a warning.
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
