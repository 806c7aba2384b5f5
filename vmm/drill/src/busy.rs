//! Processes that only burn processor time, to make the host busy.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::getpid;

use super::members::die_with;

/// Most such processes.
pub(super) const LIMIT: i64 = 64;

/// The processes. Dropping this ends them; they also end with the drill, however the drill ends.
#[derive(Debug)]
pub(super) struct Busy(Vec<Child>);

impl Busy {
    /// Starts `count` processes. Must be called on the drill's main thread, like the start of members.
    pub(super) fn start(count: u32) -> io::Result<Self> {
        let mut busy = Self(Vec::new());
        for _ in 0..count {
            let mut command = Command::new("sh");
            command
                .args(["-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .process_group(0);
            let drill = getpid();
            // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
            unsafe { command.pre_exec(move || die_with(drill)) };
            busy.0.push(command.spawn()?);
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            if let Err(e) = child.kill().and_then(|()| child.wait()) {
                tracing::warn!("a busy process cannot be ended ({e})");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn they_are_busy_and_end_with_it() {
        let busy = Busy::start(2).expect("there is a shell");
        let pids: Vec<u32> = busy.0.iter().map(Child::id).collect();
        // The fourteenth field is the processor time that a process has used.
        let worked = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
            let after_name = stat.rsplit_once(')').expect("a name").1;
            let ticks = after_name.split_whitespace().nth(11).expect("a field");
            ticks.parse::<u64>().expect("a number") > 5
        };
        while !pids.iter().all(worked) {
            std::thread::yield_now();
        }
        drop(busy);
        for pid in pids {
            assert!(!fs::exists(format!("/proc/{pid}")).expect("asked"));
        }
    }
}
