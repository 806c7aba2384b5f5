//! The user's terminal as that of a guest with a serial line: each key goes to the guest as it is typed.

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr,
    tcsetattr,
};
use std::io;
use std::sync::{Mutex, PoisonError};

/// Ctrl-A: the key after it is for Lockstep.
const ESCAPE: u8 = 0x01;
/// After Ctrl-A: leave.
const LEAVE: u8 = b'x';

/// How the terminal was, while it is the guest's.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input as a terminal of the guest; as it was before when this is dropped, or the process ends or
/// panics.
#[derive(Debug)]
pub struct Terminal {
    escaped: bool,
}

impl Terminal {
    /// Takes the terminal, if standard input is one.
    pub fn take() -> io::Result<Option<Terminal>> {
        let stdin = io::stdin();
        if !isatty(&stdin) {
            return Ok(None);
        }
        let before = Terminal::remember()?;
        let mut raw = before.clone();
        raw.input_modes -= InputModes::BRKINT
            | InputModes::PARMRK
            | InputModes::ISTRIP
            | InputModes::INLCR
            | InputModes::IGNCR
            | InputModes::ICRNL
            | InputModes::IXON;
        raw.local_modes -= LocalModes::ECHO
            | LocalModes::ECHONL
            | LocalModes::ICANON
            | LocalModes::ISIG
            | LocalModes::IEXTEN;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        tracing::info!(
            "the terminal is the guest's: Ctrl-A x stops it, Ctrl-A Ctrl-A sends a Ctrl-A"
        );
        Ok(Some(Terminal { escaped: false }))
    }

    /// Leaves the terminal as it is, for processes that this one starts and that may be killed.
    pub fn keep() -> io::Result<Option<Terminal>> {
        if !isatty(io::stdin()) {
            return Ok(None);
        }
        Terminal::remember()?;
        Ok(Some(Terminal { escaped: false }))
    }

    fn remember() -> io::Result<Termios> {
        let before = tcgetattr(io::stdin())?;
        give_back_at_the_end();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before.clone());
        Ok(before)
    }

    /// What of these keys is for the guest. What is for Lockstep is done.
    pub fn pass(&mut self, keys: &mut Vec<u8>) {
        keys.retain(|&key| match (std::mem::take(&mut self.escaped), key) {
            (false, ESCAPE) => {
                self.escaped = true;
                false
            }
            (false, _) | (true, ESCAPE) => true,
            (true, LEAVE) => {
                // As a supervisor would stop it.
                let sent = kill_process(getpid(), Signal::TERM);
                sent.is_err()
            }
            (true, _) => false,
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Makes the terminal what it was.
fn give_back() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // There is nobody to tell that it did not work.
        let _failed = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// The ends at which nothing is dropped: `exit`, and a panic.
fn give_back_at_the_end() {
    extern "C" fn at_exit() {
        give_back();
    }
    // SAFETY: the function may be called at any time, and takes nothing.
    let _full = unsafe { libc::atexit(at_exit) };
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        tell(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(typed: &[&[u8]]) -> Vec<u8> {
        let mut terminal = Terminal { escaped: false };
        let pass = |keys: &&[u8]| {
            let mut keys = keys.to_vec();
            terminal.pass(&mut keys);
            keys
        };
        typed.iter().flat_map(pass).collect()
    }

    #[test]
    fn a_control_a_comes_through_twice_typed_and_hides_what_follows_it() {
        assert_eq!(passed(&[b"ls\r"]), b"ls\r");
        assert_eq!(passed(&[b"a\x01\x01b"]), b"a\x01b");
        assert_eq!(passed(&[b"a\x01qb"]), b"ab");
        assert_eq!(passed(&[b"a\x01", b"\x01b"]), b"a\x01b", "in two reads");
        assert_eq!(
            passed(&[b"a\x03\x04\x1a"]),
            b"a\x03\x04\x1a",
            "for the guest"
        );
    }
}
