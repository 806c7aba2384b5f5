//! Files that text is added to, opened without waiting for anybody.

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, open, stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// A new file's rights, before the umask.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// Opens `path` to add text to it, and makes it if it is missing.
///
/// A FIFO opens at once, whether somebody reads it or not: what is written waits in it. For that it is
/// opened for reading too (fifo(7)), so a reader who goes and comes again finds what waited.
///
/// # Errors
/// If it cannot be opened.
pub fn append_to(path: &Path) -> io::Result<File> {
    // A device may wait for its other end as well. Nothing here becomes the controlling terminal.
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
    // Whoever writes may wait; only opening may not.
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
        // One that is read opens in the same way.
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
