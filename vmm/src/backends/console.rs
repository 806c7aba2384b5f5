//! The console's ends on the host.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// End of transmission: what the guest reads when the input ends.
const EOT: u8 = 0x04;

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

    /// Prints.
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
