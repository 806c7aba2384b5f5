//! The live inputs: the host's clock, a TAP and the console.

use super::console::{ConsoleInput, ConsoleOutput, Hurry, PatientConsole};
use super::tap::Tap;
use ft_protocol::log::OutputPort;
use lockstep_devices::Output;
use lockstep_machine::View;
use lockstep_machine::world::{Inputs, Looked, Outlet};
use lockstep_pulse::Pulse;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// Guest time is brought up to date when it is this far behind, nanoseconds.
pub const CLOCK_STEP_NS: u64 = 50_000;
/// The same where the guest accesses a device ([`View::accesses`]).
const ACCESS_STEP_NS: u64 = 1_000_000;
/// Most frames accepted at one position.
const FRAMES_PER_POSITION: usize = 64;
/// Most console bytes accepted at one position.
const CONSOLE_BYTES_PER_POSITION: usize = 1024;

/// Ends a machine's wait for input, from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    fn new() -> io::Result<Waker> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker(Arc::new(event)))
    }

    /// Ends the wait, or the next one if the machine does not wait now.
    pub fn wake(&self) {
        // If the counter is full, the event is already set.
        let _full = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _empty = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

/// Guest time from the host's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct HostClock {
    since: Instant,
    offset_ns: u64,
}

impl HostClock {
    fn now_ns(&self) -> u64 {
        let elapsed = self.since.elapsed().as_nanos() as u64;
        self.offset_ns.saturating_add(elapsed)
    }
}

fn timespec(ns: u64) -> Timespec {
    Timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    }
}

/// The live backends from which a machine gets its inputs.
#[derive(Debug)]
pub struct Live {
    clock: HostClock,
    tap: Option<Arc<Tap>>,
    console: ConsoleInput,
    waker: Waker,
    /// Guest time when backends were asked last.
    asked_ns: u64,
    /// Guest time as it was answered at this position: the next look takes the same.
    answered_ns: Option<u64>,
    /// Frames that came before this side went live, oldest first.
    early: VecDeque<Vec<u8>>,
    pulse: Pulse,
}

impl Live {
    /// Inputs from these backends; guest time begins now.
    pub fn new(tap: Option<Arc<Tap>>, console: ConsoleInput) -> io::Result<Live> {
        Ok(Live {
            clock: HostClock {
                since: Instant::now(),
                offset_ns: 0,
            },
            tap,
            console,
            waker: Waker::new()?,
            asked_ns: 0,
            answered_ns: None,
            early: VecDeque::new(),
            pulse: Pulse::default(),
        })
    }

    /// Sets the pulse of the thread that waits for input: it rests during the wait.
    pub fn set_pulse(&mut self, pulse: Pulse) {
        self.pulse = pulse;
    }

    /// The same, with frames that came earlier. The guest gets them first.
    pub fn with_early(mut self, frames: Vec<Vec<u8>>) -> Live {
        self.early = frames.into();
        self
    }

    /// The same, for a guest whose console is a serial line, if it is one.
    pub fn with_line(mut self, line: bool) -> Live {
        if line {
            self.console.be_a_line();
        }
        self
    }

    /// The same, with guest time starting to run now.
    pub fn restarted(mut self) -> Live {
        self.clock.since = Instant::now();
        self
    }

    /// The same, with guest time `now_ns` now.
    pub fn continued(mut self, now_ns: u64) -> Live {
        self.clock.offset_ns = now_ns;
        self.restarted()
    }

    /// Ends the machine's wait for input from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Waits until a backend has an input, [`Waker::wake`] is called, or guest time is `until_ns`.
    fn wait(&self, view: &View, until_ns: u64) -> io::Result<()> {
        if view.net_room > 0 && !self.early.is_empty() {
            return Ok(());
        }
        let _rest = self.pulse.rest();
        let waker = self.waker.0.as_fd();
        let tap = self.tap.as_ref().filter(|_| view.net_room > 0);
        let tap = tap.map(|tap| tap.poll_fd());
        let console = self.console.fd().filter(|_| view.console_room > 0);
        // The waker stands in for what is not there.
        let fds = [waker, tap.unwrap_or(waker), console.unwrap_or(waker)];
        let mut polls = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let left = until_ns.saturating_sub(self.asked_ns);
        let timeout = (until_ns != u64::MAX).then(|| timespec(left));
        match poll(&mut polls, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        if !polls[0].revents().is_empty() {
            self.waker.clear();
        }
        Ok(())
    }
}

impl Inputs for Live {
    fn look(&mut self, view: &View, wait_until: Option<u64>) -> io::Result<Looked> {
        if let Some((wait, limit)) = view.wait.zip(wait_until) {
            self.wait(view, wait.until_ns.min(limit))?;
            self.answered_ns = None;
        }
        let now_ns = match self.answered_ns.take() {
            Some(answered_ns) => answered_ns,
            None => self.clock.now_ns(),
        };
        let ask = view.wait.is_some() || now_ns.saturating_sub(self.asked_ns) >= CLOCK_STEP_NS;
        if ask {
            self.asked_ns = now_ns;
        }
        let most = |room: usize, limit: usize| if ask { room.min(limit) } else { 0 };
        let due = view.wait.map_or(u64::MAX, |wait| wait.until_ns);
        // Between two accesses not even a timer that is due brings the time: a driver that sets one looks at the
        // clock again, to see whether it was too late.
        let (edge_ns, step_ns) = match view.accesses {
            true => (None, ACCESS_STEP_NS),
            false => (view.next_edge_ns, CLOCK_STEP_NS),
        };
        let due = due.min(edge_ns.unwrap_or(u64::MAX));
        let stale = view.wait.is_none() && now_ns.saturating_sub(view.now_ns) >= step_ns;
        Ok(Looked {
            now_ns,
            clock: now_ns >= due || stale,
            frames: most(view.net_room, FRAMES_PER_POSITION),
            console: most(view.console_room, CONSOLE_BYTES_PER_POSITION),
        })
    }

    fn frame(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some(early) = self.early.pop_front() {
            buffer[..early.len()].copy_from_slice(&early);
            return Ok(Some(early.len()));
        }
        match &self.tap {
            Some(tap) => tap.recv(buffer),
            None => Ok(None),
        }
    }

    fn console(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.console.is_readable()? {
            return Ok(None);
        }
        let data = self.console.read(buffer.len());
        buffer[..data.len()].copy_from_slice(&data);
        Ok((!data.is_empty()).then_some(data.len()))
    }

    fn entropy(&mut self, buffer: &mut [u8]) {
        rand::fill(buffer);
    }

    fn now_ns(&mut self) -> u64 {
        let now_ns = self.clock.now_ns();
        self.answered_ns = Some(now_ns);
        now_ns
    }
}

/// Writes outputs to their backends at once, without a gate.
#[derive(Debug)]
pub struct Direct {
    tap: Option<Arc<Tap>>,
    console: Printer,
}

/// What to do while the console's reader does not read.
#[derive(Debug)]
enum Printer {
    /// The machine waits for the reader, until `Hurry` ends the wait.
    Waiting(ConsoleOutput, Hurry),
    /// The machine runs on.
    Patient(PatientConsole),
}

impl Direct {
    /// Writes to these backends. The machine waits for a slow reader of the console, until `hurry` ends
    /// the wait.
    pub fn new(tap: Option<Arc<Tap>>, console: ConsoleOutput, hurry: Hurry) -> Direct {
        Direct {
            tap,
            console: Printer::Waiting(console, hurry),
        }
    }

    /// Writes to these backends. The machine does not wait for the console's reader: a member of a pair
    /// waits for its peer only.
    pub fn patient(tap: Option<Arc<Tap>>, console: ConsoleOutput) -> Direct {
        Direct {
            tap,
            console: Printer::Patient(PatientConsole::new(console)),
        }
    }

    /// The TAP, if there is a network.
    pub fn tap(&self) -> Option<&Arc<Tap>> {
        self.tap.as_ref()
    }

    /// Writes one output to its backend.
    pub fn release(&mut self, port: OutputPort, data: &[u8]) -> io::Result<()> {
        match (port, &self.tap) {
            (OutputPort::Net, Some(tap)) => tap.send(data),
            (OutputPort::Net, None) => Ok(()),
            (OutputPort::Console, _) => match &mut self.console {
                Printer::Waiting(console, hurry) => console.write(data, hurry),
                Printer::Patient(console) => {
                    console.write(data);
                    Ok(())
                }
            },
        }
    }
}

impl Outlet for Direct {
    fn emit(&mut self, _: u64, _: u64, output: &Output) -> io::Result<()> {
        self.release(output.port, &output.data)
    }
}
