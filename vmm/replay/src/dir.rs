//! A recording on disk: a directory with a log and the guest image that belongs to it.

use super::checkpoint::{self, Checkpoint, CheckpointError};
use super::follow::{Ahead, Entries};
use super::journal::{Consumer, JournalError};
use super::writer::{IfSlow, LogQueue};
use ft_protocol::log::{Entry, Header, LogError, LogReader, LogStart, LogWriter, Place, Tail};
use lockstep_loader::image::image_hash;
use lockstep_loader::{Image, ImageError};
use lockstep_machine::MachineState;
use lockstep_memory::Ram;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use thiserror::Error;

/// Name of the log's file in the directory.
pub const LOG_FILE: &str = "log";
/// Name of the guest image's file in the directory.
pub const IMAGE_FILE: &str = "guest.elf";
/// Name of the checkpoint's file in the directory: the machine with which the log begins, if it ran
/// before.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// Why a recording cannot be made or read.
#[derive(Debug, Error)]
pub enum LogDirError {
    /// The directory holds a recording already.
    #[error("{0} holds a recording already; name another directory or remove it")]
    Exists(PathBuf),
    /// The directory or a file in it cannot be used.
    #[error("cannot {what} {path} ({why}); {advice}")]
    Io {
        /// What failed: `create`, `read`, …
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The host's error.
        why: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The log cannot be read.
    #[error("{path}: {error}")]
    Log {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: LogError,
    },
    /// The checkpoint cannot be read.
    #[error("{path}: {error}")]
    Checkpoint {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: CheckpointError,
    },
    /// The image is the recorded one, but is not accepted as a guest here.
    #[error("{path}: {error}")]
    Image {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: ImageError,
    },
    /// The image is not the one that was recorded.
    #[error("{0} is not the guest image that the log was recorded with; put the original one back")]
    OtherImage(PathBuf),
}

impl LogDirError {
    fn io(
        what: &'static str,
        path: &Path,
        advice: &'static str,
    ) -> impl FnOnce(io::Error) -> LogDirError {
        move |why| LogDirError::Io {
            what,
            path: path.to_path_buf(),
            why,
            advice,
        }
    }
}

/// An existing recording.
#[derive(Debug)]
pub struct LogDir {
    dir: PathBuf,
}

impl LogDir {
    /// The recording in `dir`.
    pub fn open(dir: &Path) -> LogDir {
        LogDir {
            dir: dir.to_path_buf(),
        }
    }

    /// Path of the log file.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(LOG_FILE)
    }

    /// Opens the log.
    pub fn log(&self) -> Result<LogFile, LogDirError> {
        let path = self.log_path();
        let advice = "name a directory that was given to --record";
        let file = File::open(&path).map_err(LogDirError::io("read", &path, advice))?;
        match LogReader::open(BufReader::new(file)) {
            Ok(reader) => Ok(LogFile { reader }),
            Err(error) => Err(LogDirError::Log { path, error }),
        }
    }

    /// Reads and checks the guest image that belongs to `header`.
    pub fn image(&self, header: &Header) -> Result<Image, LogDirError> {
        let path = self.dir.join(IMAGE_FILE);
        let advice = "a recording is only whole with its guest image";
        let bytes = fs::read(&path).map_err(LogDirError::io("read", &path, advice))?;
        // If the hash differs, it is another file, and any other error about it would mislead.
        if image_hash(&bytes) != header.guest.hash {
            return Err(LogDirError::OtherImage(path));
        }
        match Image::parse(&header.guest.name, bytes) {
            Ok(image) => Ok(image),
            Err(error) => Err(LogDirError::Image { path, error }),
        }
    }

    /// Reads the machine with which `log` begins; `None` if the log begins with the guest's first
    /// instruction.
    pub fn checkpoint(&self, log: &LogFile) -> Result<Option<Checkpoint>, LogDirError> {
        if log.start() == LogStart::default() {
            return Ok(None);
        }
        let path = self.dir.join(CHECKPOINT_FILE);
        let advice = "a recording that begins in the middle is only whole with its checkpoint";
        let file = File::open(&path).map_err(LogDirError::io("read", &path, advice))?;
        match Checkpoint::read(file, log.header(), log.start()) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(error) => Err(LogDirError::Checkpoint { path, error }),
        }
    }
}

/// The entries of a log file.
#[derive(Debug)]
pub struct LogFile {
    reader: LogReader<BufReader<File>>,
}

impl LogFile {
    /// The header: the VM, its machine, guest and host.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// The entry with which the log begins.
    pub fn start(&self) -> LogStart {
        self.reader.start()
    }

    /// The next entry, with its sequence number and its offset in the file.
    pub fn next_with_offset(&mut self) -> Result<Option<(u64, u64, Entry)>, LogError> {
        self.reader.next()
    }

    /// Where the next entry is read.
    pub fn place(&self) -> Place {
        self.reader.place()
    }

    /// Goes to a place of this log: the next entry is the one behind it.
    pub fn go_to(&mut self, place: Place) -> Result<(), LogError> {
        Ok(self.reader.go_to(place)?)
    }

    /// How the log ends. Meaningful only when all entries were read.
    pub fn tail(&self) -> Tail {
        self.reader.tail()
    }
}

impl Entries for LogFile {
    fn next(&mut self) -> Result<Option<Entry>, LogError> {
        Ok(self.reader.next()?.map(|(_, _, entry)| entry))
    }

    /// When the file ends, the log has ended: a replay does not wait for more.
    fn ahead(&mut self, _: bool) -> Result<Ahead, LogError> {
        Ok(self.next()?.map_or(Ahead::End, Ahead::Entry))
    }
}

/// Writes a recording on a thread of its own, so that a slow disk does not hold up the machine
/// before its queue is full.
#[derive(Debug)]
pub struct LogDirWriter {
    dir: PathBuf,
    queue: LogQueue,
    thread: Option<JoinHandle<()>>,
}

/// The machine with which a recording begins, and a function to call each time that a part of its
/// memory was written.
type Beginning<'a> = ((&'a MachineState, &'a Ram), &'a dyn Fn());

impl LogDirWriter {
    /// Starts a recording in `dir`, which is created if it is missing.
    pub fn create(dir: &Path, header: &Header, image: &Image) -> Result<LogDirWriter, LogDirError> {
        LogDirWriter::begin(dir, header, image, LogStart::default(), None)
    }

    /// Starts a recording in `dir` with a machine that ran before: in `state`, with this memory, after
    /// the entries up to `start`. Calls `wrote` each time that a part of the memory was written.
    pub fn create_at(
        dir: &Path,
        header: &Header,
        image: &Image,
        start: LogStart,
        machine: (&MachineState, &Ram),
        wrote: &dyn Fn(),
    ) -> Result<LogDirWriter, LogDirError> {
        LogDirWriter::begin(dir, header, image, start, Some((machine, wrote)))
    }

    fn begin(
        dir: &Path,
        header: &Header,
        image: &Image,
        start: LogStart,
        machine: Option<Beginning<'_>>,
    ) -> Result<LogDirWriter, LogDirError> {
        let advice = "give --record a directory that can be written";
        // Replaying the log shows everything that the guest ever held in memory, so only its owner may
        // read it.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(LogDirError::io("create", dir, advice))?;
        let path = dir.join(LOG_FILE);
        let file = match File::create_new(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LogDirError::Exists(dir.to_path_buf()));
            }
            Err(e) => return Err(LogDirError::io("create", &path, advice)(e)),
        };
        let image_path = dir.join(IMAGE_FILE);
        fs::write(&image_path, image.bytes()).map_err(LogDirError::io(
            "write",
            &image_path,
            advice,
        ))?;
        if let Some((machine, wrote)) = machine {
            let path = dir.join(CHECKPOINT_FILE);
            File::create(&path)
                .and_then(|file| checkpoint::write(file, header, start, machine, wrote))
                .map_err(LogDirError::io("write", &path, advice))?;
        }
        let log = LogWriter::create_at(file, header, start)
            .map_err(LogDirError::io("write", &path, advice))?;
        let queue = LogQueue::default();
        let writer = queue.clone();
        let thread = std::thread::Builder::new()
            .name("log writer".into())
            .spawn(move || {
                if let Err(e) = writer.write_to(log) {
                    let message = format!(
                        "cannot write {} ({e}); free space and record again: the log is whole up to there",
                        path.display()
                    );
                    writer.fail(message);
                }
            })
            .map_err(LogDirError::io("start a thread for", dir, "raise the limit on threads"))?;
        Ok(LogDirWriter {
            dir: dir.to_path_buf(),
            queue,
            thread: Some(thread),
        })
    }

    /// A consumer for the journal. The recording is complete when all consumers are dropped and
    /// [`LogDirWriter::finish`] has returned.
    pub fn consumer(&self, if_slow: IfSlow) -> Box<dyn Consumer> {
        self.queue.consumer(if_slow)
    }

    /// What waits for the disk, to be looked at from elsewhere.
    pub fn queue(&self) -> LogQueue {
        self.queue.clone()
    }

    /// Removes a recording without entries, and its directory if that is then empty.
    pub fn discard(self) -> Result<(), LogDirError> {
        let dir = self.dir.clone();
        // An error does not matter, as the files are removed.
        let _written = self.finish();
        for name in [LOG_FILE, IMAGE_FILE] {
            let path = dir.join(name);
            let advice = "remove it by hand";
            fs::remove_file(&path).map_err(LogDirError::io("remove", &path, advice))?;
        }
        match fs::remove_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.map_err(LogDirError::io("remove", &dir, "remove it by hand")),
        }
    }

    /// Waits until everything is written that the consumers took so far. What they take from here on is
    /// dropped.
    pub fn finish(mut self) -> Result<(), JournalError> {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the log's writer panicked");
        }
        match self.queue.failed() {
            Some(message) => Err(JournalError(message.into())),
            None => Ok(()),
        }
    }
}

impl Drop for LogDirWriter {
    fn drop(&mut self) {
        self.queue.close();
    }
}
