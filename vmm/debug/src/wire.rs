//! The connection to gdb: a socket, or the two ends of a pipe.

use gdbstub::conn::{Connection, ConnectionExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

/// Bytes read at a time.
const READ: usize = 4096;

/// A connection. What is written waits until it is flushed, or until something is to be read.
#[derive(Debug)]
pub struct Wire {
    input: OwnedFd,
    output: OwnedFd,
    inbox: VecDeque<u8>,
    outbox: Vec<u8>,
}

impl Wire {
    /// A connection that is read from the one and written to the other.
    pub fn new(input: OwnedFd, output: OwnedFd) -> Wire {
        Wire {
            input,
            output,
            inbox: VecDeque::new(),
            outbox: Vec::new(),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ];
        loop {
            match rustix::io::read(&self.input, &mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.inbox.extend(&bytes[..read]);
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Is there something to read, or has the other side gone?
    pub fn ready(&mut self) -> bool {
        if !self.inbox.is_empty() {
            return true;
        }
        let now = Timespec::default();
        let mut set = [PollFd::new(&self.input, PollFlags::IN)];
        // An error shows when it is read.
        !matches!(poll(&mut set, Some(&now)), Ok(0) | Err(Errno::INTR))
    }
}

impl Connection for Wire {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.outbox.push(byte);
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.outbox.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut left = &self.outbox[..];
        while !left.is_empty() {
            match rustix::io::write(&self.output, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.clear();
        Ok(())
    }
}

impl ConnectionExt for Wire {
    fn read(&mut self) -> io::Result<u8> {
        loop {
            if let Some(byte) = self.inbox.pop_front() {
                return Ok(byte);
            }
            self.flush()?;
            self.fill()?;
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.inbox.is_empty() && self.ready() {
            self.fill()?;
        }
        Ok(self.inbox.front().copied())
    }
}
