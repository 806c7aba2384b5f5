//! Starts processes with a limit on their time, and makes directories that are kept when a test fails.

use ft_protocol::log::CpuKind;
use lockstep_vcpu::CpuBackend;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The command under test.
pub const LOCKSTEP: &str = env!("CARGO_BIN_EXE_lockstep");
/// The same with faults that can be planted.
pub const LOCKSTEP_FAULTS: &str = env!("CARGO_BIN_EXE_lockstep-faults");
/// A command of these tests must end within this time, unless a test says otherwise.
pub const LIMIT: Duration = Duration::from_secs(60);

/// `lockstep` with these arguments.
pub fn lockstep<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(LOCKSTEP);
    command.args(args);
    command
}

/// Runs `lockstep` to its end, with an empty standard input.
#[track_caller]
pub fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Done {
    Process::start(&mut lockstep(args)).end()
}

/// The result of a process that has ended.
#[derive(Debug)]
pub struct Done {
    /// The command line, for messages.
    pub what: String,
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Done {
    /// Fails unless it ended with `status`.
    #[track_caller]
    pub fn expect(self, status: i32) -> Done {
        assert_eq!(self.status, Some(status), "{self:#?}");
        self
    }

    /// Fails unless it was refused as users expect: with status 2 and one sentence, which is returned.
    #[track_caller]
    pub fn refused(self) -> String {
        self.one_sentence(2)
    }

    /// Fails unless it ended with `status` and one sentence on standard error, which is returned.
    #[track_caller]
    pub fn one_sentence(self, status: i32) -> String {
        let done = self.expect(status);
        let sentence = done.stderr.trim_end();
        assert_eq!(sentence.lines().count(), 1, "one line: {done:#?}");
        assert!(sentence.starts_with("lockstep: "), "{done:#?}");
        assert!(!sentence.contains("panicked"), "{done:#?}");
        sentence.to_owned()
    }

    /// Its standard output as one JSON object.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("{}: {e}: {self:#?}", self.what))
    }
}

/// The text that a process has printed so far; a thread reads it.
#[derive(Clone, Debug, Default)]
struct Printed(Arc<(Mutex<Vec<u8>>, Condvar)>, Arc<AtomicBool>);

impl Printed {
    fn read(&self, mut from: impl Read + Send + 'static) -> JoinHandle<()> {
        let this = self.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut chunk) {
                this.bytes().extend_from_slice(&chunk[..length]);
                this.0.1.notify_all();
            }
            // With the lock, so that nobody looks at it and then misses the news.
            let _bytes = this.bytes();
            this.1.store(true, Ordering::Relaxed);
            this.0.1.notify_all();
        })
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.0.lock().expect("nobody panics with it")
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    stdout: Printed,
    stderr: Printed,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it with an empty standard input.
    #[track_caller]
    pub fn start(command: &mut Command) -> Process {
        Process::spawn(command.stdin(Stdio::null()))
    }

    /// Starts it with a pipe to its standard input.
    #[track_caller]
    pub fn with_input(command: &mut Command) -> Process {
        Process::spawn(command.stdin(Stdio::piped()))
    }

    /// Starts it with this as its standard input.
    #[track_caller]
    pub fn with_stdin(command: &mut Command, stdin: impl Into<Stdio>) -> Process {
        Process::spawn(command.stdin(stdin))
    }

    #[track_caller]
    fn spawn(command: &mut Command) -> Process {
        let what = format!("{command:?}");
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|e| panic!("cannot start {what}: {e}"));
        let (stdout, stderr) = (Printed::default(), Printed::default());
        let readers = vec![
            stdout.read(child.stdout.take().expect("piped")),
            stderr.read(child.stderr.take().expect("piped")),
        ];
        Process {
            what,
            child,
            stdout,
            stderr,
            readers,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The text on its standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// The text on its standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Writes to its standard input.
    #[track_caller]
    pub fn input(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("started with input");
        stdin.write_all(text.as_bytes()).expect("it reads");
    }

    /// Types a line to the guest `echo`, and waits until it comes back.
    #[track_caller]
    pub fn echo(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.input(&line);
        self.await_stdout("the line comes back", |out| out.contains(&line));
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.child.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it was not waited for yet");
    }

    /// Waits until `wanted` is true for its standard output.
    #[track_caller]
    pub fn await_stdout(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        self.await_printed(&self.stdout, LIMIT, what, wanted);
    }

    /// The same for what may take as long as `limit`.
    #[track_caller]
    pub fn await_stdout_within(&self, limit: Duration, what: &str, wanted: impl Fn(&str) -> bool) {
        self.await_printed(&self.stdout, limit, what, wanted);
    }

    /// Waits until `wanted` is true for its standard error.
    #[track_caller]
    pub fn await_stderr(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        self.await_printed(&self.stderr, LIMIT, what, wanted);
    }

    #[track_caller]
    fn await_printed(
        &self,
        printed: &Printed,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) {
        let satisfied = |bytes: &[u8]| wanted(&String::from_utf8_lossy(bytes));
        let over = || printed.1.load(Ordering::Relaxed);
        let (bytes, changed) = (printed.bytes(), &printed.0.1);
        let waited = changed.wait_timeout_while(bytes, limit, |bytes| !satisfied(bytes) && !over());
        let (bytes, _) = waited.expect("nobody panics with it");
        let met = satisfied(&bytes);
        drop(bytes);
        assert!(
            met,
            "{what}: not within {limit:?} or before its end; {} printed {:?} and {:?}",
            self.what,
            self.stdout.text(),
            self.stderr.text()
        );
    }

    /// Waits until it ends, at most [`LIMIT`].
    #[track_caller]
    pub fn end(self) -> Done {
        self.end_within(LIMIT)
    }

    /// Waits until it ends; kills it and fails if that takes longer than `limit`.
    #[track_caller]
    pub fn end_within(mut self, limit: Duration) -> Done {
        let late = !self.ends_within(limit);
        if late {
            let _gone = self.child.kill();
        }
        let status = self.child.wait().expect("a child is waited for");
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader only reads");
        }
        let done = Done {
            what: self.what.clone(),
            status: status.code(),
            signal: status.signal(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        };
        assert!(!late, "not ended within {limit:?}: {done:#?}");
        done
    }

    fn ends_within(&self, limit: Duration) -> bool {
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty()).expect("it was not waited for");
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = left.try_into().expect("a limit is a timespec");
            let mut set = [PollFd::new(&pidfd, PollFlags::IN)];
            match poll(&mut set, Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => panic!("cannot wait for {}: {e}", self.what),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// A directory for a test's files. If the test fails, the directory is kept, and a message says how to
/// replay the recordings in it.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes a new one.
    pub fn new() -> Scratch {
        let dir = tempfile::Builder::new().prefix("lockstep-test-").tempdir();
        Scratch(dir.expect("a temporary directory"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// The path of a file in it, as an argument.
    pub fn arg(&self, name: &str) -> String {
        text(&self.join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.0.disable_cleanup(true);
        eprintln!(
            "kept {}; its recordings replay with:",
            self.path().display()
        );
        for log in recordings(self.path()) {
            eprintln!("    {LOCKSTEP} replay {} --verify", log.display());
        }
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_str().expect("test paths are UTF-8").to_owned()
}

/// The recordings in `dir` and below.
pub fn recordings(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in dir.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        if path.join("log").is_file() {
            found.push(path);
        } else if path.is_dir() {
            found.extend(recordings(&path));
        }
    }
    found
}

/// Replays a recording with `--json`. Returns the ended process.
#[track_caller]
pub fn replay(dir: &Path) -> Done {
    run([OsStr::new("replay"), dir.as_os_str(), OsStr::new("--json")])
}

/// Replays a recording, which must be equal. Returns the verdict.
#[track_caller]
pub fn replay_equal(dir: &Path) -> serde_json::Value {
    let verdict = replay(dir).expect(0).json();
    assert_eq!(verdict["ok"], true, "{verdict}");
    verdict
}

/// Records a guest that ends by itself with status 0. Returns its output.
#[track_caller]
pub fn record(guest: &str, dir: &Path) -> String {
    let dir = text(dir);
    run(["run", guest, "--record", &dir]).expect(0).stdout
}

/// Random numbers from a seed. Tests print the seed, so that a failure can be repeated.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers from `LOCKSTEP_TEST_SEED`, or from the clock. Prints the seed, which cargo shows
    /// if the test fails.
    pub fn new() -> Random {
        let told = std::env::var("LOCKSTEP_TEST_SEED").ok();
        let seed = told.map_or_else(fresh_seed, |seed| seed.parse().expect("a number"));
        println!("LOCKSTEP_TEST_SEED={seed}");
        Random(seed)
    }

    /// The next number below `limit` (SplitMix64).
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |time| time.as_nanos() as u64)
}

/// Makes CPUs for machines inside a test, of the kind that a machine was made on.
pub fn backend(kind: CpuKind) -> &'static dyn CpuBackend {
    match kind {
        CpuKind::Kvm => &lockstep_kvm::Kvm,
        CpuKind::Soft { .. } => &lockstep_x86::Soft,
    }
}
