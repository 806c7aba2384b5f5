//! One connection of the logging channel.

use crate::beats::{self, Beats, Reserved};
use ft_protocol::log::Damage;
use ft_protocol::wire::{Message, TooLong, WireDecoder, WireEncoder};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// How long a connection that is given up stays open for its last messages.
const CLOSE_LIMIT: Duration = Duration::from_millis(200);

/// How often a heartbeat is sent on the channel while beats pass by UDP. A heartbeat says nothing that a
/// beat does not, and this is enough to keep the channel from looking stuck.
const HEARTBEAT: Duration = Duration::from_millis(140);

/// Why a connection carries no more messages.
#[derive(Clone, Debug, Error)]
pub enum LinkError {
    /// The peer is done with it.
    #[error("the peer closed the connection")]
    Closed,
    /// A message that was to be short is not.
    #[error("its message is longer than {0} bytes")]
    NotShort(usize),
    /// What came is not what a peer sends.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A message that is too long was to be sent.
    #[error(transparent)]
    Unsendable(#[from] TooLong),
    /// The socket failed.
    #[error("{0}")]
    Socket(Arc<io::Error>),
}

impl From<io::Error> for LinkError {
    fn from(e: io::Error) -> LinkError {
        LinkError::Socket(Arc::new(e))
    }
}

/// A connected peer. Sending never waits: what the socket does not accept stays in a buffer, whose size
/// the protocol's window limits.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    encoder: WireEncoder,
    decoder: WireDecoder,
    unsent: Vec<u8>,
    sent: usize,
    /// When the last message was.
    sent_at: Instant,
    buffer: Vec<u8>,
    broken: Option<LinkError>,
}

impl Link {
    /// Uses a connection from which nothing was read, and to which nothing was written.
    pub fn new(stream: TcpStream) -> io::Result<Link> {
        stream.set_nodelay(true)?;
        Ok(Link {
            stream,
            encoder: WireEncoder::default(),
            decoder: WireDecoder::default(),
            unsent: Vec::new(),
            sent: 0,
            sent_at: Instant::now(),
            buffer: vec![0; READ_BYTES],
            broken: None,
        })
    }

    /// Sends a message, after those that were queued. A broken connection shows at the next
    /// [`Link::next`].
    pub fn send(&mut self, message: &Message) {
        self.queue(message);
        self.flush();
    }

    /// Queues a message, to be sent with others by [`Link::flush`].
    pub fn queue(&mut self, message: &Message) {
        if let Err(e) = self.encoder.encode(message, &mut self.unsent) {
            self.broken.get_or_insert(e.into());
        }
    }

    /// Queues these frames of the log in one message. They are copied into it.
    pub fn queue_log<'a>(&mut self, frames: impl Iterator<Item = &'a [u8]> + Clone) {
        if let Err(e) = self.encoder.encode_log(frames, &mut self.unsent) {
            self.broken.get_or_insert(e.into());
        }
    }

    /// Shows that this side runs, unless beats pass and a message was sent a short time ago.
    pub fn heartbeat(&mut self, beats_pass: bool) {
        if !beats_pass || self.sent_at.elapsed() >= HEARTBEAT {
            self.send(&Message::Heartbeat);
        }
    }

    /// Sends what was queued.
    pub fn flush(&mut self) {
        if !self.unsent.is_empty() {
            self.sent_at = Instant::now();
            self.write();
        }
    }

    fn write(&mut self) {
        while self.sent < self.unsent.len() && self.broken.is_none() {
            match self.stream.try_write(&self.unsent[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => self.broken = Some(e.into()),
            }
        }
        // Sent bytes are dropped, also if the socket never catches up.
        if self.sent == self.unsent.len() || self.sent >= READ_BYTES {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// The next message, which must be short: at most `limit` bytes are read for it. An error says why
    /// there will be none.
    pub async fn next_short(&mut self, limit: usize) -> Result<Message, LinkError> {
        let mut read = 0;
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            if read == limit {
                return Err(LinkError::NotShort(limit));
            }
            self.stream.readable().await?;
            let room = (limit - read).min(self.buffer.len());
            match self.stream.try_read(&mut self.buffer[..room]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => {
                    self.decoder.push(&self.buffer[..n]);
                    read += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The next message. An error says why there will be none. Cancel-safe.
    pub async fn next(&mut self) -> Result<Message, LinkError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(message);
            }
            if let Some(why) = &self.broken {
                return Err(why.clone());
            }
            let interest = match self.unsent.is_empty() {
                true => Interest::READABLE,
                false => Interest::READABLE | Interest::WRITABLE,
            };
            let ready = self.stream.ready(interest).await?;
            if ready.is_writable() {
                self.write();
            }
            if ready.is_readable() {
                match self.stream.try_read(&mut self.buffer) {
                    Ok(0) => return Err(LinkError::Closed),
                    Ok(n) => self.decoder.push(&self.buffer[..n]),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }

    /// A message that has arrived already, or the end of the connection; `None` if neither has. It asks
    /// the socket itself, as the runtime may not have polled it since this thread was last interrupted.
    pub fn arrived(&mut self) -> Option<Result<Message, LinkError>> {
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => return Some(Ok(message)),
                Ok(None) => {}
                Err(e) => return Some(Err(e.into())),
            }
            if let Some(why) = &self.broken {
                return Some(Err(why.clone()));
            }
            let flags = rustix::net::RecvFlags::DONTWAIT;
            match rustix::net::recv(&self.stream, &mut self.buffer[..], flags) {
                Ok((0, _)) => return Some(Err(LinkError::Closed)),
                Ok((n, _)) => self.decoder.push(&self.buffer[..n]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return None,
                Err(e) => return Some(Err(io::Error::from(e).into())),
            }
        }
    }

    /// Sends the rest, as far as the peer accepts it soon, and closes. What the peer still sends is
    /// read and dropped: unread bytes would make TCP reset the connection, and our last messages could
    /// be lost.
    pub async fn close(mut self) {
        let flushed = async {
            while !self.unsent.is_empty() && self.broken.is_none() {
                if self.stream.writable().await.is_err() {
                    break;
                }
                self.write();
            }
            let _gone = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
            while self.stream.readable().await.is_ok() {
                match self.stream.try_read(&mut self.buffer) {
                    Ok(1..) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => break,
                }
            }
        };
        // A peer that does not read gets no more.
        let _in_time = tokio::time::timeout(CLOSE_LIMIT, flushed).await;
    }
}

/// The port on which a side listens, or will listen when it runs alone. It is reserved from the start,
/// for TCP and (for beats) UDP, so that a wrong address is noticed before it matters. Nothing can
/// connect yet.
#[derive(Debug)]
pub struct Port {
    channel: TcpSocket,
    beats: Reserved,
}

/// Most connections that wait to be accepted.
const WAITING_CONNECTIONS: u32 = 128;
/// After a failed accept, the next one waits for this time.
pub const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

impl Port {
    /// Reserves this address.
    pub fn reserve(address: SocketAddr) -> io::Result<Port> {
        let channel = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        channel.set_reuseaddr(true)?;
        channel.bind(address)?;
        let beats = Reserved::new(UdpSocket::bind(address)?, beats::INTERVAL)?;
        Ok(Port { channel, beats })
    }

    /// Lets peers connect, and exchanges beats. Must be called inside the runtime.
    pub fn listen(self) -> io::Result<(TcpListener, Beats)> {
        let listener = self.channel.listen(WAITING_CONNECTIONS)?;
        Ok((listener, Beats::on(self.beats)?))
    }
}

/// Most messages that are passed in together before the peer is judged.
pub const HEARD_AT_ONCE: usize = 64;

/// The next message of a connection, if there is one.
pub async fn next_of(link: &mut Option<Link>) -> Result<Message, LinkError> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn what_has_arrived_is_found_without_the_runtime_having_looked() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut link = Link::new(TcpStream::from_std(stream).unwrap()).unwrap();
        assert!(link.arrived().is_none());
        let (mut encoder, mut bytes) = (WireEncoder::default(), Vec::new());
        for message in [Message::Heartbeat, Message::Ready, Message::Leave] {
            encoder.encode(&message, &mut bytes).unwrap();
        }
        // All but the end of the last one.
        let (now, later) = bytes.split_at(bytes.len() - 1);
        peer.write_all(now).unwrap();
        for wanted in [Message::Heartbeat, Message::Ready] {
            assert_eq!(link.arrived().unwrap().unwrap(), wanted);
        }
        assert!(link.arrived().is_none());
        peer.write_all(later).unwrap();
        // The runtime finds what comes after that.
        assert_eq!(link.next().await.unwrap(), Message::Leave);
        drop(peer);
        assert!(matches!(link.arrived(), Some(Err(_))));
    }

    #[tokio::test]
    async fn a_heartbeat_that_says_nothing_new_is_left_out() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).await;
        let mut link = Link::new(connected.unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut peer = Link::new(TcpStream::from_std(peer).unwrap()).unwrap();
        let mut heard = async || {
            let limit = Duration::from_millis(20);
            let heard = tokio::time::timeout(limit, peer.next()).await;
            heard.ok().map(|message| message.unwrap())
        };
        link.queue(&Message::Ready);
        assert_eq!(heard().await, None, "it is queued");
        link.flush();
        assert_eq!(heard().await, Some(Message::Ready));
        link.heartbeat(true);
        assert_eq!(heard().await, None, "beats pass, and something was sent");
        link.heartbeat(false);
        assert_eq!(heard().await, Some(Message::Heartbeat));
        link.sent_at -= HEARTBEAT;
        link.heartbeat(true);
        assert_eq!(
            heard().await,
            Some(Message::Heartbeat),
            "nothing was for long"
        );
    }
}
