//! The signals that every command handles in the same way: SIGHUP, when its terminal closes, and
//! SIGXFSZ, at the limit on the size of files.

use std::io;
use std::ptr;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vmm_sys_util::signal::register_signal_handler;

/// Makes a write beyond the limit on a file's size fail with EFBIG, instead of ending the process: the
/// text is lost as on a full disk, and the machine goes on.
///
/// This installs a handler. To ignore the signal would do the same here, but programs that are started
/// from this process would inherit that.
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

/// Does nothing: the write fails with an error.
extern "C" fn noticed(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// SIGHUP, unless the process was started with it ignored (nohup).
#[derive(Debug)]
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// Starts to listen for SIGHUP. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the handler cannot be installed.
    pub fn listen() -> io::Result<Hangup> {
        Ok(Hangup(match is_ignored(libc::SIGHUP)? {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        }))
    }

    /// Waits for the next SIGHUP; for ever if it is ignored. Cancel-safe.
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
