//! A connection: commands in, replies out.

use core::mem;
use core::net::SocketAddrV4;

use crate::buffer::{Buffer, OutOfMemory};
use crate::commands::{self, Context, Then};
use crate::error::Error;
use crate::reply::{Protocol, Reply};
use crate::resp;
use crate::server::Server;
use crate::transaction::Transaction;

/// With more bytes of unsent replies than this, further commands wait.
const MAX_UNSENT: usize = 64 * 1024;

/// The state of a connection.
///
/// A caller that moves bytes passes them to [`input`](Self::input) while
/// [`wants_input`](Self::wants_input) is true, sends [`output`](Self::output), reports what was sent by
/// [`sent`](Self::sent), and then calls [`resume`](Self::resume), as commands may have waited until
/// earlier replies left. When the client [is closing](Self::is_closing) and
/// [`finished`](Self::finished), the connection must be closed. [`end`](Self::end) makes the client
/// ready for another connection.
#[derive(Debug, Default)]
pub struct Client {
    /// The answer to CLIENT ID; 0 before the first bytes.
    id: u64,
    peer: Option<SocketAddrV4>,
    /// Bytes received and not executed: a part of a command, or commands that wait.
    pending: Buffer,
    out: Buffer,
    transaction: Transaction,
    /// Does `pending` begin with commands that wait until `out` has drained?
    waiting: bool,
    closing: bool,
}

impl Client {
    /// Sets the peer's address, for CLIENT LIST. Must be called before the first bytes.
    pub fn set_peer(&mut self, peer: SocketAddrV4) {
        self.peer = Some(peer);
    }

    /// May bytes be passed to [`input`](Self::input) now?
    pub fn wants_input(&self) -> bool {
        !self.waiting && !self.closing
    }

    /// Executes the commands in `bytes`, which follow those of earlier calls. Takes all of `bytes`.
    pub fn input(&mut self, bytes: &[u8], server: &mut Server) {
        if self.closing {
            return;
        }
        if self.id == 0 {
            match server.sessions.begin(self.peer) {
                Ok(id) => self.id = id,
                Err(OutOfMemory) => {
                    self.closing = true;
                    return;
                }
            }
        }
        // Usually the bytes are complete commands: then nothing is copied.
        if self.pending.is_empty() {
            let used = self.execute(bytes, server);
            if !self.closing {
                self.keep(&bytes[used..], server);
            }
        } else {
            self.keep(bytes, server);
            self.execute_pending(server);
        }
    }

    /// Executes the commands that waited, as long as there is room for their replies.
    pub fn resume(&mut self, server: &mut Server) {
        if self.waiting && self.out.len() < MAX_UNSENT {
            self.waiting = false;
            self.execute_pending(server);
        }
    }

    /// Replies that are to be sent.
    pub fn output(&self) -> &[u8] {
        self.out.as_slice()
    }

    /// Drops the first `count` bytes of [`output`](Self::output), which were sent.
    pub fn sent(&mut self, count: usize, server: &mut Server) {
        self.out.consume(count);
        self.out.trim(false, &mut server.buffers);
    }

    /// Will no more commands be executed? So after QUIT or a protocol error. The connection must be
    /// closed as soon as [`output`](Self::output) is empty.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Is everything done for what came in: no reply to send, no command that waits? At most a part of
    /// a command is left.
    pub fn finished(&self) -> bool {
        self.out.is_empty() && !self.waiting
    }

    /// Forgets the connection; the client is as new.
    pub fn end(&mut self, server: &mut Server) {
        if self.id != 0 {
            server.sessions.end(self.id);
            server.keys.unwatch(self.id);
        }
        self.transaction.discard(&mut server.buffers);
        self.pending.trim(true, &mut server.buffers);
        self.out.trim(true, &mut server.buffers);
        *self = Self::default();
    }

    fn keep(&mut self, bytes: &[u8], server: &mut Server) {
        if self
            .pending
            .reserve(bytes.len(), &mut server.buffers)
            .is_err()
        {
            self.refuse(server);
            return;
        }
        self.pending.push(bytes);
    }

    fn execute_pending(&mut self, server: &mut Server) {
        if self.closing {
            return;
        }
        let mut pending = mem::take(&mut self.pending);
        let used = self.execute(pending.as_slice(), server);
        pending.consume(used);
        pending.trim(self.closing, &mut server.buffers);
        self.pending = pending;
    }

    /// Executes the complete commands of `bytes`, in order. Returns how many bytes they took.
    fn execute(&mut self, bytes: &[u8], server: &mut Server) -> usize {
        let mut used = 0;
        while used < bytes.len() && !self.closing {
            if self.out.len() >= MAX_UNSENT {
                self.waiting = true;
                break;
            }
            match self.execute_one(&bytes[used..], server) {
                Ok(0) => break,
                Ok(length) => used += length,
                Err(OutOfMemory) => self.refuse(server),
            }
        }
        used
    }

    /// Executes the first command of `bytes`. Returns its length, 0 if it is not complete.
    fn execute_one(&mut self, bytes: &[u8], server: &mut Server) -> Result<usize, OutOfMemory> {
        match self.run(bytes, server)? {
            Ran::Partial => Ok(0),
            Ran::Whole(length, Then::GoOn) => Ok(length),
            Ran::Whole(length, Then::Quit) => {
                self.closing = true;
                Ok(length)
            }
            Ran::Whole(length, Then::Queued) => {
                self.execute_queued(server)?;
                Ok(length)
            }
        }
    }

    /// EXEC: executes the queued commands. No command of another connection comes between them.
    fn execute_queued(&mut self, server: &mut Server) -> Result<(), OutOfMemory> {
        let (mut commands, count) = self.transaction.take();
        let protocol = server.sessions.get(self.id).protocol;
        let outcome = self.execute_all(&commands, count, protocol, server);
        commands.trim(true, &mut server.buffers);
        outcome
    }

    fn execute_all(
        &mut self,
        commands: &Buffer,
        count: usize,
        protocol: Protocol,
        server: &mut Server,
    ) -> Result<(), OutOfMemory> {
        Reply::new(&mut self.out, &mut server.buffers, protocol)?.array(count);
        let mut rest = commands.as_slice();
        while !rest.is_empty()
            && let Ran::Whole(length, _) = self.run(rest, server)?
        {
            rest = &rest[length..];
        }
        Ok(())
    }

    /// Executes or queues the first command of `bytes`. A protocol error is answered, and ends the
    /// connection.
    fn run(&mut self, bytes: &[u8], server: &mut Server) -> Result<Ran, OutOfMemory> {
        let now_ns = server.sessions.now_ns;
        let session = server.sessions.get(self.id);
        let (db, protocol) = (session.db, session.protocol);
        session.heard_ns = now_ns;
        let (command, length) = match resp::parse(bytes, &mut server.arguments) {
            Ok(None) => return Ok(Ran::Partial),
            Ok(Some(parsed)) => parsed,
            Err(error) => {
                let mut reply = Reply::new(&mut self.out, &mut server.buffers, protocol)?;
                reply.error(format_args!("ERR Protocol error: {error}"));
                return Ok(Ran::Whole(0, Then::Quit));
            }
        };
        if command.is_empty() {
            return Ok(Ran::Whole(length, Then::GoOn));
        }
        server.commands += 1;
        let mut context = Context {
            keys: server.keys.view(db),
            reply: Reply::new(&mut self.out, &mut server.buffers, protocol)?,
            sessions: &mut server.sessions,
            id: self.id,
            transaction: &mut self.transaction,
            random: &mut server.random,
            churn: &mut server.churn,
            commands: server.commands,
            then: Then::GoOn,
        };
        commands::execute(command, &mut context);
        Ok(Ran::Whole(length, context.then))
    }

    /// Ends a connection for which there is no memory. Says so, if there is memory for that.
    fn refuse(&mut self, server: &mut Server) {
        self.closing = true;
        self.pending.trim(true, &mut server.buffers);
        self.transaction.discard(&mut server.buffers);
        if let Ok(mut reply) = Reply::new(&mut self.out, &mut server.buffers, Protocol::Resp2) {
            reply.error(format_args!("{}", Error::from(OutOfMemory)));
        }
    }
}

/// What happened to the first command of some bytes.
enum Ran {
    /// It is not complete.
    Partial,
    /// It had this length.
    Whole(usize, Then),
}
