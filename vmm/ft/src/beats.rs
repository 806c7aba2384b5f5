//! Heartbeats by UDP, beside the channel: they arrive when a full or stuck TCP connection carries
//! nothing.
//!
//! A separate thread sends them, with a higher priority than the host's ordinary threads where that is
//! allowed: on a busy host the runtime's thread may wait for a processor longer than a peer waits for a
//! beat. The thread only repeats the last beat that the runtime permitted, for at most [`LICENCE`]. So
//! a runtime that hangs becomes silent, and a runtime whose vCPU hangs silences the thread at once.

use super::priority;
use super::readable::readable;
use ft_protocol::wire::Beat;
use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// How often a beat is sent: five of them within the silence that is suspicious
/// ([`ft_protocol::detector::Timing::silence`]).
pub const INTERVAL: Duration = Duration::from_millis(50);

/// Beats arrive at present if one came within this time.
const PASSES: Duration = Duration::from_millis(250);

/// How long the last permitted beat is repeated: as long as a peer tolerates a channel that carries
/// nothing, which is the runtime's part ([`ft_protocol::detector::Timing::stuck`]).
pub const LICENCE: Duration = Duration::from_secs(2);

/// One side's socket for beats.
#[derive(Debug)]
pub struct Beats {
    /// `None` if no socket could be made: beats alone decide nothing.
    socket: Option<AsyncFd<OwnedFd>>,
    /// The address to which beats are sent.
    peer: Option<SocketAddr>,
    /// When the last beat arrived.
    heard: Cell<Option<Instant>>,
    /// `None` if nothing is sent.
    beater: Option<Beater>,
}

/// A socket for beats and the thread that will send them: all that must be there before the guest runs.
#[derive(Debug)]
pub struct Reserved {
    socket: StdSocket,
    beater: Beater,
}

impl Reserved {
    /// Uses this socket. Its thread waits.
    pub fn new(socket: StdSocket, every: Duration) -> io::Result<Reserved> {
        socket.set_nonblocking(true)?;
        Ok(Reserved {
            beater: Beater::start(socket.try_clone()?, every)?,
            socket,
        })
    }
}

impl Beats {
    /// The primary's, on its own port. Beats are sent to the address from which the backup's come.
    pub fn on(port: Reserved) -> io::Result<Beats> {
        Beats::with(port, None)
    }

    /// Neither sends nor receives.
    pub fn none() -> Beats {
        Beats {
            socket: None,
            peer: None,
            heard: Cell::new(None),
            beater: None,
        }
    }

    /// The backup's: on any port, sending to the channel's address.
    pub fn towards(channel: SocketAddr, every: Duration) -> io::Result<Beats> {
        let any = match channel {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        Beats::with(Reserved::new(StdSocket::bind(any)?, every)?, Some(channel))
    }

    fn with(reserved: Reserved, peer: Option<SocketAddr>) -> io::Result<Beats> {
        Ok(Beats {
            beater: Some(reserved.beater),
            socket: Some(readable(reserved.socket.into())?),
            peer,
            heard: Cell::new(None),
        })
    }

    /// Sends to this address from now on.
    pub fn answer_to(&mut self, peer: SocketAddr) {
        self.peer = Some(peer);
    }

    /// Permits the sending of this beat, and of more like it until the next one is long overdue.
    /// Nothing depends on a single beat.
    pub fn send(&self, beat: Beat) {
        if let (Some(beater), Some(to)) = (&self.beater, self.peer) {
            beater.say(Some(Licence {
                beat,
                to,
                until: Instant::now() + LICENCE,
            }));
        }
    }

    /// Sends nothing more until [`Beats::send`].
    pub fn silence(&self) {
        if let Some(beater) = &self.beater {
            beater.say(None);
        }
    }

    /// Do the peer's beats arrive at present? Then this side's arrive there as well: both use one path,
    /// which the backup's beats open.
    pub fn pass(&self) -> bool {
        let heard = self.heard.get();
        heard.is_some_and(|at| at.elapsed() < PASSES)
    }

    /// The next beat, and its sender's address. Other datagrams are ignored. Cancel-safe.
    pub async fn next(&self) -> (Beat, SocketAddr) {
        let Some(socket) = &self.socket else {
            return std::future::pending().await;
        };
        loop {
            let mut ready = match socket.readable().await {
                Ok(ready) => ready,
                Err(e) => {
                    tracing::warn!("no heartbeats by UDP arrive any more ({e})");
                    return std::future::pending().await;
                }
            };
            match self.read(socket) {
                Datagram::Beat(beat, from) => return (beat, from),
                Datagram::Other => {}
                Datagram::None => ready.clear_ready(),
            }
        }
    }

    /// A beat that has arrived already, if any. It asks the socket itself, as the runtime may not have
    /// polled it since this thread was last interrupted.
    pub fn arrived(&self) -> Option<(Beat, SocketAddr)> {
        let socket = self.socket.as_ref()?;
        // Other datagrams are dropped; there may be more behind them.
        for _ in 0..ARRIVED_AT_ONCE {
            match self.read(socket) {
                Datagram::Beat(beat, from) => return Some((beat, from)),
                Datagram::Other => {}
                Datagram::None => return None,
            }
        }
        None
    }

    fn read(&self, socket: &AsyncFd<OwnedFd>) -> Datagram {
        let mut datagram = [0; Beat::MAX_DATAGRAM];
        let flags = rustix::net::RecvFlags::DONTWAIT;
        match rustix::net::recvfrom(socket.get_ref(), &mut datagram, flags) {
            Ok((len, _, from)) => {
                let beat = Beat::decode(&datagram[..len]);
                let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                match beat.zip(from) {
                    Some((beat, from)) => {
                        self.heard.set(Some(Instant::now()));
                        Datagram::Beat(beat, from)
                    }
                    None => Datagram::Other,
                }
            }
            Err(rustix::io::Errno::AGAIN) => Datagram::None,
            // An ICMP message about an earlier beat: the peer is not there yet, or not any more.
            Err(e) => {
                tracing::debug!("no heartbeat ({e})");
                Datagram::Other
            }
        }
    }
}

/// What was read of the socket.
enum Datagram {
    Beat(Beat, SocketAddr),
    Other,
    None,
}

/// Most datagrams that are read in one call.
const ARRIVED_AT_ONCE: usize = 64;

/// What may be sent, to which address, and until when.
#[derive(Clone, Copy, Debug)]
struct Licence {
    beat: Beat,
    to: SocketAddr,
    until: Instant,
}

impl Licence {
    fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}

/// The sending thread. It ends when this is dropped.
#[derive(Debug)]
struct Beater {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    licence: Mutex<Option<Licence>>,
    over: AtomicBool,
}

impl Beater {
    fn start(socket: StdSocket, every: Duration) -> io::Result<Beater> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("beats".into())
            .spawn(move || theirs.beat(&socket, every))?;
        Ok(Beater { shared, thread })
    }

    fn say(&self, licence: Option<Licence>) {
        let before = {
            let mut held = self.shared.licence.lock();
            let held = held.as_deref_mut().expect("nobody panics with this lock");
            std::mem::replace(held, licence)
        };
        // Otherwise it wakes up by itself.
        if before.is_none_or(|before| !before.holds()) {
            self.thread.thread().unpark();
        }
    }
}

impl Drop for Beater {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }
}

impl Shared {
    /// The thread's loop.
    fn beat(&self, socket: &StdSocket, every: Duration) {
        priority::raise();
        let mut count = 0;
        let mut known = None;
        while !self.over.load(Ordering::Acquire) {
            // The holder of the lock may wait for a processor; meanwhile the last permission is still
            // valid.
            if let Ok(licence) = self.licence.try_lock() {
                known = *licence;
            }
            let Some(Licence { beat, to, .. }) = known.filter(Licence::holds) else {
                std::thread::park();
                continue;
            };
            count = beat.count.max(count + 1);
            let beat = Beat { count, ..beat };
            if let Err(e) = socket.send_to(&beat.encode(), to) {
                tracing::debug!("a heartbeat was not sent ({e})");
            }
            std::thread::park_timeout(every);
        }
    }
}

#[cfg(test)]
mod tests;
