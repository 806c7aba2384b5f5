//! What a machine that is recorded costs at an exit, counted: no memory is allocated, and the clock is looked
//! at once. The process's allocator and its C library's clock do the counting, so nothing escapes them.

use ft_protocol::log::{End, GuestImage, Header, MachineConfig, MachineDigest, NetConfig};
use lockstep_backends::console::{ConsoleChoice, ConsoleInput, ConsoleOutput, Hurry};
use lockstep_backends::live::Direct;
use lockstep_backends::{Live, Tap};
use lockstep_devices::Output;
use lockstep_kvm::Kvm;
use lockstep_loader::Image;
use lockstep_machine::drive::{Driven, drive};
use lockstep_machine::world::{Inputs, Looked, Outlet};
use lockstep_machine::{Machine, Moment, Next, Sink, Source, View};
use lockstep_netns::testing::in_own_network;
use lockstep_netns::{GUEST, HOST, PREFIX_LEN, TAPS};
use lockstep_replay::record::{Controls, Recorder};
use lockstep_replay::{IfSlow, Journal, LogDirWriter, RecordError};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Requests before anything is counted, and those that are.
const WARM_UP: u32 = 2000;
const COUNTED: u32 = 3000;
/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// The test wants to count.
static WINDOW: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static CLOCK_READS: AtomicU64 = AtomicU64::new(0);
static EXITS: AtomicU64 = AtomicU64::new(0);
static WAITS: AtomicU64 = AtomicU64::new(0);
static OUTPUTS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread counts now.
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}

fn add(counter: &AtomicU64) {
    if COUNTS.try_with(Cell::get).unwrap_or(false) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

struct CountingAllocator;

// SAFETY: all is handed to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(&ALLOCATIONS);
        // SAFETY: the caller promises what the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(&ALLOCATIONS);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Stands in for the C library's, by which `std` looks at clocks.
// SAFETY: it is what the C library declares, and does what that does.
#[unsafe(no_mangle)]
extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    add(&CLOCK_READS);
    // SAFETY: the system call takes what the function takes.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}

/// The recorder, between two positions of which it is counted.
struct Counted<X>(X);

impl<X: Source> Source for Counted<X> {
    type Error = X::Error;

    fn next(&mut self, view: &View) -> Result<Next<'_>, X::Error> {
        COUNTS.set(WINDOW.load(Ordering::Acquire));
        let next = self.0.next(view)?;
        if next == Next::Digest {
            // Once a second the whole machine is digested: that is no part of an exit.
            COUNTS.set(false);
        }
        Ok(next)
    }

    fn time(&mut self, moment: Moment) -> Result<Option<u64>, X::Error> {
        self.0.time(moment)
    }

    fn is_over(&mut self, kicked: bool) -> Result<bool, X::Error> {
        self.0.is_over(kicked)
    }
}

impl<X: Sink> Sink for Counted<X> {
    type Error = X::Error;

    fn output(&mut self, moment: Moment, output: &Output) -> Result<(), X::Error> {
        add(&OUTPUTS);
        self.0.output(moment, output)
    }

    fn leave(&mut self, moment: Moment, vector: Option<u8>) -> Result<(), X::Error> {
        add(&EXITS);
        self.0.leave(moment, vector)
    }

    fn digest(&mut self, moment: Moment, digest: MachineDigest) -> Result<(), X::Error> {
        self.0.digest(moment, digest)
    }

    fn end(&mut self, moment: Moment, end: End) -> Result<(), X::Error> {
        self.0.end(moment, end)
    }
}

/// Counts how often the machine waits for its inputs.
struct Waiting(Live);

impl Inputs for Waiting {
    fn look(&mut self, view: &View, wait_until: Option<u64>) -> io::Result<Looked> {
        if wait_until.is_some() {
            add(&WAITS);
        }
        self.0.look(view, wait_until)
    }

    fn frame(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.frame(buffer)
    }

    fn console(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.console(buffer)
    }

    fn entropy(&mut self, buffer: &mut [u8]) {
        self.0.entropy(buffer);
    }

    fn now_ns(&mut self) -> u64 {
        self.0.now_ns()
    }
}

/// Hands outputs out, and does something that costs with each if that is planted.
struct Handing {
    direct: Direct,
    plant: Option<fn()>,
}

impl Outlet for Handing {
    fn emit(&mut self, number: u64, seq: u64, output: &Output) -> io::Result<()> {
        if let Some(plant) = self.plant {
            plant();
        }
        self.direct.emit(number, seq, output)
    }
}

fn header(image: &Image) -> Header {
    let net = NetConfig {
        mac: [2, 0, 0, 0, 0, 1],
        ip: GUEST.octets(),
        prefix_len: PREFIX_LEN,
        gateway: HOST.octets(),
    };
    Header {
        vm: "steady".into(),
        machine: MachineConfig {
            quantum: 100_000,
            ..MachineConfig::new(64).with_net(Some(net))
        },
        guest: GuestImage {
            name: image.name().into(),
            hash: image.hash(),
        },
        host: lockstep_machine::host_print(&Kvm).unwrap(),
        started_ns: 0,
    }
}

/// Small requests and large ones, each answered before the next.
fn ask(kv: &mut TcpStream, count: u32) {
    let value = "v".repeat(1000);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n{value}\r\n");
    let got = format!("$1000\r\n{value}\r\n");
    let dialogue = [
        ("PING\r\n", "+PONG\r\n"),
        (&set, "+OK\r\n"),
        ("GET k\r\n", &got),
    ];
    let mut answer = vec![0; got.len()];
    for (request, wanted) in dialogue.into_iter().cycle().take(count as usize) {
        kv.write_all(request.as_bytes()).unwrap();
        let answer = &mut answer[..wanted.len()];
        kv.read_exact(answer).unwrap();
        assert_eq!(answer, wanted.as_bytes());
    }
}

fn connect() -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect((GUEST, 6379)) {
            Ok(kv) => {
                kv.set_nodelay(true).unwrap();
                kv.set_read_timeout(Some(LIMIT)).unwrap();
                return kv;
            }
            Err(e) => assert!(began.elapsed() < LIMIT, "{e}"),
        }
    }
}

/// What was counted.
#[derive(Debug)]
struct Counts {
    exits: u64,
    waits: u64,
    outputs: u64,
    allocations: u64,
    clock_reads: u64,
}

/// Records `kv` while it answers requests, with a private network and a disk.
fn count(plant: Option<fn()>) -> Counts {
    let image = lockstep_images::find("kv").expect("a guest that ships");
    let image = Image::parse("kv", image.to_vec()).unwrap();
    let header = header(&image);
    let mut machine = Machine::new(&Kvm, &header.machine, &image).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("log");
    let writer = LogDirWriter::create(&dir, &header, &image).unwrap();
    let tap = Arc::new(Tap::open(TAPS[0]).unwrap());
    tap.filter_for(header.machine.net().expect("it has one").mac);
    let live = Live::new(Some(tap.clone()), ConsoleInput::open(&ConsoleChoice::None)).unwrap();
    let waker = live.waker();
    let direct = Direct::new(Some(tap), ConsoleOutput::None, Hurry::new().unwrap());
    let outlet = Handing { direct, plant };
    let journal = Journal::new(1, vec![writer.consumer(IfSlow::Wait)]);
    let controls = Arc::new(Controls::default());
    let recorder = Recorder::new(Waiting(live), outlet, journal, controls.clone(), 0);
    let vcpu = std::thread::spawn(move || {
        let mut edge = Counted(recorder);
        let driven = drive::<RecordError, _>(&mut machine, &mut edge).unwrap();
        COUNTS.set(false);
        assert!(matches!(driven, Driven::Ended(_)));
        edge.0.close().unwrap();
    });
    let mut kv = connect();
    ask(&mut kv, WARM_UP);
    WINDOW.store(true, Ordering::Release);
    ask(&mut kv, COUNTED);
    WINDOW.store(false, Ordering::Release);
    ask(&mut kv, 3);
    controls.stop.store(true, Ordering::Release);
    waker.wake();
    vcpu.join().unwrap();
    writer.finish().unwrap();
    let taken = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Counts {
        exits: taken(&EXITS),
        waits: taken(&WAITS),
        outputs: taken(&OUTPUTS),
        allocations: taken(&ALLOCATIONS),
        clock_reads: taken(&CLOCK_READS),
    }
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn an_exit_takes_no_memory_and_one_look_at_the_clock() {
    let path = concat!(
        module_path!(),
        "::an_exit_takes_no_memory_and_one_look_at_the_clock"
    );
    in_own_network(path, || {
        let counts = count(None);
        println!("{counts:?}");
        assert!(counts.exits >= u64::from(COUNTED), "{counts:?}");
        assert!(counts.outputs >= u64::from(COUNTED), "{counts:?}");
        assert_eq!(counts.allocations, 0, "{counts:?}");
        // After a wait it is another time. One exit may be cut by either end of the window.
        let looks = counts.exits + counts.waits + 2;
        assert!(counts.clock_reads <= looks, "{counts:?}");
        assert!(counts.clock_reads > 0, "the clock is not counted");
    });
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn memory_that_an_output_takes_is_counted() {
    let path = concat!(module_path!(), "::memory_that_an_output_takes_is_counted");
    in_own_network(path, || {
        let counts = count(Some(|| drop(black_box(vec![1u8; 64]))));
        assert_eq!(counts.allocations, counts.outputs, "{counts:?}");
    });
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_look_at_the_clock_with_each_output_is_counted() {
    let path = concat!(
        module_path!(),
        "::a_look_at_the_clock_with_each_output_is_counted"
    );
    in_own_network(path, || {
        let look = || {
            black_box(Instant::now());
            black_box(Instant::now());
        };
        let counts = count(Some(look));
        let looks = counts.exits + counts.waits + 2;
        assert!(counts.clock_reads > looks, "{counts:?}");
        assert_eq!(counts.allocations, 0, "{counts:?}");
    });
}
