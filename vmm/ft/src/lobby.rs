//! Who connects to the channel's port, up to the moment at which the protocol looks at them.
//!
//! Anybody can connect. Several strangers at once have a little time to say Hello; whoever has, and shows
//! by a heartbeat that it is there, waits as a candidate until there is a place for a backup. So nobody
//! who says nothing, or who is gone again, keeps a backup waiting or costs a generation.

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

/// Connections that have not said Hello; with more, the oldest is closed.
pub const STRANGERS: usize = 64;
/// How long a connection may take to say Hello.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Most that is read for one message, bytes: Hello is a name, an id and what a host is like.
const MESSAGE_BYTES: usize = 4 << 10;
/// Connections that said Hello and wait for a place; one more is closed, and may try again.
const CANDIDATES: usize = 8;
/// A candidate that says nothing for so long is gone: a backup sends heartbeats.
const SILENT_CANDIDATE: Duration = Duration::from_secs(1);

/// A connection that has said Hello, and is there.
#[derive(Debug)]
pub struct Candidate {
    /// The connection, of which only Hello and heartbeats were read.
    pub link: Link,
    /// Hello, or whatever it said first.
    pub hello: Message,
    /// Where it comes from.
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
    /// Calls one candidate in.
    call: Arc<Notify>,
    /// One is called, and has not come yet.
    called: bool,
    accepts: JoinHandle<()>,
}

/// What a stranger's task needs.
#[derive(Clone)]
struct Door {
    call: Arc<Notify>,
    candidates: Sender<Candidate>,
    places: Arc<Semaphore>,
}

impl Lobby {
    /// Lets others connect, inside the runtime.
    pub fn open(listener: TcpListener) -> Lobby {
        // One is called at a time.
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

    /// The next candidate, where anybody can connect. Cancel-safe.
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
            // It may have waited here, where nobody listens to it.
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
                // Out of descriptors, say: no reason to spin.
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

impl Door {
    /// One connection, up to the place that it gets.
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
        // A runtime that is gone needs nobody.
        let _gone = self.candidates.send(candidate).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
