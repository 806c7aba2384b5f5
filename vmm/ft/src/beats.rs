//! Heartbeats by UDP, beside the channel: they pass where a full or stuck TCP connection does not.

use ft_protocol::wire::Beat;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;

/// One side's socket for beats.
#[derive(Debug)]
pub struct Beats {
    /// None where none could be made: beats alone decide nothing.
    socket: Option<UdpSocket>,
    /// Where beats go.
    peer: Option<SocketAddr>,
}

impl Beats {
    /// The primary's: on the channel's address. Beats go where the backup's come from.
    pub async fn listen(channel: SocketAddr) -> io::Result<Beats> {
        Ok(Beats {
            socket: Some(UdpSocket::bind(channel).await?),
            peer: None,
        })
    }

    /// Nobody's: nothing is sent, and nothing comes.
    pub fn none() -> Beats {
        Beats {
            socket: None,
            peer: None,
        }
    }

    /// The backup's: on any port, to the channel's address.
    pub async fn towards(channel: SocketAddr) -> io::Result<Beats> {
        let any = match channel {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        Ok(Beats {
            socket: Some(UdpSocket::bind(any).await?),
            peer: Some(channel),
        })
    }

    /// The peer is there.
    pub fn answer_to(&mut self, peer: SocketAddr) {
        self.peer = Some(peer);
    }

    /// Sends one, if it is known where to. Nothing depends on a single one.
    pub fn send(&self, beat: Beat) {
        if let (Some(socket), Some(peer)) = (&self.socket, self.peer)
            && let Err(e) = socket.try_send_to(&beat.encode(), peer)
        {
            tracing::debug!("a heartbeat was not sent ({e})");
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
}
