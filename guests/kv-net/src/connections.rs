//! The TCP connections: a fixed number of places, each with a socket and a client.
//!
//! Normally no socket listens. A request for a connection (SYN) is shown to this module first; only if
//! a place is free, its socket listens, for this one request. So a request without a free place is
//! never refused, and a request for a connection that exists never opens a second one.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddrV4;

use kv_core::{Client, Server};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

use crate::watch::Watch;
use crate::{PORT, Peer};

/// Most connections at a time.
pub const CONNECTIONS: usize = 128;
/// Bytes of a socket's window, in each direction.
const WINDOW: usize = 16 * 1024;
/// After this time of silence, a keep-alive asks the peer whether it is there…
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// …and after this time of silence the connection is given up.
const TIMEOUT: Duration = Duration::from_secs(180);
/// A connection that the server has closed is cut if it does not end within this time.
const LINGER: Duration = Duration::from_secs(5);
/// A connection that is opening or closing is cut if its peer has not answered for this time…
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// …and already after this time if another request waits for a place. The stack repeats a segment after
/// a second, so a single lost packet does not cost a connection.
pub const RECLAIM_AFTER: Duration = Duration::from_secs(2);

/// All places, and the server for their clients.
pub struct Connections {
    sockets: SocketSet<'static>,
    places: Vec<Place>,
    /// Places without a connection.
    free: Vec<usize>,
    /// The places with a connection, by their peers.
    open: BTreeMap<Peer, usize>,
    server: Server,
}

struct Place {
    handle: SocketHandle,
    client: Client,
    /// The peer of the connection, if there is one.
    peer: Option<Peer>,
    /// When to cut the connection, after the server has closed it.
    cut_at: Option<Instant>,
    /// The end of the connection was noticed. Its last segments leave before the place is used again.
    ended: bool,
}

/// The answer to a request for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A socket listens for it. [`Connections::settle`] must be called afterwards.
    Welcome,
    /// There is no free place now.
    Wait,
    /// It was answered before; the stack repeats the answer as long as necessary.
    Answered,
    /// The connection exists; its peer must be answered so.
    Exists,
}

impl Connections {
    /// All places are free.
    pub fn new(server: Server) -> Self {
        let mut sockets = SocketSet::new(Vec::with_capacity(CONNECTIONS));
        let places = (0..CONNECTIONS).map(|_| Place {
            handle: sockets.add(socket()),
            client: Client::default(),
            peer: None,
            cut_at: None,
            ended: false,
        });
        Self {
            places: places.collect(),
            sockets,
            free: (0..CONNECTIONS).rev().collect(),
            open: BTreeMap::new(),
            server,
        }
    }

    /// The sockets, for the network stack.
    pub fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    /// The server, whose time must be kept up to date.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.open.len()
    }

    /// Decides about a request for a connection. It gets a place only if it is its turn (`turn`).
    pub fn admit(&mut self, peer: Peer, turn: bool, watch: &mut Watch, now: Instant) -> Admission {
        if let Some(&index) = self.open.get(&peer) {
            match self.state(index) {
                State::SynReceived => return Admission::Answered,
                State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck => return Admission::Exists,
                // The old connection is over.
                State::Closed | State::Listen | State::SynSent | State::TimeWait => {
                    self.release(index, watch);
                }
            }
        }
        if !(turn && self.make_place(watch, now)) {
            return Admission::Wait;
        }
        let Some(index) = self.free.pop() else {
            return Admission::Wait;
        };
        let place = &mut self.places[index];
        let socket = self.sockets.get_mut::<Socket>(place.handle);
        socket
            .listen(PORT)
            .expect("a free place's socket is closed");
        place.peer = Some(peer);
        self.open.insert(peer, index);
        watch.begin(peer);
        Admission::Welcome
    }

    /// Makes sure that the socket of `peer` does not listen any more: its request was not valid, or was
    /// reset before there was a connection.
    pub fn settle(&mut self, peer: Peer, watch: &mut Watch) {
        if let Some(&index) = self.open.get(&peer)
            && self.state(index) == State::Listen
        {
            self.release(index, watch);
        }
    }

    /// Is a place free? If not, the place whose peer has not answered for the longest time becomes
    /// free, if that time is long enough.
    pub fn make_place(&mut self, watch: &mut Watch, now: Instant) -> bool {
        if self.free.is_empty() {
            let debtors = self.open.iter().filter_map(|(&peer, &index)| {
                let since = self.unanswered_since(index, peer, watch)?;
                (since + RECLAIM_AFTER <= now).then_some((since, index))
            });
            if let Some((_, index)) = debtors.min() {
                self.release(index, watch);
            }
        }
        !self.free.is_empty()
    }

    /// Moves bytes between sockets and clients. Returns the time at which it must be called again at
    /// the latest. `waited_for` says that a request waits for a place.
    pub fn serve(&mut self, watch: &mut Watch, waited_for: bool, now: Instant) -> Option<Instant> {
        let mut again: Option<Instant> = None;
        for index in 0..self.places.len() {
            let Some(peer) = self.places[index].peer else {
                continue;
            };
            let debt = self.collect_debt(index, peer, watch, waited_for, now);
            let place = &mut self.places[index];
            let socket = self.sockets.get_mut::<Socket>(place.handle);
            let wanted = match socket.state() {
                State::Closed | State::TimeWait if place.ended => {
                    self.release(index, watch);
                    None
                }
                State::Closed | State::TimeWait => {
                    place.ended = true;
                    Some(now)
                }
                State::Listen | State::SynSent | State::SynReceived => None,
                State::Established
                | State::FinWait1
                | State::FinWait2
                | State::CloseWait
                | State::Closing
                | State::LastAck => place.serve(socket, &mut self.server, now),
            };
            again = [again, debt, wanted].into_iter().flatten().min();
        }
        let churn = self.server.run(now.total_micros() as u64 * 1000);
        let churn = churn.map(|ns| Instant::from_micros(ns.div_ceil(1000) as i64));
        [again, churn].into_iter().flatten().min()
    }

    fn state(&self, index: usize) -> State {
        self.sockets
            .get::<Socket>(self.places[index].handle)
            .state()
    }

    /// Since when the peer of a connection that is opening or closing has not answered. An open
    /// connection's peer may be slow: the socket's own time-out watches it.
    fn unanswered_since(&self, index: usize, peer: Peer, watch: &Watch) -> Option<Instant> {
        match self.state(index) {
            State::SynReceived
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => watch.unanswered_since(peer),
            State::Closed
            | State::Listen
            | State::SynSent
            | State::Established
            | State::TimeWait => None,
        }
    }

    /// Cuts a connection whose peer has not answered for too long. Returns when to look again.
    fn collect_debt(
        &mut self,
        index: usize,
        peer: Peer,
        watch: &Watch,
        waited_for: bool,
        now: Instant,
    ) -> Option<Instant> {
        let since = self.unanswered_since(index, peer, watch)?;
        if now >= since + ANSWER_LIMIT {
            let handle = self.places[index].handle;
            self.sockets.get_mut::<Socket>(handle).abort();
            return Some(now);
        }
        let reclaim_at = since + RECLAIM_AFTER;
        let reclaim_at = Some(reclaim_at).filter(|&at| waited_for && at > now);
        Some(reclaim_at.unwrap_or(since + ANSWER_LIMIT))
    }

    /// Makes a place free. Nothing is sent to the peer: it knows already, or does not answer.
    fn release(&mut self, index: usize, watch: &mut Watch) {
        let place = &mut self.places[index];
        place.client.end(&mut self.server);
        place.cut_at = None;
        place.ended = false;
        let socket = self.sockets.get_mut::<Socket>(place.handle);
        // An aborted socket would still send a reset. A socket that has listened has forgotten its
        // peer.
        socket.abort();
        socket.listen(PORT).expect("the socket is closed");
        socket.close();
        if let Some(peer) = place.peer.take() {
            self.open.remove(&peer);
            watch.end(peer);
            self.free.push(index);
        }
    }
}

impl Place {
    /// Serves an open connection. Returns when it must be cut, if the server has closed it.
    fn serve(&mut self, socket: &mut Socket, server: &mut Server, now: Instant) -> Option<Instant> {
        if let Some(Peer { ip, port }) = self.peer {
            self.client.set_peer(SocketAddrV4::new(ip, port));
        }
        while self.exchange(socket, server) {}
        if self.client.is_closing() {
            // What still arrives is read and dropped: unread bytes would make TCP reset the connection,
            // and the peer could lose the last replies.
            while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
            let cut_at = *self.cut_at.get_or_insert(now + LINGER);
            if now >= cut_at {
                socket.abort();
                return Some(now);
            }
        }
        let heard_all = !socket.may_recv() && socket.recv_queue() == 0;
        // In LAST-ACK the stack does not notice when a peer that reads slowly opens its window again.
        // So the socket is closed only after everything that was sent has arrived.
        let arrived = socket.state() != State::CloseWait || socket.send_queue() == 0;
        if (self.client.is_closing() || heard_all) && self.client.finished() && arrived {
            socket.close();
        }
        self.cut_at
    }

    /// Moves bytes in and out once. Returns whether another round may move more.
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
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; WINDOW]);
    let mut socket = Socket::new(buffer(), buffer());
    // A reply is complete when it is handed over, so there is nothing to wait for.
    socket.set_nagle_enabled(false);
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket.set_timeout(Some(TIMEOUT));
    socket
}
