//! The TCP connections: a fixed number of sockets, each with its client.

use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddrV4;

use guest_rt::clock;
use kv_core::{Client, Server};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpEndpoint};

/// Redis's port.
pub const PORT: u16 = 6379;
/// Connections at a time.
const CONNECTIONS: usize = 128;
/// Bytes of a socket's window, each direction.
const WINDOW: usize = 16 * 1024;
/// A silent peer is asked whether it is there after this time…
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// …and given up if it says nothing for this time.
const TIMEOUT: Duration = Duration::from_secs(180);
/// A connection that we closed may take this long to end before it is cut.
const LINGER: Duration = Duration::from_secs(5);

/// All sockets and clients.
pub struct Connections {
    sockets: SocketSet<'static>,
    all: Vec<Connection>,
    server: Server,
}

struct Connection {
    handle: SocketHandle,
    client: Client,
    /// When to cut it, once it is closed from here.
    cut_at: Option<Instant>,
    /// Whether its end has been seen: the last segments of it leave before its place is reused.
    ended: bool,
}

impl Connections {
    /// Every socket listens.
    pub fn new(server: Server) -> Self {
        let mut sockets = SocketSet::new(Vec::with_capacity(CONNECTIONS));
        let all = (0..CONNECTIONS)
            .map(|_| {
                let buffer = || SocketBuffer::new(vec![0; WINDOW]);
                let mut socket = Socket::new(buffer(), buffer());
                // A reply is complete when it is handed over: there is nothing to gather.
                socket.set_nagle_enabled(false);
                socket.set_keep_alive(Some(KEEP_ALIVE));
                socket.set_timeout(Some(TIMEOUT));
                listen(&mut socket);
                Connection {
                    handle: sockets.add(socket),
                    client: Client::default(),
                    cut_at: None,
                    ended: false,
                }
            })
            .collect();
        Self {
            sockets,
            all,
            server,
        }
    }

    /// The sockets, for the network stack.
    pub fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    /// Moves bytes between sockets and clients. Returns when it wants to be called again at the
    /// latest, whatever the network does.
    pub fn serve(&mut self, now: Instant) -> Option<Instant> {
        self.server.set_time(clock::now_ns(), clock::wall_ns());
        let mut again: Option<Instant> = None;
        for connection in &mut self.all {
            let socket = self.sockets.get_mut::<Socket>(connection.handle);
            let wanted = match socket.state() {
                State::Listen | State::SynReceived => continue,
                State::Closed | State::TimeWait if connection.ended => {
                    connection.recycle(socket, &mut self.server);
                    None
                }
                State::Closed | State::TimeWait => {
                    connection.ended = true;
                    Some(now)
                }
                _ => connection.serve(socket, &mut self.server, now),
            };
            again = [again, wanted].into_iter().flatten().min();
        }
        let churn = self.server.run(clock::now_ns());
        let churn = churn.map(|ns| Instant::from_micros(ns.div_ceil(1000) as i64));
        [again, churn].into_iter().flatten().min()
    }
}

impl Connection {
    /// Serves an open connection. Returns when it is to be cut, if it is closed from here.
    fn serve(&mut self, socket: &mut Socket, server: &mut Server, now: Instant) -> Option<Instant> {
        if let Some(IpEndpoint {
            addr: IpAddress::Ipv4(ip),
            port,
        }) = socket.remote_endpoint()
        {
            self.client.set_peer(SocketAddrV4::new(ip, port));
        }
        while self.exchange(socket, server) {}
        if self.client.is_closing() {
            // What still comes in is for nobody; unread it would make the peer lose our last words.
            while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
            let cut_at = *self.cut_at.get_or_insert(now + LINGER);
            if now >= cut_at {
                socket.abort();
                return Some(now);
            }
        }
        let heard_all = !socket.may_recv() && socket.recv_queue() == 0;
        if (self.client.is_closing() || heard_all) && self.client.finished() {
            socket.close();
        }
        self.cut_at
    }

    /// One round of bytes in and bytes out; whether another may get further.
    fn exchange(&mut self, socket: &mut Socket, server: &mut Server) -> bool {
        let mut moved = false;
        self.client.resume(server);
        while self.client.wants_input() && socket.can_recv() {
            let client = &mut self.client;
            let received = socket.recv(|bytes| {
                client.input(bytes, server);
                (bytes.len(), ())
            });
            moved |= received.is_ok();
        }
        if !self.client.output().is_empty() && socket.can_send() {
            let sent = socket.send_slice(self.client.output()).unwrap_or(0);
            self.client.sent(sent, server);
            moved |= sent > 0;
        }
        moved
    }

    /// Makes an ended connection's place free for the next.
    fn recycle(&mut self, socket: &mut Socket, server: &mut Server) {
        self.client.end(server);
        self.cut_at = None;
        self.ended = false;
        socket.abort();
        listen(socket);
    }
}

fn listen(socket: &mut Socket) {
    socket
        .listen(PORT)
        .expect("the socket is closed and the port is not 0");
}
