//! The processes that a drill starts, follows and ends.

mod error;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};

use super::clock::mono_ns;
use super::events::{EventFile, EventsError};
use super::interrupt::Interrupts;
use lockstep_events::{Event, Stamped};
use lockstep_netns::enter_network;

pub use error::MemberError;

/// Events files are read again after this time even without a notification, because some file systems
/// give none.
const REREAD: Duration = Duration::from_millis(100);
/// How long a member may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Exit status of a member whose command or host cannot do what was asked.
const STATUS_CANNOT: i32 = 2;
/// Most characters of a dead member's last line that are quoted.
const LAST_WORDS_LIMIT: usize = 400;

/// The program that members run.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Arguments before those of the member.
    pub(super) leading: Vec<OsString>,
}

impl Program {
    /// The program that is running now. This path still means the same file after a rebuild.
    pub(super) fn this() -> Self {
        Self {
            path: "/proc/self/exe".into(),
            leading: Vec::new(),
        }
    }
}

/// Identifies a member of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemberId(usize);

/// Resources that a member uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resources {
    /// Resident memory, KiB.
    pub(super) memory_kib: u64,
    pub(super) open_files: u64,
}

#[derive(Debug)]
struct Member {
    name: &'static str,
    child: Child,
    pidfd: OwnedFd,
    events: EventFile,
    stderr: PathBuf,
    ended: bool,
}

/// All members of one run. Dropping this kills those that still run.
#[derive(Debug)]
pub(super) struct Members {
    dir: PathBuf,
    program: Program,
    interrupts: Interrupts,
    list: Vec<Member>,
}

impl Members {
    /// No members yet. Their files will be in `dir`.
    pub(super) fn new(dir: &Path, program: Program, interrupts: Interrupts) -> Self {
        Self {
            dir: dir.to_owned(),
            program,
            interrupts,
            list: Vec::new(),
        }
    }

    /// Starts a member with `args`, to which `--events` is added, in `network` or in the drill's own
    /// network. Its files in the run's directory are `NAME.events`, `NAME.stdout` and `NAME.stderr`.
    ///
    /// Must be called on the drill's main thread: the kernel ends a member when the thread that started
    /// it ends.
    pub(super) fn start(
        &mut self,
        name: &'static str,
        args: Vec<OsString>,
        network: Option<BorrowedFd<'_>>,
    ) -> Result<MemberId, MemberError> {
        let start_error = |source| MemberError::Start { name, source };
        let events_path = self.file(name, "events");
        let stderr = self.file(name, "stderr");
        let events = EventFile::create(&events_path)
            .map_err(|source| MemberError::Events { name, source })?;
        let mut command = Command::new(&self.program.path);
        command
            .arg0("lockstep")
            .args(&self.program.leading)
            .args(args)
            .arg("--events")
            .arg(events_path)
            .env("LOCKSTEP_RUNTIME_DIR", self.runtime_dir())
            .stdin(Stdio::null())
            .stdout(File::create(self.file(name, "stdout")).map_err(start_error)?)
            .stderr(File::create(&stderr).map_err(start_error)?)
            // Ctrl-C on the terminal must reach only the drill, which then ends its members.
            .process_group(0);
        let drill = getpid();
        let network = network.map(|network| network.as_raw_fd());
        let begin = move || {
            if let Some(network) = network {
                // SAFETY: the descriptor is open in the drill as long as this call of `start` lasts,
                // and so it is open in the forked child.
                enter_network(unsafe { BorrowedFd::borrow_raw(network) })?;
            }
            die_with(drill)
        };
        // SAFETY: between fork and exec the closure makes three system calls and allocates nothing.
        unsafe { command.pre_exec(begin) };
        let mut child = command.spawn().map_err(start_error)?;
        let pidfd = match adopt(&child, &self.interrupts) {
            Ok(pidfd) => pidfd,
            Err(e) => {
                child.kill().and_then(|()| child.wait()).ok();
                return Err(start_error(e));
            }
        };
        self.list.push(Member {
            name,
            child,
            pidfd,
            events,
            stderr,
            ended: false,
        });
        Ok(MemberId(self.list.len() - 1))
    }

    /// The directory of the members' control sockets.
    fn runtime_dir(&self) -> PathBuf {
        self.dir.join("runtime")
    }

    /// Runs `lockstep ARGS` with the runtime directory of the members. Returns its status.
    pub(super) fn command(&self, args: &[&str]) -> Result<Option<i32>, MemberError> {
        let mut command = Command::new(&self.program.path);
        command
            .arg0("lockstep")
            .args(args)
            .env("LOCKSTEP_RUNTIME_DIR", self.runtime_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let drill = getpid();
        // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
        unsafe { command.pre_exec(move || die_with(drill)) };
        let ran = command.status().map_err(|source| MemberError::Start {
            name: "command",
            source,
        })?;
        Ok(ran.code())
    }

    /// The resources that a running member uses.
    pub(super) fn resources(&self, id: MemberId) -> Result<Resources, MemberError> {
        let member = &self.list[id.0];
        let of = || -> io::Result<Resources> {
            let proc = PathBuf::from(format!("/proc/{}", member.child.id()));
            let status = fs::read_to_string(proc.join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            Ok(Resources {
                memory_kib: number.ok_or(io::ErrorKind::InvalidData)?,
                open_files: fs::read_dir(proc.join("fd"))?.count() as u64,
            })
        };
        of().map_err(|e| member.follow(e))
    }

    /// Sends `id` a signal. Returns the moment before that, CLOCK_MONOTONIC in ns.
    pub(super) fn send(&mut self, id: MemberId, signal: Signal) -> Result<u64, MemberError> {
        let moment = mono_ns();
        self.list[id.0].signal(signal)?;
        Ok(moment)
    }

    /// Waits until `id` ends, which is expected. Returns its status; `None` if a signal ended it.
    pub(super) fn await_end(
        &mut self,
        id: MemberId,
        what: &'static str,
        limit: Duration,
    ) -> Result<Option<i32>, MemberError> {
        let member = &mut self.list[id.0];
        if !member.ends_within(limit)? {
            return Err(MemberError::Late { what, limit });
        }
        member.ended = true;
        let status = member.child.wait().map_err(|e| member.follow(e))?;
        self.refresh()?;
        Ok(status.code())
    }

    /// Waits until `id` has reported an event that `wanted` accepts, or has ended by itself; then
    /// returns its status.
    pub(super) fn ends_or_tells(
        &mut self,
        id: MemberId,
        what: &'static str,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Option<Option<i32>>, MemberError> {
        let deadline = Instant::now() + limit;
        loop {
            self.refresh()?;
            let member = &mut self.list[id.0];
            if member.events.events().iter().any(|e| wanted(&e.event)) {
                return Ok(None);
            }
            if let Some(status) = member.child.try_wait().map_err(|e| member.follow(e))? {
                member.ended = true;
                return Ok(Some(status.code()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(MemberError::Late { what, limit });
            }
            self.await_change(left.min(REREAD))?;
        }
    }

    /// Waits until one of `ids` ends, which is expected. Returns which one, and its status.
    pub(super) fn await_one_end(
        &mut self,
        ids: &[MemberId],
        what: &'static str,
        limit: Duration,
    ) -> Result<(MemberId, Option<i32>), MemberError> {
        let ends = ids.iter().map(|id| &self.list[id.0].pidfd);
        let mut set: Vec<_> = ends.map(|end| PollFd::new(end, PollFlags::IN)).collect();
        let ended = await_any(&mut set, limit).map_err(|source| MemberError::Follow {
            name: "pair",
            source,
        })?;
        let first = set.iter().position(|end| !end.revents().is_empty());
        match first.filter(|_| ended) {
            Some(first) => {
                let id = ids[first];
                Ok((id, self.await_end(id, what, limit)?))
            }
            None => Err(MemberError::Late { what, limit }),
        }
    }

    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.dir.join(format!("{name}.{kind}"))
    }

    /// Waits until `id` has reported `times` events that `wanted` accepts, and returns the last of
    /// them. `what` names the event in errors. If any member ends before that, it is an error.
    pub(super) fn wait_for(
        &mut self,
        id: MemberId,
        what: &'static str,
        times: usize,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Stamped, MemberError> {
        let deadline = Instant::now() + limit;
        loop {
            self.refresh()?;
            let events = self.list[id.0].events.events();
            if let Some(event) = events.iter().filter(|e| wanted(&e.event)).nth(times - 1) {
                return Ok(event.clone());
            }
            self.refuse_deaths(what)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(MemberError::Late { what, limit });
            }
            self.await_change(left.min(REREAD))?;
        }
    }

    /// Waits for `limit`, or less if a member reports something. If a member ends, it is an error.
    pub(super) fn pause(&mut self, what: &'static str, limit: Duration) -> Result<(), MemberError> {
        self.refresh()?;
        self.refuse_deaths(what)?;
        self.await_change(limit)
    }

    /// Fails if a member ended that the drill did not end. `what` names what is waited for.
    pub(super) fn refuse_deaths(&mut self, what: &'static str) -> Result<(), MemberError> {
        for member in self.list.iter_mut().filter(|m| !m.ended) {
            if let Some(status) = member.child.try_wait().map_err(|e| member.follow(e))? {
                member.ended = true;
                return Err(member.death(status, what));
            }
        }
        Ok(())
    }

    /// Kills `id` with SIGKILL. Returns the moment before that, CLOCK_MONOTONIC in ns.
    pub(super) fn kill(&mut self, id: MemberId) -> Result<u64, MemberError> {
        let member = &mut self.list[id.0];
        let moment = mono_ns();
        member.signal(Signal::KILL)?;
        member.reap()?;
        Ok(moment)
    }

    /// Ends every member that still runs: SIGTERM, and SIGKILL to one that does not heed it. Gives what could
    /// not be read of their events since they were read last.
    pub(super) fn stop_all(&mut self) -> Result<Vec<MemberError>, MemberError> {
        for member in self.list.iter_mut().filter(|m| !m.ended) {
            member.signal(Signal::TERM)?;
            if !member.ends_within(STOP_LIMIT)? {
                tracing::warn!("the {} did not heed SIGTERM", member.name);
                member.signal(Signal::KILL)?;
            }
            member.reap()?;
        }
        self.interrupts.clear();
        let mut unread = Vec::new();
        while let Err(why) = self.refresh() {
            let again = matches!(
                why,
                MemberError::Events {
                    source: EventsError::BadLine { .. },
                    ..
                }
            );
            unread.push(why);
            if !again {
                break;
            }
        }
        Ok(unread)
    }

    /// Each member's name and events.
    pub(super) fn logs(&self) -> Vec<(&'static str, Vec<Stamped>)> {
        let log = |m: &Member| (m.name, m.events.events().to_vec());
        self.list.iter().map(log).collect()
    }

    fn refresh(&mut self) -> Result<(), MemberError> {
        for member in &mut self.list {
            let name = member.name;
            let read = member.events.refresh();
            read.map_err(|source| MemberError::Events { name, source })?;
        }
        Ok(())
    }

    /// Waits until a running member reports something or ends, at most for `limit`.
    fn await_change(&self, limit: Duration) -> Result<(), MemberError> {
        let running = self.list.iter().filter(|m| !m.ended);
        let mut set: Vec<PollFd<'_>> = running
            .flat_map(|m| [m.events.as_fd(), m.pidfd.as_fd()])
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        await_any(&mut set, limit).map_err(|source| MemberError::Follow {
            name: "pair",
            source,
        })?;
        Ok(())
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in self.list.iter_mut().filter(|m| !m.ended) {
            if let Err(e) = member.signal(Signal::KILL).and_then(|()| member.reap()) {
                tracing::warn!("{e}");
            }
        }
        self.interrupts.clear();
    }
}

impl Member {
    fn follow(&self, source: impl Into<io::Error>) -> MemberError {
        MemberError::Follow {
            name: self.name,
            source: source.into(),
        }
    }

    /// If the process has just ended by itself it gets no signal, which is not an error.
    fn signal(&self, signal: Signal) -> Result<(), MemberError> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(self.follow(e)),
        }
    }

    fn ends_within(&self, limit: Duration) -> Result<bool, MemberError> {
        let mut set = [PollFd::new(&self.pidfd, PollFlags::IN)];
        await_any(&mut set, limit).map_err(|e| self.follow(e))
    }

    fn reap(&mut self) -> Result<(), MemberError> {
        self.ended = true;
        let waited = self.child.wait();
        waited.map(|_| ()).map_err(|e| self.follow(e))
    }

    fn death(&self, status: ExitStatus, what: &'static str) -> MemberError {
        let (name, words) = (self.name, last_words(&self.stderr));
        if status.code() == Some(STATUS_CANNOT) {
            return MemberError::HostCannot { name, words };
        }
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(number)) => format!("was killed by signal {number}"),
            (None, None) => "ended".to_owned(),
        };
        MemberError::Died {
            name,
            how,
            what,
            words,
        }
    }
}

/// Waits until one of `set` is ready, at most for `limit`. Returns whether one is.
fn await_any(set: &mut [PollFd<'_>], limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.try_into().map_err(io::Error::other)?;
        match poll(set, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// In the child: makes it die when the drill dies, also if the drill has died already.
pub(super) fn die_with(drill: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() == Some(drill) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

fn adopt(child: &Child, interrupts: &Interrupts) -> io::Result<OwnedFd> {
    let pid = Pid::from_child(child);
    // The child was not waited for yet, so its number cannot mean another process.
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    interrupts.add(pidfd.try_clone()?);
    Ok(pidfd)
}

/// The last line in a member's standard error.
fn last_words(stderr: &Path) -> String {
    let text = fs::read(stderr).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    match text.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => line.trim().chars().take(LAST_WORDS_LIMIT).collect(),
        None => "none".to_owned(),
    }
}
