//! Whether a TAP's interface is there and up, and taking it up again when it is made anew.

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

/// The interface is looked at when the kernel tells of a change to any, and so often anyway: a TAP that is
/// in use elsewhere becomes free without a word.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two warnings about one TAP, which may come and go.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// How it stands with a TAP's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// There, and up.
    Up,
    /// There, and down: it takes no frame and gives none.
    Down,
    /// Not there, or not to be had, and why.
    Gone(String),
}

impl Link {
    /// In a word.
    pub fn state(&self) -> &'static str {
        match self {
            Link::Up => "up",
            Link::Down => "down",
            Link::Gone(_) => "gone",
        }
    }
}

impl Tap {
    /// How it stands with the interface, as of the last look.
    pub fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// Tells of changes from here on.
    pub fn changes(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Looks at the interface, and attaches to one of its name if there is none.
    pub(super) fn look(&self) {
        let epoch = self.epoch.load(Ordering::Acquire);
        let link = match is_attached(epoch) {
            true => self.look_at(epoch),
            false => self.attach_again(epoch),
        };
        self.link.send_if_modified(|known| {
            // Another reason for the same is no change.
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
                // A full counter wakes just as well.
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

/// Looks after a TAP for as long as it is used, on a thread of its own: warns when its interface goes down
/// or away, and takes it up again.
pub fn look_after(tap: &Arc<Tap>) -> io::Result<()> {
    let doorbell = doorbell().map_err(|e| {
        // It takes a second longer then.
        tracing::debug!("changes of network interfaces are not told ({e})");
        e
    });
    let tap = Arc::downgrade(tap);
    std::thread::Builder::new()
        .name("tap".into())
        .spawn(move || watch(&tap, doorbell.ok().as_ref()))?;
    Ok(())
}

/// A socket on which the kernel says something whenever a network interface changes.
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
        // Whatever came of it, the next look tells.
        let _came = poll(&mut set, Some(&limit));
        // What it says is of no interest, nor that there was too much of it.
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

/// What was told of a TAP last, and when.
#[derive(Debug, Default)]
struct Warnings {
    told: Option<(Link, Instant)>,
}

impl Warnings {
    /// What is to be told now: the link as it is, if it is another than was told. A TAP that comes and goes
    /// is told of now and then.
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
