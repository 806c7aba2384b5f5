//! Heartbeats by UDP, beside the channel: they pass where a full or stuck TCP connection does not.
//!
//! They are sent by a thread of its own, which comes before the host's ordinary ones where that is
//! allowed: on a busy host the runtime's thread may wait for a processor longer than a peer has patience.
//! That thread only says what the runtime said last, and no longer than [`LICENCE`]: a runtime that hangs
//! is silent, and one that knows of a vCPU that hangs silences it at once.

use super::priority;
use ft_protocol::wire::Beat;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// What the runtime said last is repeated for so long: as long as a peer bears with a channel that carries
/// nothing, which is the runtime's ([`ft_protocol::detector::Timing::stuck`]).
pub const LICENCE: Duration = Duration::from_secs(2);

/// One side's socket for beats.
#[derive(Debug)]
pub struct Beats {
    /// None where none could be made: beats alone decide nothing.
    socket: Option<UdpSocket>,
    /// Where beats go.
    peer: Option<SocketAddr>,
    /// None where nothing is sent.
    beater: Option<Beater>,
}

impl Beats {
    /// The primary's, on its own port. Beats go where the backup's come from.
    pub fn on(socket: StdSocket, every: Duration) -> io::Result<Beats> {
        Beats::with(socket, None, every)
    }

    /// Nobody's: nothing is sent, and nothing comes.
    pub fn none() -> Beats {
        Beats {
            socket: None,
            peer: None,
            beater: None,
        }
    }

    /// The backup's: on any port, to the channel's address.
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

    /// The peer is there.
    pub fn answer_to(&mut self, peer: SocketAddr) {
        self.peer = Some(peer);
    }

    /// Has this one sent, and more like it until the next one is due by far. Nothing depends on a single
    /// one.
    pub fn send(&self, beat: Beat) {
        if let (Some(beater), Some(to)) = (&self.beater, self.peer) {
            beater.say(Some(Licence {
                beat,
                to,
                until: Instant::now() + LICENCE,
            }));
        }
    }

    /// Nothing more is sent until [`Beats::send`].
    pub fn silence(&self) {
        if let Some(beater) = &self.beater {
            beater.say(None);
        }
    }

    /// The next beat, and where it came from; other datagrams are ignored. Cancel-safe.
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
                // An ICMP message about an earlier one: the peer is not there yet, or not any more.
                Err(e) => tracing::debug!("no heartbeat ({e})"),
            }
        }
    }

    /// A beat that has arrived already; none if there is none. It asks the socket itself: the runtime may
    /// not have looked since this thread was last interrupted.
    pub fn arrived(&self) -> Option<(Beat, SocketAddr)> {
        let socket = self.socket.as_ref()?;
        let mut datagram = [0; Beat::MAX_DATAGRAM];
        let flags = rustix::net::RecvFlags::DONTWAIT;
        // Whatever else comes is thrown away, and there may be more behind it.
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

/// Datagrams that are looked at in one go.
const ARRIVED_AT_ONCE: usize = 64;

/// What may be said, to whom, and until when.
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

/// The thread that sends. It ends when this is dropped.
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
        // Else it wakes up by itself.
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
    /// The thread.
    fn beat(&self, socket: &StdSocket, every: Duration) {
        priority::raise();
        let mut count = 0;
        let mut known = None;
        while !self.over.load(Ordering::Acquire) {
            // Whoever holds the lock may wait for a processor: what was said before holds meanwhile.
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
