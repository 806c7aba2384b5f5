//! Control sockets, by which `lockstep stop`, `switchover` and `status` find the running members of a
//! VM on this host.
//!
//! Every member listens on a Unix socket `VM@ID.sock` in the runtime directory, which only its user may
//! enter. A connection carries one request, which is a line. The answer is `ok` or `error WHY` at once,
//! and after `ok` at the end `done` or `error WHY`. The answer to `status` is one JSON object.

use super::Outcome;
use super::sockets;
use super::strangers::{Known, Strangers};
use ft_protocol::arbiter::MemberId;
use ft_protocol::wire::Request;
use lockstep_events::{MemberStatus, StatusError};
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Longest request, bytes.
const MAX_REQUEST: u64 = 64;
/// How long a client may take to send its request.
const REQUEST_LIMIT: std::time::Duration = std::time::Duration::from_secs(1);
/// Most clients that have not sent their request; with one more, the oldest is disconnected. Also the
/// most requests that wait for the runtime.
const CLIENTS: usize = 32;
/// Most clients that wait for the end of their request; with one more, the oldest is asked to look for
/// itself.
const WAITING: usize = 64;
/// The end of the sockets' names.
const SUFFIX: &str = ".sock";

/// The directory of control sockets: `LOCKSTEP_RUNTIME_DIR`; otherwise `/run/lockstep` for root;
/// otherwise `lockstep` in `XDG_RUNTIME_DIR`; otherwise a directory of this user in `/tmp`.
pub fn runtime_dir() -> PathBuf {
    let from = |name| std::env::var_os(name).filter(|dir| !dir.is_empty());
    let uid = rustix::process::geteuid();
    match (from("LOCKSTEP_RUNTIME_DIR"), from("XDG_RUNTIME_DIR")) {
        (Some(dir), _) => dir.into(),
        (None, _) if uid.is_root() => "/run/lockstep".into(),
        (None, Some(dir)) => Path::new(&dir).join("lockstep"),
        (None, None) => format!("/tmp/lockstep-{}", uid.as_raw()).into(),
    }
}

/// Opens the directory, and makes it if it is missing. It must belong to this user, and be closed to
/// others.
pub fn private_dir() -> io::Result<fs::File> {
    let path = runtime_dir();
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path);
    made?;
    let dir = fs::File::open(&path)?;
    let about = dir.metadata()?;
    let ours = about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o022 == 0;
    match ours {
        true => Ok(dir),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is open to other users", path.display()),
        )),
    }
}

/// A member's control socket. It is removed when this is dropped.
#[derive(Debug)]
pub struct Control {
    /// The socket; `None` if it could not be made, as the VM is worth more.
    path: Option<PathBuf>,
    asked: Receiver<Asked>,
    /// Clients that wait for the end of their request, the oldest first.
    waiting: Vec<(Request, UnixStream)>,
}

/// A request that was not answered yet.
#[derive(Debug)]
pub struct Asked {
    /// What is requested.
    pub wish: Wish,
    stream: UnixStream,
}

/// Why a member does not even begin what an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody can take over.
    #[error("it runs without a backup")]
    NoBackup,
    /// A backup has nobody to pass it on to.
    #[error("there is no pair here: ask where the VM runs")]
    NoPair,
}

/// Why what an operator asked for came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// There is nothing left to hand over.
    #[error("the guest has ended")]
    GuestEnded,
    /// Nobody is left to take over.
    #[error("the backup was lost, this side runs on alone")]
    BackupLost,
    /// What was to be stopped is elsewhere now.
    #[error("it was handed over to the other side, and runs on there: ask again")]
    HandedOver,
    /// The member that was asked has left.
    #[error("the member has left")]
    Left,
    /// The backup that was asked has left.
    #[error("this backup has left, and the VM may run on elsewhere: ask there")]
    BackupLeft,
    /// The host has failed the member.
    #[error("the member failed on its host")]
    Failed,
    /// The member ended with this sentence.
    #[error("{0}")]
    Ended(String),
}

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To do something.
    Do(Request),
    /// To report the member's state.
    Status,
}

impl Control {
    /// Listens for requests to this member. Must be called inside the runtime.
    pub fn listen(vm: &str, me: MemberId) -> Control {
        let listener = private_dir().and_then(|dir| {
            let name = format!("{vm}@{me}{SUFFIX}");
            let listener = sockets::listen(&dir, &name)?;
            listener.set_nonblocking(true)?;
            Ok((UnixListener::from_std(listener)?, runtime_dir().join(name)))
        });
        if let Err(e) = &listener {
            tracing::warn!(
                "no control socket in {} ({e}): `lockstep stop` and `switchover` will not find this \
                 member; signals still work",
                runtime_dir().display()
            );
        }
        let (sender, asked) = channel(CLIENTS);
        let path = listener.ok().map(|(listener, path)| {
            tokio::spawn(serve(listener, sender));
            path
        });
        Control {
            path,
            asked,
            waiting: Vec::new(),
        }
    }

    /// The next request. Cancel-safe.
    pub async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }

    /// Answers that it will be done, or why not.
    pub fn answer(&mut self, asked: Asked, accepted: Result<(), Refusal>) {
        let request = match (asked.wish, accepted) {
            (Wish::Do(request), Ok(())) => request,
            (Wish::Status, Ok(())) => return,
            (_, Err(why)) => return say(&asked.stream, &format!("error {why}")),
        };
        say(&asked.stream, "ok");
        if self.waiting.len() == WAITING {
            let (_, oldest) = self.waiting.remove(0);
            say(
                &oldest,
                "error too many wait for that: see `lockstep status`",
            );
        }
        self.waiting.push((request, asked.stream));
    }

    /// Does a client wait for the end of this request?
    pub fn is_waited_for(&self, request: Request) -> bool {
        self.waiting.iter().any(|(wanted, _)| *wanted == request)
    }

    /// Sends the member's state.
    pub fn tell(&self, asked: &Asked, status: &MemberStatus) {
        say(&asked.stream, &status.to_string());
    }

    /// Answers the clients that wait for this request: it is done, or failed.
    pub fn finish(&mut self, request: Request, done: &Result<(), NotDone>) {
        for (_, stream) in self
            .waiting
            .extract_if(.., |(wanted, _)| *wanted == request)
        {
            match done {
                Ok(()) => say(&stream, "done"),
                Err(why) => say(&stream, &format!("error {why}")),
            }
        }
    }

    /// Answers all waiting clients, as the member has ended with `outcome`. `left` says what it means
    /// for the VM if the member left.
    pub fn end(&mut self, outcome: &io::Result<Outcome>, left: Result<(), NotDone>) {
        let (stopped, switched) = match outcome {
            Ok(Outcome::Ended(_)) => (Ok(()), Err(NotDone::GuestEnded)),
            Ok(Outcome::LeftOpen(_, why)) => neither(|| NotDone::Ended(why.to_string())),
            Ok(Outcome::Halted(why)) => neither(|| NotDone::Ended(why.to_string())),
            Ok(Outcome::HandedOver) => (Err(NotDone::HandedOver), Ok(())),
            Ok(Outcome::Left) => (left, Err(NotDone::Left)),
            Err(_) => neither(|| NotDone::Failed),
        };
        self.finish(Request::Stop, &stopped);
        self.finish(Request::Switchover, &switched);
    }
}

/// Neither of two things was done.
fn neither(why: impl Fn() -> NotDone) -> (Result<(), NotDone>, Result<(), NotDone>) {
    (Err(why()), Err(why()))
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _gone = fs::remove_file(path);
        }
    }
}

/// Accepts requests, from several clients at once.
async fn serve(listener: UnixListener, requests: Sender<Asked>) {
    let mut clients = Strangers::at_most(CLIENTS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                clients.admit(|known| take(stream, known, requests));
            }
            Err(e) => {
                tracing::warn!("a control connection could not be accepted ({e})");
                // For instance, there are no descriptors left: wait instead of spinning.
                tokio::time::sleep(REQUEST_LIMIT).await;
            }
        }
    }
}

/// Reads one client's request, for which it has a second.
async fn take(stream: UnixStream, known: Known, requests: Sender<Asked>) {
    let read = tokio::time::timeout(REQUEST_LIMIT, read_request(stream));
    if let Ok(Some(asked)) = read.await {
        known.note();
        // If the runtime is gone, no answer will come.
        let _gone = requests.send(asked).await;
    }
}

fn say(stream: &UnixStream, line: &str) {
    // A client that is gone needs no answer; a short line always fits into the socket.
    let _gone = stream.try_write(format!("{}\n", line.replace('\n', " ")).as_bytes());
}

async fn read_request(stream: UnixStream) -> Option<Asked> {
    let mut stream = stream;
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < MAX_REQUEST as usize {
        let byte = stream.read_u8().await.ok()?;
        line.push(byte);
    }
    let wish = match &line[..] {
        b"stop\n" => Wish::Do(Request::Stop),
        b"switchover\n" => Wish::Do(Request::Switchover),
        b"status\n" => Wish::Status,
        _ => {
            say(&stream, "error there is no such request");
            return None;
        }
    };
    Some(Asked { wish, stream })
}

/// Asks the members of `vm` on this host, one after the other, until one accepts the request; waits
/// until it is done.
///
/// # Errors
/// Their answers, as a sentence.
pub fn ask(vm: &str, request: Request) -> Result<(), AskError> {
    let nobody = |e: io::Error| AskError::Nobody(vm.into(), e.to_string());
    let mut refused = None;
    for stream in members(Some(vm)).map_err(nobody)? {
        match stream.map(|stream| converse(stream, request)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Said::Refused(why))) => refused = Some(why),
            Ok(Err(Said::Failed(why))) => return Err(AskError::Failed(vm.into(), why)),
            Err(e) => refused = Some(e.to_string()),
        }
    }
    match refused {
        Some(why) => Err(AskError::Refused(vm.into(), why)),
        None => Err(AskError::Nobody(
            vm.into(),
            format!("no socket in {}", runtime_dir().display()),
        )),
    }
}

/// How the members of `vm` on this host stand, or those of all VMs.
///
/// # Errors
/// If the sockets' directory cannot be looked into, or a member of another version answers otherwise than
/// this one reads.
pub fn status(vm: Option<&str>) -> Result<Vec<MemberStatus>, StatusOfError> {
    let told = |mut stream: StdStream| {
        stream.set_read_timeout(Some(REQUEST_LIMIT))?;
        stream.write_all(b"status\n")?;
        let mut line = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut line)?;
        io::Result::Ok(line)
    };
    let lines = members(vm)?.into_iter().flatten().map(told);
    // A member that is ending has no state.
    let whole = lines.filter_map(|line| line.ok().filter(|line| line.ends_with(b"\n")));
    let members = whole.map(|line| MemberStatus::read(&line));
    Ok(members.collect::<Result<_, _>>()?)
}

/// Why it cannot be told how the members on this host stand.
#[derive(Debug, thiserror::Error)]
pub enum StatusOfError {
    /// The sockets' directory cannot be looked into.
    #[error(transparent)]
    Directory(#[from] io::Error),
    /// A member answers otherwise.
    #[error(transparent)]
    Answer(#[from] StatusError),
}

/// Connections to the members of `vm` on this host, or to those of all VMs.
fn members(vm: Option<&str>) -> io::Result<Vec<io::Result<StdStream>>> {
    let dir = private_dir()?;
    let entries = fs::read_dir(runtime_dir())?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_of(name, vm))
        .collect();
    names.sort_unstable();
    let connect = |name: String| {
        let connected = sockets::connect(&dir, &name);
        let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
        if connected.as_ref().is_err_and(refused) {
            // It was left behind by a member that was killed.
            let _gone = sockets::remove(&dir, &name);
            return None;
        }
        Some(connected)
    };
    Ok(names.into_iter().filter_map(connect).collect())
}

fn is_of(name: &str, vm: Option<&str>) -> bool {
    let of = name
        .strip_suffix(SUFFIX)
        .and_then(|name| name.rsplit_once('@'));
    of.is_some_and(|(name, _)| vm.is_none_or(|vm| vm == name))
}

enum Said {
    Refused(String),
    Failed(String),
}

fn converse(mut stream: StdStream, request: Request) -> Result<(), Said> {
    let line: &[u8] = match request {
        Request::Stop => b"stop\n",
        Request::Switchover => b"switchover\n",
    };
    let refused = |e: io::Error| Said::Refused(e.to_string());
    stream.write_all(line).map_err(refused)?;
    let mut answers = BufReader::new(stream).lines();
    match answers.next() {
        Some(Ok(line)) if line == "ok" => {}
        Some(Ok(line)) => {
            let why = line.strip_prefix("error ").unwrap_or(&line);
            return Err(Said::Refused(why.into()));
        }
        _ => return Err(Said::Refused("it ended before it answered".into())),
    }
    match answers.next() {
        Some(Ok(line)) if line == "done" => Ok(()),
        Some(Ok(line)) => {
            let why = line.strip_prefix("error ").unwrap_or(&line);
            Err(Said::Failed(why.into()))
        }
        _ => Err(Said::Failed("the member ended in the middle of it".into())),
    }
}

/// Why a VM does not do what an operator requested.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no member to ask.
    #[error(
        "no member of VM {0} was found on this host ({1}); run this where one runs, as the same user"
    )]
    Nobody(String, String),
    /// None of them can do it.
    #[error("VM {0} cannot do that now: {1}")]
    Refused(String, String),
    /// One of them tried it, and failed.
    #[error("VM {0} did not do that: {1}")]
    Failed(String, String),
}
