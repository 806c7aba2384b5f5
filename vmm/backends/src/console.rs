//! The console's ends on the host.

mod hurry;

pub use hurry::Hurry;

use lockstep_out as out;
use lockstep_out::{Queue, Target};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

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

/// What a descriptor that is ready for writing takes without blocking: PIPE_BUF (pipe(7)).
const READY_BYTES: usize = 4096;
/// A reader who takes text at once is waited for, so that what has left the machine has left the process;
/// one who does not is slow, and waited for no more.
const PATIENCE: Duration = Duration::from_millis(5);

/// A console whose reader may stop reading without stopping the writer: up to [`out::QUEUE_BYTES`] wait
/// for it.
#[derive(Debug)]
pub struct PatientConsole {
    /// None if the console is nowhere.
    queue: Option<Queue<ConsoleOutput>>,
    slow: bool,
}

impl PatientConsole {
    /// Prints to `output`.
    pub fn new(output: ConsoleOutput) -> PatientConsole {
        PatientConsole {
            queue: output.fd().is_some().then(|| out::queue(output)),
            slow: false,
        }
    }

    /// Prints, now if the reader takes it now.
    pub fn write(&mut self, data: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let now = Instant::now();
        self.slow = self.slow && !queue.settle(now);
        queue.push(data.to_vec());
        self.slow = self.slow || !queue.settle(now + PATIENCE);
    }
}

impl Target for ConsoleOutput {
    const THREAD: &'static str = "console";
    const LINES: bool = false;

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd().expect("a console that is nowhere has no queue")
    }

    /// What the guest prints is its own.
    fn gap(&self, _: u64, _: &str) -> Vec<u8> {
        Vec::new()
    }

    fn failing(&self, why: &str) {
        // A machine outlives its console.
        tracing::warn!("the console takes no text ({why}): what the guest prints is dropped");
    }

    fn recovered(&self, _: u64, why: &str) {
        tracing::warn!(
            "the console takes text again; what the guest printed meanwhile was dropped ({why})"
        );
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
            ConsoleChoice::File(path) => ConsoleOutput::File(out::append_to(path)?),
            ConsoleChoice::None => ConsoleOutput::None,
        })
    }

    /// The descriptor; none if it is nowhere.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            ConsoleOutput::Stdout(out) => Some(out.as_fd()),
            ConsoleOutput::File(file) => Some(file.as_fd()),
            ConsoleOutput::None => None,
        }
    }

    /// Prints; waits for a reader who is slow, unless `hurry` says not to. What was not printed then is
    /// dropped.
    pub fn write(&mut self, data: &[u8], hurry: &Hurry) -> io::Result<()> {
        let Some(fd) = self.fd() else { return Ok(()) };
        let mut left = data;
        while !left.is_empty() {
            if !hurry.await_room(fd)? {
                return Ok(());
            }
            let part = &left[..left.len().min(READY_BYTES)];
            match hurry.during(|| rustix::io::write(fd, part)) {
                Ok(written) => left = &left[written..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => {
                    let e = io::Error::from(e);
                    let what = format!("the console cannot be written ({e})");
                    return Err(io::Error::new(e.kind(), what));
                }
            }
        }
        Ok(())
    }
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
mod tests;
