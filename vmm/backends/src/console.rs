//! The console's ends on the host.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// End of transmission: what the guest reads when the input ends.
const EOT: u8 = 0x04;

/// Is the descriptor ready, without waiting for it?
fn ready_now(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<bool> {
    let mut set = [PollFd::from_borrowed_fd(fd, what)];
    match poll(&mut set, Some(&Timespec::default())) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Where the guest's console is (`--console`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleChoice {
    /// Standard input and output.
    Stdio,
    /// Output to this file, no input.
    File(PathBuf),
    /// Nowhere.
    None,
}

impl FromStr for ConsoleChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<ConsoleChoice, Self::Err> {
        Ok(match text {
            "stdio" => ConsoleChoice::Stdio,
            "none" => ConsoleChoice::None,
            path => ConsoleChoice::File(path.into()),
        })
    }
}

/// Text that may wait for a reader who does not read, bytes; more is dropped, as on a serial line.
pub const BACKLOG_BYTES: usize = 1 << 20;
/// What a descriptor that is ready for writing takes without blocking: PIPE_BUF (pipe(7)).
const READY_BYTES: usize = 4096;

/// A console whose reader may stop reading without stopping the writer.
#[derive(Debug)]
pub struct PatientConsole {
    output: ConsoleOutput,
    backlog: VecDeque<u8>,
    dropping: bool,
}

impl PatientConsole {
    /// Prints to `output`.
    pub fn new(output: ConsoleOutput) -> PatientConsole {
        PatientConsole {
            output,
            backlog: VecDeque::new(),
            dropping: false,
        }
    }

    /// Prints what the reader takes now and keeps the rest.
    pub fn write(&mut self, data: &[u8]) {
        self.backlog.extend(data);
        self.flush();
        let over = self.backlog.len().saturating_sub(BACKLOG_BYTES);
        if over > 0 {
            self.backlog.truncate(BACKLOG_BYTES);
            if !self.dropping {
                tracing::warn!("nobody reads the console: what the guest prints is dropped");
            }
        }
        self.dropping = over > 0;
    }

    /// Prints of what was kept as much as the reader takes now.
    pub fn flush(&mut self) {
        if let Err(e) = self.try_flush() {
            // A machine outlives its console.
            tracing::warn!("the console cannot be written ({e}): what the guest prints is dropped");
            self.output = ConsoleOutput::None;
            self.backlog.clear();
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        while !self.backlog.is_empty() && self.output.is_ready()? {
            let (part, _) = self.backlog.as_slices();
            let part = &part[..part.len().min(READY_BYTES)];
            self.output.write(part)?;
            let written = part.len();
            self.backlog.drain(..written);
        }
        Ok(())
    }
}

/// What the guest prints.
#[derive(Debug)]
pub enum ConsoleOutput {
    /// To standard output.
    Stdout(io::Stdout),
    /// To a file.
    File(File),
    /// Nowhere.
    None,
}

impl ConsoleOutput {
    /// Opens it; a file is continued if it is there.
    pub fn open(choice: &ConsoleChoice) -> io::Result<ConsoleOutput> {
        Ok(match choice {
            ConsoleChoice::Stdio => ConsoleOutput::Stdout(io::stdout()),
            ConsoleChoice::File(path) => ConsoleOutput::File(append_to(path)?),
            ConsoleChoice::None => ConsoleOutput::None,
        })
    }

    /// Would [`READY_BYTES`] be taken without blocking?
    fn is_ready(&self) -> io::Result<bool> {
        let fd = match self {
            ConsoleOutput::Stdout(out) => out.as_fd(),
            ConsoleOutput::File(file) => file.as_fd(),
            ConsoleOutput::None => return Ok(true),
        };
        ready_now(fd, PollFlags::OUT)
    }

    /// Prints; waits for a reader who is slow.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            ConsoleOutput::Stdout(out) => {
                out.write_all(data)?;
                out.flush()
            }
            ConsoleOutput::File(file) => file.write_all(data),
            ConsoleOutput::None => Ok(()),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// What is typed to the guest: standard input, until it ends.
#[derive(Debug)]
pub struct ConsoleInput {
    stdin: Option<io::Stdin>,
}

impl ConsoleInput {
    /// Standard input for [`ConsoleChoice::Stdio`], nothing otherwise.
    pub fn open(choice: &ConsoleChoice) -> ConsoleInput {
        ConsoleInput {
            stdin: (*choice == ConsoleChoice::Stdio).then(io::stdin),
        }
    }

    /// What to poll for input; none when there will be no more.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().map(|stdin| stdin.as_fd())
    }

    /// Can it be read without waiting?
    pub fn is_readable(&self) -> io::Result<bool> {
        self.fd()
            .map_or(Ok(false), |fd| ready_now(fd, PollFlags::IN))
    }

    /// Reads up to `limit` bytes; only when the descriptor is readable. The end of the input is one
    /// EOT to the guest, and an input that cannot be read has ended.
    pub fn read(&mut self, limit: usize) -> Vec<u8> {
        let Some(stdin) = &self.stdin else {
            return Vec::new();
        };
        let mut data = vec![0; limit];
        // Not through `Stdin`'s buffer: what it held back could not be polled for.
        let read = match stdin.as_fd().try_clone_to_owned() {
            Ok(fd) => File::from(fd).read(&mut data).unwrap_or(0),
            Err(_) => 0,
        };
        data.truncate(read);
        if read == 0 {
            self.stdin = None;
            data.push(EOT);
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_does_not_read_stops_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut console = PatientConsole::new(ConsoleOutput::File(file));
        // Far more than a pipe and the backlog hold.
        for _ in 0..300 {
            console.write(&[b'x'; READY_BYTES]);
        }
        for _ in 0..300 {
            console.write(&[b'y'; READY_BYTES]);
        }
        assert!(console.dropping);
        let mut reader = reader;
        let mut buffer = vec![0; BACKLOG_BYTES];
        let mut read = 0;
        // The reader is back: everything that was kept comes, in order.
        while !console.backlog.is_empty() {
            let n = reader.read(&mut buffer).unwrap();
            assert!(buffer[..n].iter().all(|byte| *byte == b'x'));
            read += n;
            console.flush();
        }
        assert!(read <= BACKLOG_BYTES + (1 << 20));
    }
}
