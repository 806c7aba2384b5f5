//! Connections to the channel's port, up to the moment when the protocol sees them.
//!
//! Anybody can connect. Several strangers at once have a short time to say Hello. A connection that
//! has, and that shows by a heartbeat that its peer is alive, waits as a candidate until there is a
//! place for a backup. So a connection that says nothing, or that has closed again, neither keeps a
//! backup waiting nor costs a generation.

use super::link::{ACCEPT_AGAIN, Link, LinkError};
use super::strangers::{Known, Strangers};
use ft_protocol::wire::Message;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Most connections that have not said Hello; with one more, the oldest is closed.
pub const STRANGERS: usize = 64;
/// How long a connection may take to say Hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Most bytes that are read for one message: Hello has a name, an id and the properties of a host.
const MESSAGE_BYTES: usize = 4 << 10;
/// Most connections that have said Hello and wait for a place; one more is closed, and may try again.
const CANDIDATES: usize = 8;
/// A candidate that sends nothing for this time is gone: a backup sends heartbeats.
const SILENT_CANDIDATE: Duration = Duration::from_secs(1);

/// A connection that has said Hello, and whose peer is alive.
#[derive(Debug)]
pub struct Candidate {
    /// The connection; only Hello and heartbeats were read from it.
    pub link: Link,
    /// Hello, or its first message.
    pub hello: Message,
    /// Its address.
    pub peer: SocketAddr,
}

/// Why a connection does not become a candidate.
#[derive(Debug, Error)]
enum NoCandidate {
    #[error("{0}")]
    Socket(io::Error),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("it says nothing")]
    Silent,
    #[error("it says nothing more")]
    Gone,
    #[error("too many others wait")]
    Crowd,
    #[error("it says {0}, out of turn")]
    OutOfTurn(&'static str),
}

/// The port's connections. Dropping it closes the port.
#[derive(Debug)]
pub struct Lobby {
    candidates: Receiver<Candidate>,
    /// Asks one candidate to come.
    call: Arc<Notify>,
    /// A candidate was asked, and has not come yet.
    called: bool,
    accepts: JoinHandle<()>,
}

/// What the task of a stranger needs.
#[derive(Clone)]
struct Door {
    call: Arc<Notify>,
    candidates: Sender<Candidate>,
    places: Arc<Semaphore>,
}

impl Lobby {
    /// Lets peers connect. Must be called inside the runtime.
    pub fn open(listener: TcpListener) -> Lobby {
        // One candidate is asked at a time.
        let (sender, candidates) = channel(1);
        let call = Arc::new(Notify::new());
        let door = Door {
            call: call.clone(),
            candidates: sender,
            places: Arc::new(Semaphore::new(CANDIDATES)),
        };
        Lobby {
            candidates,
            call,
            called: false,
            accepts: tokio::spawn(accept(listener, door)),
        }
    }

    /// The next candidate; never without a lobby. Cancel-safe.
    pub async fn next(lobby: &mut Option<Lobby>) -> Candidate {
        let Some(lobby) = lobby else {
            return std::future::pending().await;
        };
        loop {
            if !std::mem::replace(&mut lobby.called, true) {
                lobby.call.notify_one();
            }
            let Some(mut candidate) = lobby.candidates.recv().await else {
                return std::future::pending().await;
            };
            lobby.called = false;
            // It may have waited here, where nothing was read from it.
            match candidate.link.arrived() {
                None | Some(Ok(Message::Heartbeat)) => return candidate,
                Some(_) => {}
            }
        }
    }
}

impl Drop for Lobby {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

async fn accept(listener: TcpListener, door: Door) {
    let mut strangers = Strangers::at_most(STRANGERS);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let door = door.clone();
                strangers.admit(|known| async move {
                    if let Err(why) = door.receive(stream, peer, known).await {
                        tracing::debug!("{peer} is no candidate: {why}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("a connection could not be accepted ({e})");
                // For instance, there are no descriptors left: wait instead of spinning.
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

impl Door {
    /// Serves one connection, until it gets a place.
    async fn receive(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        known: Known,
    ) -> Result<(), NoCandidate> {
        let mut link = Link::new(stream).map_err(NoCandidate::Socket)?;
        let hello = timeout(HELLO_LIMIT, link.next_short(MESSAGE_BYTES)).await;
        let hello = hello.map_err(|_| NoCandidate::Silent)??;
        known.note();
        let place = self.places.try_acquire();
        let _place = place.map_err(|_| NoCandidate::Crowd)?;
        let mut there = false;
        loop {
            tokio::select! {
                biased;
                said = timeout(SILENT_CANDIDATE, link.next_short(MESSAGE_BYTES)) => {
                    match said.map_err(|_| NoCandidate::Gone)?? {
                        Message::Heartbeat => there = true,
                        other => return Err(NoCandidate::OutOfTurn(other.name())),
                    }
                }
                () = self.call.notified(), if there => break,
            }
        }
        let candidate = Candidate { link, hello, peer };
        // If the runtime is gone, no candidate is needed.
        let _gone = self.candidates.send(candidate).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
