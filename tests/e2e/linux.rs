//! A Debian guest and its console, as a user has them.

use crate::harness::{Done, Process, lockstep};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The directory in which `guests/linux/make` made guests.
const MADE: &str = env!("LOCKSTEP_LINUX");
/// Its shell's prompt in root's home directory.
const PROMPT: &str = "guest:~# ";
/// How long a boot, or the longest of the programs here, may take beside other tests.
pub const LONG: Duration = Duration::from_secs(300);

/// The files of a guest: `.` for the small one, or the directory of another.
pub fn made(guest: &str) -> [PathBuf; 2] {
    let dir = Path::new(MADE).join(guest);
    [dir.join("vmlinuz"), dir.join("initrd.img")]
}

/// A Debian that runs, and what it has printed.
#[derive(Debug)]
pub struct Console {
    process: Process,
    /// The number of bytes on its console that were looked at.
    seen: usize,
}

impl Console {
    /// Boots a guest of [`made`] with these options, and waits for its prompt.
    #[track_caller]
    pub fn boot(guest: &str, append: &str, more: &[&str]) -> Console {
        let [kernel, initrd] = made(guest);
        let append = format!("console=ttyS0 {append}");
        let mut command = lockstep(["run", "--cpu", "soft", "--append", &append]);
        command.arg(kernel).arg("--initrd").arg(initrd).args(more);
        let mut console = Console {
            process: Process::with_input(&mut command),
            seen: 0,
        };
        console.await_text("the prompt", PROMPT);
        // From here on, the kernel's messages do not come between the lines of programs.
        console.run("dmesg -n 1").good();
        console
    }

    /// What it has printed that was not looked at, without the terminal's carriage returns.
    fn fresh(&self) -> String {
        self.process.stdout()[self.seen..].replace('\r', "")
    }

    /// Waits until it prints this.
    #[track_caller]
    pub fn await_text(&mut self, what: &str, text: &str) {
        let seen = self.seen;
        self.process
            .await_stdout_within(LONG, what, |out| out[seen..].contains(text));
    }

    /// Types a command, and waits for its end. The shell echoes what is typed, so that only a line that
    /// begins with the mark is its own.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Ran {
        let seen = self.process.stdout().len();
        self.seen = seen;
        self.process.input(&format!("{command}; echo ended:$?\n"));
        self.process.await_stdout_within(LONG, command, |out| {
            status(&out[seen..].replace('\r', "")).is_some()
        });
        let text = self.fresh();
        let status = status(&text).expect("awaited");
        Ran {
            command: command.to_owned(),
            status,
            text,
        }
    }

    /// Powers it off, as a user does, and waits until its process has ended.
    #[track_caller]
    pub fn power_off(mut self) -> Done {
        self.process.input("poweroff\n");
        self.process.end_within(LONG)
    }
}

/// The status of a command, once its line is whole. A long command that is echoed has line breaks in it.
fn status(text: &str) -> Option<i32> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines();
    lines.find_map(|line| line.strip_prefix("ended:")?.parse().ok())
}

/// A command that has ended in a guest.
#[derive(Debug)]
pub struct Ran {
    command: String,
    /// Its exit status.
    pub status: i32,
    /// What the console showed meanwhile.
    pub text: String,
}

impl Ran {
    /// Fails unless it ended with status 0. Returns what the console showed.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.status, 0, "{}: {}", self.command, self.text);
        self.text
    }

    /// Fails unless it ended with status 0 and a line of it is this.
    #[track_caller]
    pub fn says(self, line: &str) {
        let found = self.text.lines().any(|text| text == line);
        assert!(found && self.status == 0, "no line {line:?}: {self:#?}");
    }
}
