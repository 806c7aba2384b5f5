//! What only a system does: small kernels. What they should see is written here, from the manual. Some also
//! run on KVM, and all of the state and the memory is compared; those that some kinds of KVM emulate, and not
//! as the manual has it, do not.

use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;
use lockstep_vcpu::{CpuBackend, CpuState, Exit, Run, Until};
use std::arch::global_asm;

global_asm!(include_str!("kernels.s"), include_str!("edges.s"));

/// Where the kernels lie.
const CODE: u64 = 0x20_0000;
/// Tables of the CPU, and what the kernels use besides.
const GDT: u64 = 0x1000;
const TSS: u64 = 0x2000;
const IDT: u64 = 0x3000;
const LOG_POINTER: u64 = 0x5000;
const PML4: u64 = 0x1_0000;
const LOG: u64 = 0x10_0000;

macro_rules! labels {
    ($($name:ident)*) => {
        unsafe extern "C" { $( static $name: u8; )* }
    };
}
labels!(system_begin system_end system_stubs);

/// The bytes from the first label to the last.
fn code() -> &'static [u8] {
    let (begin, end) = (&raw const system_begin, &raw const system_end);
    // SAFETY: the assembler put the labels around the code between them.
    unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) }
}

/// Where a label's code lies in the machine.
fn address(label: *const u8) -> u64 {
    CODE + (label as u64 - (&raw const system_begin) as u64)
}

fn put(ram: &Ram, at: u64, words: &[u64]) {
    for (index, word) in words.iter().enumerate() {
        ram.write_u64(at + 8 * index as u64, *word).unwrap();
    }
}

/// Identity, in 4 KiB pages below 2 MiB, and what the kernels try; the first GiB once more at 1 GiB.
fn map(ram: &Ram) {
    put(ram, PML4, &[0x1_1007]);
    put(ram, 0x1_1000, &[0x1_2007, 0x87]);
    put(ram, 0x1_2000, &[0x1_3007]);
    for large in 1..8 {
        put(ram, 0x1_2000 + 8 * large, &[large << 21 | 0x87]);
    }
    for page in 0..512 {
        let rights = match page {
            0x80 => 0,
            0x81 => 5,
            0x82 => 1 << 63 | 7,
            0x83 => 1 << 51 | 7,
            0x84 => 3,
            _ => 7,
        };
        put(ram, 0x1_3000 + 8 * page, &[page << 12 | rights]);
    }
}

fn prepare(ram: &Ram) {
    ram.write(CODE, code()).unwrap();
    map(ram);
    let gdt = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x0000_8b00_2000_0087,
        0,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x00cf_9b00_0000_ffff,
        // The LDT, and code that conforms.
        0x0000_8200_7000_000f,
        0,
        0x00af_9e00_0000_ffff,
    ];
    put(ram, GDT, &gdt);
    // In the LDT: data with a base.
    put(ram, 0x7000, &[0x0040_9312_3456_0fff]);
    // RSP0, and IST 1; the port map.
    put(ram, TSS + 4, &[0x18_0000]);
    put(ram, TSS + 0x24, &[0x19_0000]);
    ram.write(TSS + 0x66, &[0x68, 0]).unwrap();
    ram.write(TSS + 0x68, &[0xff; 0x20]).unwrap();
    ram.write(TSS + 0x68 + 0xe, &[0xfe]).unwrap();
    for vector in 0..256 {
        let stub = address(&raw const system_stubs) + 16 * vector;
        let kind: u64 = match vector {
            0x21 => 0x0e00,
            0x22 => 0x8500,
            0x23 => 0x8e00,
            // A double fault has a stack of its own, as everywhere.
            8 | 0x24 => 0x8e01,
            3 | 0x80 => 0xef00,
            _ => 0x8e00,
        };
        let low = stub & 0xffff | 8 << 16 | kind << 32 | (stub >> 16 & 0xffff) << 48;
        put(ram, IDT + 16 * vector, &[low, stub >> 32]);
    }
    put(ram, LOG_POINTER, &[LOG]);
    // A far pointer for LSS.
    put(ram, 0x6400, &[0x10_0017_0000]);
    for page in 0x85..0x8c {
        put(ram, page << 12, &[page]);
    }
}

fn start(entry: u64) -> CpuState {
    let mut state = lockstep_loader::start_state(entry);
    state.system.control[2] = PML4;
    state.system.tables = [(GDT, 12 * 8 - 1), (IDT, 0xfff)];
    state.system.segments[6].limit = 0x87;
    // An LDT that is none.
    state.system.segments[7] = Default::default();
    state.system.segments[7].attributes.unusable = 1;
    state.registers.general[6] = 0x17_0000;
    state
}

/// Exits, the state after them, and the first 2 MiB of memory.
type Outcome = (Vec<Exit>, CpuState, Vec<u8>);

fn run(backend: &dyn CpuBackend, label: *const u8) -> Outcome {
    let ram = Ram::new(MIN_MIB).unwrap();
    prepare(&ram);
    let mut cpu = backend.cpu(ram.clone(), &start(address(label))).unwrap();
    let mut exits = Vec::new();
    loop {
        match cpu
            .run(Until::GUEST)
            .unwrap_or_else(|error| panic!("{exits:?}: {error}"))
        {
            Run::Kicked => continue,
            Run::Exit(exit) => exits.push(exit),
        }
        match exits.last() {
            Some(Exit::Hlt | Exit::Shutdown) => break,
            Some(Exit::PioIn { len, .. } | Exit::MmioRead { len, .. }) => {
                cpu.answer(&[0x5a, 0x69, 0x78, 0x87, 0x11, 0x22, 0x33, 0x44][..*len]);
            }
            _ => {}
        }
        assert!(exits.len() < 1000);
    }
    let mut memory = vec![0; CODE as usize];
    ram.read(0, &mut memory).unwrap();
    (exits, cpu.save().unwrap(), memory)
}

/// The handler's notes, one line for each exception.
fn notes(memory: &[u8]) -> Vec<String> {
    let word = |at: usize| u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
    let end = word(LOG_POINTER as usize) as usize;
    (LOG as usize..end)
        .step_by(80)
        .map(|at| {
            let names = [
                "vector", "code", "RIP", "CS", "RFLAGS", "RSP", "SS", "CR2", "DR6", "at",
            ];
            let fields = names.iter().enumerate();
            fields
                .map(|(n, name)| format!("{name} {:#x} ", word(at + 8 * n)))
                .collect()
        })
        .collect()
}

/// The lines in which two states differ.
fn difference(ours: &CpuState, theirs: &CpuState) -> String {
    let (ours, theirs) = (format!("{ours:#x?}"), format!("{theirs:#x?}"));
    let lines = ours.lines().zip(theirs.lines()).enumerate();
    lines
        .filter(|(_, (ours, theirs))| ours != theirs)
        .map(|(number, (ours, theirs))| format!("line {number}: {ours} on KVM {theirs}\n"))
        .collect()
}

fn same(label: *const u8) {
    let soft = lockstep_x86::Soft;
    let kvm = lockstep_kvm::Kvm;
    let (ours, theirs) = (run(&soft, label), run(&kvm, label));
    let (our_notes, their_notes) = (notes(&ours.2), notes(&theirs.2));
    for (number, (ours, theirs)) in our_notes.iter().zip(&their_notes).enumerate() {
        assert_eq!(ours, theirs, "exception {number}");
    }
    assert_eq!(our_notes.len(), their_notes.len());
    assert_eq!(ours.0, theirs.0);
    let differs = (0..ours.2.len()).find(|at| ours.2[*at] != theirs.2[*at]);
    if let Some(at) = differs {
        let at = at & !7;
        let word = |memory: &[u8]| u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
        panic!(
            "at {at:#x}: here {:#x}, on KVM {:#x}",
            word(&ours.2),
            word(&theirs.2)
        );
    }
    // KVM counts no instructions.
    let mut ours = ours;
    ours.1.counters = theirs.1.counters;
    assert_eq!(
        ours.1.components(),
        theirs.1.components(),
        "{}",
        difference(&ours.1, &theirs.1)
    );
}

labels!(system_far system_tells system_exceptions system_double system_single_step system_user system_syscall system_segments system_paging);

/// What the handler noted: vectors and error codes.
fn exceptions(memory: &[u8]) -> Vec<(u64, u64)> {
    let end = word(memory, LOG_POINTER) as usize;
    let notes = (LOG as usize..end).step_by(80);
    notes
        .map(|at| (word(memory, at as u64), word(memory, at as u64 + 8)))
        .collect()
}

fn word(memory: &[u8], at: u64) -> u64 {
    let at = at as usize;
    u64::from_le_bytes(memory[at..at + 8].try_into().unwrap())
}

#[test]
fn every_exception_has_its_vector_and_error_code() {
    let (_, _, memory) = run(&lockstep_x86::Soft, &raw const system_exceptions);
    let expected = [
        (6, 0),
        (0, 0),
        (13, 0),
        (13, 0),
        (12, 0),
        (3, 0),
        (0x80, 0),
        (1, 0),
        (14, 0),
        (14, 2),
        (14, 3),
        (14, 3),
        (14, 0x11),
        (14, 9),
        (14, 0),
        (14, 2),
        (13, 0x7f8),
        (13, 0x7f8),
        (13, 0x18),
        (13, 0x50),
        (13, 0),
        (13, 0),
        (13, 0),
        (13, 0),
        (13, 0),
        (8, 0),
    ];
    assert_eq!(exceptions(&memory), expected);
    // CR2 of those that are page faults.
    let cr2 = |number: u64| word(&memory, LOG + 80 * number + 56);
    assert_eq!(
        (8..16).map(cr2).collect::<Vec<_>>(),
        [
            0x8_0000, 0x8_0ff8, 0x8_1000, 0x8_1008, 0x8_2000, 0x8_3000, 0x8_0000, 0x8_0000,
        ]
    );
    // With WP off the supervisor writes where it may not.
    assert_eq!(word(&memory, 0x8_1010), 77);
}

#[test]
fn exceptions_within_exceptions_are_double_faults_where_they_should_be() {
    let (_, _, memory) = run(&lockstep_x86::Soft, &raw const system_double);
    let expected = [(8, 0), (11, 0x10a), (13, 0x112), (0x23, 0), (0x24, 0)];
    assert_eq!(exceptions(&memory), expected);
    // The stacks of IST 1.
    assert_eq!(word(&memory, LOG + 72), 0x19_0000);
    assert_eq!(word(&memory, LOG + 4 * 80 + 72), 0x19_0000);
}

#[test]
fn single_steps_trap_after_each_instruction_and_iteration() {
    let (_, state, memory) = run(&lockstep_x86::Soft, &raw const system_single_step);
    assert_eq!(exceptions(&memory), [(1, 0), (1, 0), (1, 0)]);
    // RF is set between two iterations alone. DR6.BS.
    let noted = |number: u64, offset: u64| word(&memory, LOG + 80 * number + offset);
    assert_eq!(
        [0, 1, 2].map(|number| noted(number, 32)),
        [0x102, 0x102, 0x1_0102]
    );
    assert_eq!(noted(2, 64) & 0x4000, 0x4000);
    // RCX and RSI after one iteration of three.
    assert_eq!(
        (state.registers.general[2], state.registers.general[4]),
        (2, 0x6001)
    );
}

#[test]
fn a_user_may_do_what_the_manual_says() {
    let (exits, _, memory) = run(&lockstep_x86::Soft, &raw const system_user);
    let expected = [
        (13, 0),
        (13, 0),
        (13, 0),
        (14, 5),
        (14, 7),
        (0x80, 0),
        (13, 0x11a),
        (13, 0),
        (6, 0),
        (6, 0),
        (6, 0),
        (6, 0),
    ];
    assert_eq!(exceptions(&memory), expected);
    for number in 0..expected.len() as u64 {
        let note = |offset| word(&memory, LOG + 80 * number + offset);
        // CS, SS, and the stack from the TSS.
        assert_eq!((note(24), note(48), note(72)), (0x3b, 0x33, 0x18_0000));
    }
    assert_eq!(exits, [Exit::PioIn { port: 0x70, len: 1 }, Exit::Hlt]);
}

#[test]
fn system_calls_go_there_and_back() {
    let (_, state, memory) = run(&lockstep_x86::Soft, &raw const system_syscall);
    assert_eq!(exceptions(&memory), [(6, 0)]);
    assert_eq!(
        (word(&memory, LOG + 24), word(&memory, LOG + 48)),
        (0x3b, 0x33)
    );
    // RBX.
    assert_eq!(state.registers.general[1], 3);
    for call in 1..=3 {
        let noted = |table: u64| word(&memory, table + 8 * call);
        assert_eq!(noted(0x6000) & 0x4700, 0);
        assert_eq!(noted(0x6100) & 0x601, 0x601);
        assert_eq!(noted(0x6300), 0x8_0000_0010);
        assert!((CODE..CODE + 0x2000).contains(&noted(0x6200)));
    }
}

#[test]
fn segments_are_loaded_with_their_bases() {
    let (_, state, memory) = run(&lockstep_x86::Soft, &raw const system_segments);
    assert_eq!(exceptions(&memory), [(13, 0x18)]);
    let [rax, rbx, _, _, rsi, rdi, ..] = state.registers.general;
    let [r9, r10] = [state.registers.general[9], state.registers.general[10]];
    assert_eq!((rax, rbx, rsi, rdi), (0x18, 0x48, 11, 22));
    assert_eq!((r9, r10), (4, 0x12_3456));
}

#[test]
fn tables_are_marked_and_translations_forgotten() {
    let (_, state, memory) = run(&lockstep_x86::Soft, &raw const system_paging);
    let [.., rdx, rsi, rdi, _, _] = state.registers.general[..8] else {
        unreachable!("there are eight");
    };
    assert_eq!((rdx, rsi, rdi), (0x89, 0x8a, 0x8a));
    let page = |number: u64| word(&memory, 0x1_3000 + 8 * number) & 0xfff;
    assert_eq!(
        [0x85, 0x86, 0x87, 0x88, 0x8b].map(page),
        [0x27, 0x67, 0x67, 0x27, 7]
    );
    let large = |number: u64| word(&memory, 0x1_2000 + 8 * number) & 0xfff;
    assert_eq!([3, 4, 5].map(large), [0xe7, 0xa7, 0x87]);
    assert_eq!(word(&memory, 0x1_1008) & 0xfff, 0xe7);
}

macro_rules! kernels {
    ($($test:ident $label:ident;)*) => {
        labels!($($label)*);
        $(
            #[test]
            #[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
            fn $test() {
                same(&raw const $label);
            }
        )*
    };
}

mod edges;

kernels! {
    a_triple_fault_shuts_down system_triple;
    compatibility_mode_is_entered_and_left system_compatibility;
    system_registers_hold_what_they_do_on_kvm system_registers;
}

#[test]
fn the_backend_has_a_name() {
    assert!(lockstep_x86::Soft.host_cpu().contains("Lockstep"));
}

#[test]
fn far_returns_and_far_pointers_are_as_the_manual_says() {
    let (_, state, memory) = run(&lockstep_x86::Soft, &raw const system_far);
    let refused = [
        (13, 0),
        (13, 0x10),
        (13, 0x7f8),
        (13, 0x7f8),
        (6, 0),
        (6, 0),
        (1, 0),
    ];
    assert_eq!(exceptions(&memory), refused);
    // RSP after far returns that release 12, 16 and 24 bytes, IRETD and IRETW.
    let noted = |at| word(&memory, at);
    assert_eq!(
        [0x6000, 0x6008, 0x6010, 0x6018, 0x6028].map(noted),
        [0x17_0008, 0x17_0010, 0x17_0018, 0x16_0000, 0x6e00]
    );
    assert_eq!((noted(0x6020), noted(0x6030)), (0x8d7, 0x46));
    let [_, _, rcx, rdx, rsi, rdi, _, rbp, ..] = state.registers.general;
    assert_eq!(
        (rcx, rdx, rsi),
        (0xffff_ffff_ffff_1234, 0x1234_5678, 0x1234_5678)
    );
    assert_eq!((rdi, rbp), (0x9abc_def0_0000_0000, 0x9abc_def0_0000_0000));
}

#[test]
fn the_processor_tells_what_its_model_says() {
    let (_, _, memory) = run(&lockstep_x86::Soft, &raw const system_tells);
    assert_eq!(&memory[0x6000..0x600c], b"GenuineIntel");
    // LM, 1 GiB pages, NX and SYSCALL.
    assert_eq!(word(&memory, 0x6010), 0x2410_0800);
    // A step is a tick.
    assert_eq!(word(&memory, 0x6018), 4);
    assert_eq!(exceptions(&memory), [(13, 0)]);
}
