//! Signals that mean the same to every command: the end of a terminal, and the limit on files' sizes.

use std::io;
use std::ptr;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vmm_sys_util::signal::register_signal_handler;

/// Lets a write beyond the limit on a file's size fail with EFBIG, as on a full disk, instead of ending
/// the process: what was to be written is lost, and a machine lives on.
///
/// With a handler, not by ignoring it: programs that are started from here do not inherit that.
///
/// # Errors
/// If the handler cannot be installed.
pub fn survive_file_limit() -> io::Result<()> {
    if is_ignored(libc::SIGXFSZ)? {
        return Ok(());
    }
    let installed = register_signal_handler(libc::SIGXFSZ, noticed);
    installed.map_err(|e| io::Error::from_raw_os_error(e.errno()))
}

/// The write's own error tells all.
extern "C" fn noticed(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// SIGHUP, unless the process was started with it ignored (nohup).
#[derive(Debug)]
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// Listens for it, inside a runtime.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub fn listen() -> io::Result<Hangup> {
        Ok(Hangup(match is_ignored(libc::SIGHUP)? {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        }))
    }

    /// The next one. Cancel-safe.
    pub async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action this only fills in the old one, for which there is room.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it is filled in.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}
