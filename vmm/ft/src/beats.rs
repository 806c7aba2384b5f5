//! Heartbeats by UDP, beside the channel: they arrive when a full or stuck TCP connection carries
//! nothing.
//!
//! A separate thread sends them, with a higher priority than the host's ordinary threads where that is
//! allowed: on a busy host the runtime's thread may wait for a processor longer than a peer waits for a
//! beat. The thread only repeats the last beat that the runtime permitted, for at most [`LICENCE`]. So
//! a runtime that hangs becomes silent, and a runtime whose vCPU hangs silences the thread at once.

use super::priority;
use ft_protocol::wire::Beat;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// How long the last permitted beat is repeated: as long as a peer tolerates a channel that carries
/// nothing, which is the runtime's part ([`ft_protocol::detector::Timing::stuck`]).
pub const LICENCE: Duration = Duration::from_secs(2);

/// One side's socket for beats.
#[derive(Debug)]
pub struct Beats {
    /// `None` if no socket could be made: beats alone decide nothing.
    socket: Option<UdpSocket>,
    /// The address to which beats are sent.
    peer: Option<SocketAddr>,
    /// `None` if nothing is sent.
    beater: Option<Beater>,
}

impl Beats {
    /// The primary's, on its own port. Beats are sent to the address from which the backup's come.
    pub fn on(socket: StdSocket, every: Duration) -> io::Result<Beats> {
        Beats::with(socket, None, every)
    }

    /// Neither sends nor receives.
    pub fn none() -> Beats {
        Beats {
            socket: None,
            peer: None,
            beater: None,
        }
    }

    /// The backup's: on any port, sending to the channel's address.
    pub fn towards(channel: SocketAddr, every: Duration) -> io::Result<Beats> {
        let any = match channel {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        Beats::with(StdSocket::bind(any)?, Some(channel), every)
    }

    fn with(socket: StdSocket, peer: Option<SocketAddr>, every: Duration) -> io::Result<Beats> {
        socket.set_nonblocking(true)?;
        Ok(Beats {
            beater: Some(Beater::start(socket.try_clone()?, every)?),
            socket: Some(UdpSocket::from_std(socket)?),
            peer,
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

    /// The next beat, and its sender's address. Other datagrams are ignored. Cancel-safe.
    pub async fn next(&self) -> (Beat, SocketAddr) {
        let Some(socket) = &self.socket else {
            return std::future::pending().await;
        };
        let mut datagram = [0; Beat::MAX_DATAGRAM];
        loop {
            match socket.recv_from(&mut datagram).await {
                Ok((len, from)) => {
                    if let Some(beat) = Beat::decode(&datagram[..len]) {
                        return (beat, from);
                    }
                }
                // An ICMP message about an earlier beat: the peer is not there yet, or not any more.
                Err(e) => tracing::debug!("no heartbeat ({e})"),
            }
        }
    }

    /// A beat that has arrived already, if any. It asks the socket itself, as the runtime may not have
    /// polled it since this thread was last interrupted.
    pub fn arrived(&self) -> Option<(Beat, SocketAddr)> {
        let socket = self.socket.as_ref()?;
        let mut datagram = [0; Beat::MAX_DATAGRAM];
        let flags = rustix::net::RecvFlags::DONTWAIT;
        // Other datagrams are dropped; there may be more behind them.
        for _ in 0..ARRIVED_AT_ONCE {
            match rustix::net::recvfrom(socket, &mut datagram, flags) {
                Ok((len, _, from)) => {
                    let beat = Beat::decode(&datagram[..len]);
                    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                    if let Some(found) = beat.zip(from) {
                        return Some(found);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return None,
                // As above.
                Err(e) => tracing::debug!("no heartbeat ({e})"),
            }
        }
        None
    }
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
