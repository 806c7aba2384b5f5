//! A recording on disk: a directory with the log and the guest image that it belongs to.

use super::follow::Entries;
use super::journal::{Chunk, Consumer, JournalError};
use crate::memory::{Image, ImageError};
use ft_protocol::log::{Entry, Header, LogError, LogReader, LogWriter, Tail};
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use thiserror::Error;

/// Name of the log in its directory.
pub const LOG_FILE: &str = "log";
/// Name of the guest image in its directory.
pub const IMAGE_FILE: &str = "guest.elf";
/// Chunks that may wait for the disk.
const WRITE_QUEUE_CHUNKS: usize = 1024;

/// Why a recording cannot be made or read.
#[derive(Debug, Error)]
pub enum LogDirError {
    /// There is one already.
    #[error("{0} holds a recording already; name another directory or remove it")]
    Exists(PathBuf),
    /// The directory or a file in it.
    #[error("cannot {what} {path} ({why}); {advice}")]
    Io {
        /// `create`, `read`, …
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The host's answer.
        why: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The log.
    #[error("{path}: {error}")]
    Log {
        /// Which.
        path: PathBuf,
        /// See there.
        error: LogError,
    },
    /// The image.
    #[error(transparent)]
    Image(#[from] ImageError),
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

/// A recording that exists.
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
        let image = Image::parse(&header.guest.name, bytes)?;
        if image.hash() != header.guest.hash {
            return Err(LogDirError::OtherImage(path));
        }
        Ok(image)
    }
}

/// The entries of a log file.
#[derive(Debug)]
pub struct LogFile {
    reader: LogReader<BufReader<File>>,
}

impl LogFile {
    /// What the log was made of.
    pub fn header(&self) -> &Header {
        self.reader.header()
    }

    /// Sequence number, offset in the file, and entry.
    pub fn next_with_offset(&mut self) -> Result<Option<(u64, u64, Entry)>, LogError> {
        self.reader.next()
    }

    /// How it ends; means something once all entries are read.
    pub fn tail(&self) -> Tail {
        self.reader.tail()
    }
}

impl Entries for LogFile {
    fn next(&mut self) -> Result<Option<Entry>, LogError> {
        Ok(self.reader.next()?.map(|(_, _, entry)| entry))
    }
}

/// What happens when the disk fails or does not keep up with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfSlow {
    /// The machine waits, and fails with the disk: the recording is what it runs for.
    Wait,
    /// The recording ends there, and the machine runs on: a protected VM outlives its disk.
    GiveUp,
}

/// Writes a recording on a thread of its own, so that a slow disk does not hold up the machine
/// before its queue is full.
#[derive(Debug)]
pub struct LogDirWriter {
    queue: Option<SyncSender<Chunk>>,
    failed: Arc<OnceLock<String>>,
    thread: Option<JoinHandle<()>>,
}

impl LogDirWriter {
    /// Starts a recording in `dir`, which is made if it is not there.
    pub fn create(dir: &Path, header: &Header, image: &Image) -> Result<LogDirWriter, LogDirError> {
        let advice = "give --record a directory that can be written";
        fs::create_dir_all(dir).map_err(LogDirError::io("create", dir, advice))?;
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
        let log =
            LogWriter::create(file, header).map_err(LogDirError::io("write", &path, advice))?;
        let (queue, chunks) = sync_channel(WRITE_QUEUE_CHUNKS);
        let failed = Arc::new(OnceLock::new());
        let report = failed.clone();
        let thread = std::thread::Builder::new()
            .name("log writer".into())
            .spawn(move || {
                if let Err(e) = write_chunks(log, &chunks) {
                    let message = format!(
                        "cannot write {} ({e}); free space and record again: the log is whole up to there",
                        path.display()
                    );
                    // The only writer of this cell.
                    let _set = report.set(message);
                }
            })
            .map_err(LogDirError::io("start a thread for", dir, "raise the limit on threads"))?;
        Ok(LogDirWriter {
            queue: Some(queue),
            failed,
            thread: Some(thread),
        })
    }

    /// A consumer for the journal. The recording is whole once all of them are dropped and
    /// [`LogDirWriter::finish`] returned.
    pub fn consumer(&self, if_slow: IfSlow) -> Box<dyn Consumer> {
        Box::new(LogDirConsumer {
            queue: Some(self.queue.clone().expect("not finished")),
            failed: self.failed.clone(),
            if_slow,
        })
    }

    /// Waits until everything is written.
    pub fn finish(mut self) -> Result<(), JournalError> {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the log's writer panicked");
        }
        match self.failed.get() {
            Some(message) => Err(JournalError(message.clone())),
            None => Ok(()),
        }
    }
}

fn write_chunks(mut log: LogWriter<File>, chunks: &Receiver<Chunk>) -> io::Result<()> {
    for chunk in chunks {
        log.append_frames(&chunk.frames)?;
    }
    log.flush()
}

struct LogDirConsumer {
    /// None once it was given up.
    queue: Option<SyncSender<Chunk>>,
    failed: Arc<OnceLock<String>>,
    if_slow: IfSlow,
}

impl Consumer for LogDirConsumer {
    fn take(&mut self, chunk: &Chunk) -> Result<(), JournalError> {
        let Some(queue) = &self.queue else {
            return Ok(());
        };
        let taken = match self.if_slow {
            IfSlow::Wait => queue.send(chunk.clone()).is_ok(),
            IfSlow::GiveUp => queue.try_send(chunk.clone()).is_ok(),
        };
        if taken {
            return Ok(());
        }
        let slow = || "the disk does not keep up with the log".to_string();
        let why = self.failed.get().cloned().unwrap_or_else(slow);
        match self.if_slow {
            IfSlow::Wait => Err(JournalError(why)),
            IfSlow::GiveUp => {
                tracing::error!("recording ends here, the VM runs on: {why}");
                self.queue = None;
                Ok(())
            }
        }
    }
}
