//! What the server knows about each connection, for its own use and for CLIENT LIST.

use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddrV4;

use crate::buffer::OutOfMemory;
use crate::reply::Protocol;

/// Longest label, bytes.
pub const MAX_LABEL: usize = 64;

/// A short text that a client gave.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    bytes: [u8; MAX_LABEL],
    length: usize,
}

impl Label {
    /// No text.
    pub const EMPTY: Self = Self {
        bytes: [0; MAX_LABEL],
        length: 0,
    };

    /// A text; `None` if it is too long or has other characters than visible ASCII.
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut label = Self::EMPTY;
        let place = label.bytes.get_mut(..text.len())?;
        place.copy_from_slice(text);
        label.length = text.len();
        text.iter().all(u8::is_ascii_graphic).then_some(label)
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    /// The answer to CLIENT ID.
    pub id: u64,
    /// The peer's address, if it is known.
    pub peer: Option<SocketAddrV4>,
    /// What CLIENT SETNAME set.
    pub name: Label,
    /// What CLIENT SETINFO set: the library's name and version.
    pub library: [Label; 2],
    /// The selected database.
    pub db: usize,
    /// The protocol of its replies.
    pub protocol: Protocol,
    /// The number of commands that wait for EXEC; `None` outside of MULTI.
    pub queued: Option<usize>,
    /// When it began and when it sent its last command, nanoseconds since boot.
    pub since_ns: u64,
    /// See `since_ns`.
    pub heard_ns: u64,
    /// Its last command.
    pub last: &'static str,
}

impl Session {
    fn new(id: u64, peer: Option<SocketAddrV4>, now_ns: u64) -> Self {
        Self {
            id,
            peer,
            name: Label::EMPTY,
            library: [Label::EMPTY; 2],
            db: 0,
            protocol: Protocol::Resp2,
            queued: None,
            since_ns: now_ns,
            heard_ns: now_ns,
            last: "NULL",
        }
    }
}

/// All connections that have sent something, in the order of their ids.
#[derive(Debug, Default)]
pub struct Sessions {
    all: Vec<Session>,
    /// Number of connections so far, which is also the id of the latest.
    count: u64,
    /// The present time, nanoseconds since boot.
    pub now_ns: u64,
}

impl Sessions {
    /// Begins a connection. Returns its id.
    pub fn begin(&mut self, peer: Option<SocketAddrV4>) -> Result<u64, OutOfMemory> {
        self.count += 1;
        self.all.try_reserve(1).map_err(|_| OutOfMemory)?;
        self.all.push(Session::new(self.count, peer, self.now_ns));
        Ok(self.count)
    }

    /// Ends a connection.
    pub fn end(&mut self, id: u64) {
        if let Ok(at) = self.find(id) {
            self.all.remove(at);
        }
    }

    /// Connection `id`, which has begun.
    pub fn get(&mut self, id: u64) -> &mut Session {
        let at = self.find(id).expect("it has begun and not ended");
        &mut self.all[at]
    }

    fn find(&self, id: u64) -> Result<usize, usize> {
        self.all.binary_search_by_key(&id, |it| it.id)
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.all.iter()
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of connections so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}
