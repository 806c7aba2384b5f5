//! A recording under a debugger: gdb moves through its time in both directions.
//!
//! A [`Session`] is the recording's machine at any moment; `target` is how gdb's protocol sees it. The machine
//! follows the log as in every replay, and everything that it does is compared with the log.

mod edge;
mod error;
mod events;
mod monitor;
mod pages;
mod registers;
mod session;
mod store;
mod target;
mod wire;

pub use error::DebugError;
pub use session::{Ending, Halt, Interrupt, Session};
pub use store::MOST_BYTES;

use gdbstub::stub::{DisconnectReason, GdbStub};
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_nodelay};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use target::{Debugged, Loop};
use wire::Wire;

/// How a gdb left.
enum Left {
    /// It wants the machine to end.
    Killed,
    /// Another one may come.
    Detached,
}

/// Lets one gdb after the other debug the session, until one of them kills it.
pub fn serve(session: Session, listener: &TcpListener) -> Result<(), DebugError> {
    let mut debugged = Debugged::new(session);
    loop {
        let (stream, peer) = listener.accept()?;
        set_tcp_nodelay(&stream, true).map_err(io::Error::from)?;
        set_socket_keepalive(&stream, true).map_err(io::Error::from)?;
        let output = OwnedFd::from(stream.try_clone()?);
        tracing::info!("gdb has come from {peer}");
        match attend(&mut debugged, Wire::new(stream.into(), output))? {
            Left::Killed => return Ok(()),
            Left::Detached => tracing::info!("gdb has gone; another one may come"),
        }
    }
}

/// Lets one gdb at the other end of two pipes debug the session.
pub fn serve_pipe(session: Session, input: OwnedFd, output: OwnedFd) -> Result<(), DebugError> {
    let mut debugged = Debugged::new(session);
    attend(&mut debugged, Wire::new(input, output)).map(|_| ())
}

/// Lets one gdb debug the session. That it vanishes, or talks nonsense, is no error.
fn attend(debugged: &mut Debugged, wire: Wire) -> Result<Left, DebugError> {
    debugged.forget();
    let ended = GdbStub::new(wire).run_blocking::<Loop>(debugged);
    debugged.forget();
    match ended {
        Ok(DisconnectReason::Kill) => Ok(Left::Killed),
        Ok(
            DisconnectReason::Disconnect
            | DisconnectReason::TargetExited(_)
            | DisconnectReason::TargetTerminated(_),
        ) => Ok(Left::Detached),
        Err(error) if error.is_target_error() => {
            let inside = error.into_target_error();
            Err(inside.expect("it is one"))
        }
        Err(error) => {
            tracing::warn!("the connection to gdb is over: {error}");
            Ok(Left::Detached)
        }
    }
}
