use super::*;
use std::os::fd::OwnedFd;

fn pipe() -> (io::PipeReader, ConsoleOutput) {
    let (reader, writer) = io::pipe().unwrap();
    (reader, ConsoleOutput::File(OwnedFd::from(writer).into()))
}

#[test]
fn a_reader_who_does_not_read_stops_nobody() {
    let (mut reader, output) = pipe();
    let mut console = PatientConsole::new(output);
    // Far more than a pipe and the queue hold.
    let began = Instant::now();
    for letter in [b'x', b'y'] {
        for _ in 0..300 {
            console.write(&[letter; READY_BYTES]);
        }
    }
    assert!(console.slow);
    // The writer waited for the reader once, not for every text.
    assert!(began.elapsed() < 300 * PATIENCE, "{:?}", began.elapsed());
    let mut read = 0;
    let mut buffer = vec![0; out::QUEUE_BYTES];
    // The reader reads again: everything that was kept comes, in order.
    while read < out::QUEUE_BYTES / 2 {
        let n = reader.read(&mut buffer).unwrap();
        assert!(buffer[..n].iter().all(|byte| *byte == b'x'));
        read += n;
    }
    while console.slow {
        console.write(b"z");
        read += reader.read(&mut buffer).unwrap();
    }
    assert!(read <= out::QUEUE_BYTES + (1 << 20), "{read} bytes");
    console.write(b"now");
    let n = reader.read(&mut buffer).unwrap();
    assert_eq!(buffer[..n].trim_ascii_start(), b"now");
}

#[test]
fn what_a_reader_takes_has_left_before_the_writer_goes_on() {
    let (mut reader, output) = pipe();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let mut console = PatientConsole::new(output);
    let mut buffer = [0; 16];
    for number in 0..20 {
        let text = format!("text {number}");
        console.write(text.as_bytes());
        // On a busy host the reader may take longer than [`PATIENCE`].
        if !console.slow {
            let read = reader.read(&mut buffer).unwrap();
            assert_eq!(&buffer[..read], text.as_bytes());
        } else {
            assert!(
                console
                    .queue
                    .as_ref()
                    .unwrap()
                    .settle(Instant::now() + 1000 * PATIENCE)
            );
            let _read = reader.read(&mut buffer).unwrap();
        }
    }
}

#[test]
fn a_machine_that_is_to_end_waits_for_no_reader() {
    let (reader, mut output) = pipe();
    let hurry = Hurry::new().unwrap();
    let waits = hurry.clone();
    let writer = std::thread::spawn(move || {
        let whole = output.write(&[b'x'; 1 << 20], &waits);
        (whole, output.write(b"more", &waits))
    });
    while !hurry.is_waiting() {
        std::thread::yield_now();
    }
    assert!(!writer.is_finished());
    hurry.up();
    let (whole, more) = writer.join().unwrap();
    whole.unwrap();
    more.unwrap();
    assert!(!hurry.is_waiting());
    drop(reader);
}
