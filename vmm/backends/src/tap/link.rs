//! Watches whether a TAP's interface exists and is up, and attaches to it again after it was made anew.

use super::{Tap, TapError, device, is_attached};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The interface is checked when the kernel reports a change of any interface, and after this time
/// anyway: when another process stops using a TAP, nothing is reported.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Least time between two warnings about one TAP, which may come and go.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// The state of a TAP's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// There, and up.
    Up,
    /// It exists and is down: no frame passes.
    Down,
    /// It does not exist or cannot be used; and why.
    Gone(String),
}

impl Link {
    /// The state in one word.
    pub fn state(&self) -> &'static str {
        match self {
            Link::Up => "up",
            Link::Down => "down",
            Link::Gone(_) => "gone",
        }
    }
}

impl Tap {
    /// The state of the interface when it was last checked.
    pub fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// Reports changes of the state from now on.
    pub fn changes(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Checks the interface; attaches again if it was gone.
    pub(super) fn look(&self) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let link = match is_attached(epoch) {
            true => self.look_at(epoch),
            false => self.attach_again(epoch),
        };
        self.link.send_if_modified(|known| {
            // A new reason for the same state is not a change.
            let news = known.state() != link.state();
            *known = link;
            news
        });
    }

    fn look_at(&self, epoch: u64) -> Link {
        match device::is_up(&self.device) {
            Ok(Some(true)) => Link::Up,
            Ok(Some(false)) => Link::Down,
            Ok(None) => {
                self.lose(epoch);
                Link::Gone(self.missing())
            }
            Err(e) => Link::Gone(format!("it cannot be looked at ({e})")),
        }
    }

    fn attach_again(&self, epoch: u64) -> Link {
        let attached = device::open(&self.name).and_then(|new| {
            device::replace(&self.device, &new).map_err(|source| TapError::Io {
                name: self.name.clone(),
                source,
            })
        });
        match attached {
            Ok(()) => {
                self.epoch.store(epoch + 1, Ordering::Release);
                // If the counter is full, the event is already set.
                let _full = rustix::io::write(&self.returned, &1u64.to_ne_bytes());
                self.look_at(epoch + 1)
            }
            Err(TapError::Missing { .. }) => Link::Gone(self.missing()),
            Err(e) => Link::Gone(e.to_string()),
        }
    }

    fn missing(&self) -> String {
        format!(
            "there is no network interface {0} any more: make it again (ip tuntap add dev {0} mode tap), \
             put it on its bridge and bring it up",
            self.name
        )
    }
}

/// Watches a TAP on a thread of its own for as long as the TAP is used: warns when its interface goes
/// down or is removed, and attaches to it again.
pub fn look_after(tap: &Arc<Tap>) -> io::Result<()> {
    let doorbell = doorbell().map_err(|e| {
        // Changes are then noticed up to a second later.
        tracing::debug!("changes of network interfaces are not told ({e})");
        e
    });
    let tap = Arc::downgrade(tap);
    std::thread::Builder::new()
        .name("tap".into())
        .spawn(move || watch(&tap, doorbell.ok().as_ref()))?;
    Ok(())
}

/// A socket that becomes readable whenever a network interface changes.
fn doorbell() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // The protocol is NETLINK_ROUTE, which is 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(
        &socket,
        &SocketAddrNetlink::new(0, libc::RTMGRP_LINK as u32),
    )?;
    Ok(socket)
}

fn watch(tap: &Weak<Tap>, doorbell: Option<&OwnedFd>) {
    let mut warnings = Warnings::default();
    while let Some(tap) = tap.upgrade() {
        tap.look();
        if let Some(link) = warnings.due(&tap.link(), Instant::now()) {
            warn(tap.name(), &link);
        }
        drop(tap);
        let mut set: Vec<PollFd<'_>> = doorbell
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .into_iter()
            .collect();
        let limit = Timespec {
            tv_sec: LOOK_AGAIN.as_secs() as i64,
            tv_nsec: 0,
        };
        // An error or a time-out changes nothing: the next check shows the state.
        let _came = poll(&mut set, Some(&limit));
        // The messages themselves, or the loss of some, do not matter.
        while let Some(socket) = doorbell
            && recv(socket, &mut [0; 4096], RecvFlags::DONTWAIT).is_ok()
        {}
    }
}

fn warn(name: &str, link: &Link) {
    match link {
        Link::Up => tracing::info!("TAP {name} is up again: the guest has its network here"),
        Link::Down => tracing::warn!(
            "TAP {name} is down: the guest has no network here; bring it up (ip link set {name} up)"
        ),
        Link::Gone(why) => {
            tracing::warn!("TAP {name} is gone: the guest has no network here; {why}")
        }
    }
}

/// The last state that was reported, and when.
#[derive(Debug, Default)]
struct Warnings {
    told: Option<(Link, Instant)>,
}

impl Warnings {
    /// The state that must be reported now, if it differs from the last one reported. For a TAP that
    /// comes and goes there is a report at intervals.
    fn due(&mut self, link: &Link, now: Instant) -> Option<Link> {
        let news = match &self.told {
            None => *link != Link::Up,
            Some((told, at)) => told != link && now.saturating_duration_since(*at) >= WARN_AGAIN,
        };
        news.then(|| {
            self.told = Some((link.clone(), now));
            link.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_at_once_and_what_follows_soon_is_told_later() {
        let start = Instant::now();
        let soon = start + Duration::from_secs(1);
        let late = start + WARN_AGAIN;
        let mut warnings = Warnings::default();
        assert_eq!(warnings.due(&Link::Up, start), None);
        assert_eq!(warnings.due(&Link::Down, start), Some(Link::Down));
        assert_eq!(warnings.due(&Link::Down, late), None, "it is known");
        assert_eq!(warnings.due(&Link::Up, soon), None, "not so soon");
        assert_eq!(warnings.due(&Link::Up, late), Some(Link::Up));
    }
}
