//! `file:DIR`: records as small text files, on any file system where link(2) is atomic (local ones,
//! and NFS, where open(O_EXCL) was not always).

use super::{ANSWER_LIMIT, Arbiter, Unreachable};
use ft_protocol::arbiter::RecordName;
use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, futimens};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use thiserror::Error;

/// Longest record that is read, bytes; real ones are far shorter.
const MAX_RECORD: u64 = 64 << 10;

/// What sets a file's times to the present.
const NOW: Timestamps = Timestamps {
    last_access: UTIME_NOW_SPEC,
    last_modification: UTIME_NOW_SPEC,
};
const UTIME_NOW_SPEC: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_NOW as _,
};

/// What a member cannot do where a VM's records are.
#[derive(Debug, Error)]
enum ProofError {
    #[error("cannot {step} {} ({source})", .path.display())]
    Step {
        step: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "cannot link {} ({source}): records need link(2) there, on a file system that has it",
        .path.display()
    )]
    Link { path: PathBuf, source: io::Error },
}

/// An arbiter in a directory.
#[derive(Debug)]
pub struct FileArbiter {
    dir: PathBuf,
    /// Directories that are locked while this process lives.
    locked: Mutex<Vec<File>>,
}

impl FileArbiter {
    /// The arbiter in `dir`, which must exist: a missing mount must not look like an empty arbiter.
    pub fn new(dir: &Path) -> FileArbiter {
        FileArbiter {
            dir: dir.into(),
            locked: Mutex::default(),
        }
    }

    fn unreachable(&self, e: io::Error) -> Unreachable {
        self.damaged(&e)
    }

    fn vm_dir(&self, vm: &str) -> PathBuf {
        self.dir.join(vm)
    }

    /// The directory of a VM. It is made if it is missing.
    fn make_vm_dir(&self, vm: &str) -> io::Result<PathBuf> {
        let dir = self.vm_dir(vm);
        match fs::create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(dir),
        }
    }

    /// Does everything that [`FileArbiter::try_create`] does, and removes it again.
    fn try_prove(&self, vm: &str) -> Result<(), ProofError> {
        let why = |step, path: &Path, source| ProofError::Step {
            step,
            path: path.into(),
            source,
        };
        let dir = self
            .make_vm_dir(vm)
            .map_err(|e| why("make", &self.vm_dir(vm), e))?;
        let id = rand::random::<u128>();
        let [draft, proof] = ["draft", "proof"].map(|kind| dir.join(format!(".{kind}.{id:032x}")));
        write_durably(&draft, "").map_err(|e| why("write", &draft, e))?;
        let linked = fs::hard_link(&draft, &proof).map_err(|source| ProofError::Link {
            path: proof.clone(),
            source,
        });
        let removed = fs::remove_file(&draft).map_err(|e| why("remove", &draft, e));
        linked?;
        fs::remove_file(&proof).map_err(|e| why("remove", &proof, e))?;
        removed?;
        for dir in [&dir, &self.dir] {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|e| why("sync", dir, e))?;
        }
        Ok(())
    }

    /// Takes a shared lock on the directories: systemd-tmpfiles does not touch files in a locked
    /// directory.
    fn lock(&self, vm: &str) -> io::Result<()> {
        let mut locked = self.locked.lock().expect("nobody panics with it");
        for path in [self.dir.clone(), self.vm_dir(vm)] {
            let dir = File::open(&path)?;
            let about = dir.metadata()?;
            let same = |other: &File| {
                let other = other.metadata();
                other.is_ok_and(|m| (m.dev(), m.ino()) == (about.dev(), about.ino()))
            };
            if !locked.iter().any(same) {
                flock(&dir, FlockOperation::NonBlockingLockShared)?;
                locked.push(dir);
            }
        }
        // A directory that was removed has nothing left to protect.
        locked.retain(|dir| dir.metadata().is_ok_and(|m| m.nlink() > 0));
        Ok(())
    }

    fn try_create(&self, vm: &str, name: RecordName, text: &str) -> io::Result<String> {
        let dir = self.make_vm_dir(vm)?;
        let path = dir.join(name.to_string());
        let temporary = dir.join(format!(".{name}.{:032x}", rand::random::<u128>()));
        let written = write_durably(&temporary, text).and_then(|()| {
            match fs::hard_link(&temporary, &path) {
                // Another writer was first. Only what is there counts.
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                _ => Ok(()),
            }
        });
        let removed = fs::remove_file(&temporary);
        written.and(removed)?;
        File::open(&dir)?.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        read_record(&path)
    }
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read_record(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_RECORD {
        let why = "it is too long for a record";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    fs::read_to_string(path)
}

impl Arbiter for FileArbiter {
    fn prove(&self, vm: &str) -> Result<(), Unreachable> {
        fs::read_dir(&self.dir).map_err(|e| self.unreachable(e))?;
        self.try_prove(vm).map_err(|why| self.damaged(&why))?;
        self.keep(vm, &[]);
        Ok(())
    }

    fn keep(&self, vm: &str, names: &[RecordName]) {
        if let Err(e) = self.lock(vm) {
            tracing::debug!("the arbiter's directory cannot be locked ({e})");
        }
        // Other cleaners only look at the age. A user who may not set the times of a file leaves it as
        // it is.
        for name in names {
            let touched = File::open(self.vm_dir(vm).join(name.to_string()))
                .and_then(|file| Ok(futimens(&file, &NOW)?));
            if let Err(e) = touched {
                tracing::debug!("the record {name} cannot be kept young ({e})");
            }
        }
    }

    fn answer_limit(&self) -> Duration {
        ANSWER_LIMIT
    }

    fn create_under(
        &self,
        vm: &str,
        guard: RecordName,
        name: RecordName,
        text: &str,
    ) -> Result<Option<String>, Unreachable> {
        let found = self.create(vm, name, text)?;
        Ok(self.read(vm, guard)?.map(|_| found))
    }

    fn remove(&self, vm: &str, name: RecordName) -> Result<(), Unreachable> {
        fs::read_dir(&self.dir).map_err(|e| self.unreachable(e))?;
        match fs::remove_file(self.vm_dir(vm).join(name.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.unreachable(e)),
            _ => Ok(()),
        }
    }

    fn create(&self, vm: &str, name: RecordName, text: &str) -> Result<String, Unreachable> {
        self.try_create(vm, name, text)
            .map_err(|e| self.unreachable(e))
    }

    fn read(&self, vm: &str, name: RecordName) -> Result<Option<String>, Unreachable> {
        // A missing directory says nothing about its records.
        fs::read_dir(&self.dir).map_err(|e| self.unreachable(e))?;
        match read_record(&self.vm_dir(vm).join(name.to_string())) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.damaged(&format!("{vm}/{name}: {e}"))),
        }
    }

    fn list(&self, vm: &str) -> Result<Vec<RecordName>, Unreachable> {
        fs::read_dir(&self.dir).map_err(|e| self.unreachable(e))?;
        let entries = match fs::read_dir(self.vm_dir(vm)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.unreachable(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| self.unreachable(e))?;
            let name = entry.file_name();
            // Other files there do not belong to Lockstep.
            if let Some(Ok(name)) = name.to_str().map(str::parse) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn damaged(&self, why: &dyn std::fmt::Display) -> Unreachable {
        Unreachable {
            arbiter: format!("file:{}", self.dir.display()),
            why: why.to_string(),
        }
    }
}
