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

/// Unsent replies that keep further commands waiting, bytes.
const MAX_UNSENT: usize = 64 * 1024;

/// A connection's state.
///
/// A caller that moves bytes calls [`input`](Self::input) while [`wants_input`](Self::wants_input),
/// sends [`output`](Self::output), tells [`sent`](Self::sent), and calls
/// [`resume`](Self::resume) after that: commands may have waited for the replies before them to
/// leave. When it [is closing](Self::is_closing) and [`finished`](Self::finished), the connection is
/// to be closed; [`end`](Self::end) makes it ready for another.
#[derive(Debug, Default)]
pub struct Client {
    /// What CLIENT ID tells; 0 before the first bytes.
    id: u64,
    peer: Option<SocketAddrV4>,
    /// Bytes received and not executed: part of a command, or commands that wait.
    pending: Buffer,
    out: Buffer,
    transaction: Transaction,
    /// Whether `pending` begins with commands that wait for `out` to drain.
    waiting: bool,
    closing: bool,
}

impl Client {
    /// Whose connection it is, for CLIENT LIST; to be told before the first bytes.
    pub fn set_peer(&mut self, peer: SocketAddrV4) {
        self.peer = Some(peer);
    }

    /// Whether bytes may be handed to [`input`](Self::input).
    pub fn wants_input(&self) -> bool {
        !self.waiting && !self.closing
    }

    /// Executes the commands in `bytes`, which follow those of earlier calls. All of `bytes` is
    /// taken.
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
        // Most often the bytes are whole commands: then nothing is copied.
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

    /// Executes the commands that waited, as far as there is room for their replies.
    pub fn resume(&mut self, server: &mut Server) {
        if self.waiting && self.out.len() < MAX_UNSENT {
            self.waiting = false;
            self.execute_pending(server);
        }
    }

    /// Replies to be sent.
    pub fn output(&self) -> &[u8] {
        self.out.as_slice()
    }

    /// The first `count` bytes of [`output`](Self::output) have been sent.
    pub fn sent(&mut self, count: usize, server: &mut Server) {
        self.out.consume(count);
        self.out.trim(false, &mut server.buffers);
    }

    /// Whether no more commands will be executed: after QUIT or an error in the protocol. The
    /// connection is to be closed as soon as [`output`](Self::output) is empty.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether there is nothing left to do for what has come in: no reply to send, no command that
    /// waits. What remains is at most a command without its end.
    pub fn finished(&self) -> bool {
        self.out.is_empty() && !self.waiting
    }

    /// Forgets the connection; `self` is as new.
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

    /// Executes the whole commands of `bytes`, in order; returns how many bytes they took.
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

    /// Executes the first command of `bytes`; returns its length, 0 if it is not whole.
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

    /// EXEC: executes what was queued. No other connection's command comes between.
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

    /// Executes or queues the first command of `bytes`. An error in the protocol is answered, and
    /// ends the connection.
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

    /// There is no memory to go on with this connection: says so, if there is memory for that.
    fn refuse(&mut self, server: &mut Server) {
        self.closing = true;
        self.pending.trim(true, &mut server.buffers);
        self.transaction.discard(&mut server.buffers);
        if let Ok(mut reply) = Reply::new(&mut self.out, &mut server.buffers, Protocol::Resp2) {
            reply.error(format_args!("{}", Error::from(OutOfMemory)));
        }
    }
}

/// What became of the first command of some bytes.
enum Ran {
    /// It is not whole.
    Partial,
    /// It had this length.
    Whole(usize, Then),
}
