//! Opens files to which text is appended, without waiting.

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, open, stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// Permissions of a new file, before the umask.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// Opens `path` to append text. Creates the file if it is missing.
///
/// A FIFO opens at once, with or without a reader: what is written waits in it. For that it is opened
/// for reading too (fifo(7)), so that a reader who closes it and opens it again finds what waited.
///
/// # Errors
/// If it cannot be opened.
pub fn append_to(path: &Path) -> io::Result<File> {
    // Opening a device may wait for its other end as well, hence NONBLOCK. With NOCTTY nothing that is
    // opened here becomes the controlling terminal.
    let how = OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = match open(path, OFlags::WRONLY | how, MODE) {
        Err(Errno::NXIO) if is_fifo(path) => {
            tracing::warn!(
                "nobody reads {} yet: what is written waits there, and what finds no room is lost",
                path.display()
            );
            open(path, OFlags::RDWR | how, MODE)?
        }
        Ok(_) if is_fifo(path) => open(path, OFlags::RDWR | how, MODE)?,
        opened => opened?,
    };
    // Only opening must not wait. Writing may wait: it has a thread of its own.
    let flags = fcntl_getfl(&file)?;
    fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file.into())
}

fn is_fifo(path: &Path) -> bool {
    stat(path).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkfifoat;
    use std::io::{Read, Write};

    #[test]
    fn a_fifo_opens_without_a_reader_and_keeps_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifoat(rustix::fs::CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
        let mut writer = append_to(&path).unwrap();
        writer.write_all(b"early\n").unwrap();
        let mut reader = File::open(&path).unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "early\n");
        // A FIFO that has a reader opens in the same way.
        append_to(&path).unwrap().write_all(b"late\n").unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "early\nlate\n");
    }

    #[test]
    fn a_file_is_continued_and_a_directory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for _ in 0..2 {
            append_to(&path).unwrap().write_all(b"line\n").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "line\nline\n");
        assert!(append_to(dir.path()).is_err());
    }
}
