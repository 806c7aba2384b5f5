//! `file:DIR`: records as small text files, on any file system where link(2) is atomic (local ones,
//! and NFS, where open(O_EXCL) was not always).

use super::{Arbiter, Unreachable};
use ft_protocol::arbiter::RecordName;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Longest record that is read, bytes; ours are far shorter.
const MAX_RECORD: u64 = 64 << 10;

/// An arbiter in a directory.
#[derive(Debug)]
pub struct FileArbiter {
    dir: PathBuf,
}

impl FileArbiter {
    /// The arbiter in `dir`, which must be there: a mount that is missing must not look like an
    /// empty arbiter.
    pub fn new(dir: &Path) -> FileArbiter {
        FileArbiter { dir: dir.into() }
    }

    fn unreachable(&self, e: io::Error) -> Unreachable {
        self.damaged(&e)
    }

    fn vm_dir(&self, vm: &str) -> PathBuf {
        self.dir.join(vm)
    }

    fn try_create(&self, vm: &str, name: RecordName, text: &str) -> io::Result<String> {
        let dir = self.vm_dir(vm);
        match fs::create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let path = dir.join(name.to_string());
        let temporary = dir.join(format!(".{name}.{:032x}", rand::random::<u128>()));
        let written = write_durably(&temporary, text).and_then(|()| {
            match fs::hard_link(&temporary, &path) {
                // Somebody was first; what counts is what is there.
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
    fn create(&self, vm: &str, name: RecordName, text: &str) -> Result<String, Unreachable> {
        self.try_create(vm, name, text)
            .map_err(|e| self.unreachable(e))
    }

    fn read(&self, vm: &str, name: RecordName) -> Result<Option<String>, Unreachable> {
        // Nothing may be concluded from a directory that is not there.
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
            // What else lies there is none of ours.
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
