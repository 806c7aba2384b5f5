use super::*;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// What is expected must happen within this time.
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a queue that can settle, short enough to wait for one that cannot.
const SHORT: Duration = Duration::from_millis(50);

/// A descriptor that the test owns.
#[derive(Debug)]
struct Plain {
    fd: OwnedFd,
    told: Arc<Mutex<Vec<String>>>,
}

impl Target for Plain {
    const THREAD: &'static str = "test writer";

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn gap(&self, count: u64, why: &str) -> Vec<u8> {
        format!("lost {count}: {why}\n").into_bytes()
    }

    fn failing(&self, why: &str) {
        self.told.lock().unwrap().push(format!("failing: {why}"));
    }

    fn recovered(&self, count: u64, _why: &str) {
        self.told
            .lock()
            .unwrap()
            .push(format!("recovered: {count}"));
    }
}

/// A queue, and the list of its target's reports.
fn queue(fd: impl Into<OwnedFd>) -> (Queue<Plain>, Arc<Mutex<Vec<String>>>) {
    let told = Arc::default();
    let plain = Plain {
        fd: fd.into(),
        told: Arc::clone(&told),
    };
    (Queue::new(plain), told)
}

fn settle(queue: &Queue<Plain>, limit: Duration) {
    queue.settle(Instant::now() + limit);
}

#[test]
fn lines_arrive_whole_and_in_order() {
    let (mut reader, writer) = io::pipe().unwrap();
    let (queue, _) = queue(writer);
    for number in 0..100 {
        queue.push(format!("line {number}\n").into_bytes());
    }
    settle(&queue, LIMIT);
    let wanted: String = (0..100).map(|number| format!("line {number}\n")).collect();
    let mut text = vec![0; wanted.len()];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), wanted);
}

#[test]
fn a_reader_who_does_not_read_stops_nobody_and_learns_what_was_lost() {
    let (mut reader, writer) = io::pipe().unwrap();
    let (queue, told) = queue(writer);
    // Four times what a queue and a pipe hold.
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    let count = 4 * QUEUE_BYTES / line.len();
    for _ in 0..count {
        queue.push(line.clone());
    }
    assert_eq!(*told.lock().unwrap(), ["failing: nobody reads"]);
    let began = Instant::now();
    settle(&queue, SHORT);
    assert!(began.elapsed() < LIMIT, "it cannot settle");
    let mut text = String::new();
    let mut chunk = [0; 4096];
    while !text.contains("nobody reads\n") {
        let read = reader.read(&mut chunk).unwrap();
        text += std::str::from_utf8(&chunk[..read]).unwrap();
    }
    let (whole, gap) = text.trim_end().rsplit_once('\n').unwrap();
    let arrived = whole.lines().count();
    assert!(whole.lines().all(|got| got.len() == line.len() - 1));
    assert!(arrived > QUEUE_BYTES / line.len() / 2, "{arrived} arrived");
    let lost = count - arrived;
    assert_eq!(gap, format!("lost {lost}: nobody reads"));
    settle(&queue, LIMIT);
    let told = told.lock().unwrap();
    assert_eq!(told[1..], [format!("recovered: {lost}")]);
}

#[test]
fn a_descriptor_that_fails_is_tried_with_every_line() {
    let (queue, told) = queue(File::options().write(true).open("/dev/full").unwrap());
    for _ in 0..3 {
        queue.push(b"line\n".to_vec());
    }
    settle(&queue, LIMIT);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("No space left"), "{told:?}");
}

#[test]
fn a_reader_who_comes_again_learns_what_was_lost_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let both = File::options().read(true).write(true).open(&path).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    drop(both);
    let (queue, told) = queue(writer);
    queue.push(b"first\n".to_vec());
    queue.push(b"second\n".to_vec());
    settle(&queue, LIMIT);
    assert_eq!(told.lock().unwrap().len(), 1, "nobody is there");
    let mut reader = File::open(&path).unwrap();
    queue.push(b"third\n".to_vec());
    settle(&queue, LIMIT);
    let mut text = [0; 256];
    let read = reader.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..read]).into_owned();
    let (gap, rest) = text.split_once('\n').unwrap();
    assert!(gap.starts_with("lost 2: Broken pipe"), "{text}");
    assert_eq!(rest, "third\n");
}

#[test]
fn a_line_that_was_cut_is_ended_before_the_next() {
    let (mut reader, writer) = io::pipe().unwrap();
    let (_unused, told) = queue(writer.try_clone().unwrap());
    let target = Plain {
        fd: writer.into(),
        told,
    };
    let mut thread = Writer {
        torn: true,
        ..Writer::default()
    };
    thread.write(&target, Item::Line(b"whole\n".to_vec()));
    drop((target, _unused));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\nwhole\n");
}
