//! What a process cannot see of the host: CR0's bits, and functions that need not be equal in all bits.

use super::host::{Job, Operation, functions as host};
use super::stack::fsw;
use super::transcendental::{
    Atan, Cos, Exp2, Log2, Log2Of1Plus, Outcome, Sin, Tan, value, value_of_two,
};
use crate::decode::decode;
use crate::differential::random::Random;
use crate::differential::x87::number;
use crate::exception::{Exception, NM, vector};
use crate::op::Flow;
use crate::state::{Cpu, Mode, Stop};
use iced_x86::{Decoder, DecoderOptions};
use lockstep_memory::Ram;
use lockstep_memory::ram::MIN_MIB;

const PE: u64 = 1;
const MP: u64 = 2;
const EM: u64 = 4;
const TS: u64 = 8;
const NE: u64 = 32;

const FNOP: &[u8] = &[0xd9, 0xd0];
const FNSTSW: &[u8] = &[0xdf, 0xe0];
const FNCLEX: &[u8] = &[0xdb, 0xe2];
const FLD1: &[u8] = &[0xd9, 0xe8];
const FLDZ: &[u8] = &[0xd9, 0xee];
const FDIVP: &[u8] = &[0xde, 0xf9];
const WAIT: &[u8] = &[0x9b];

fn cpu(cr0: u64) -> Cpu {
    let mut cpu = Cpu::new(Ram::new(MIN_MIB).unwrap());
    cpu.control.cr0 = PE | cr0;
    cpu
}

fn run(cpu: &mut Cpu, code: &[u8]) -> Stop {
    let instruction = Decoder::with_ip(64, code, 0x1000, DecoderOptions::NONE).decode();
    let op = decode(&instruction, Mode::Long);
    match (op.run)(cpu, &op) {
        Ok(flow) => {
            assert_eq!(flow, Flow::Next);
            Stop::None
        }
        Err(_) => cpu.stop,
    }
}

#[test]
fn cr0_says_who_may_use_it() {
    let nm = Stop::Exception(NM);
    for (cr0, x87, wait) in [
        (0, Stop::None, Stop::None),
        (MP, Stop::None, Stop::None),
        (TS, nm, Stop::None),
        (TS | MP, nm, nm),
        (EM, nm, Stop::None),
        (EM | MP, nm, Stop::None),
    ] {
        assert_eq!(run(&mut cpu(cr0), FNOP), x87, "{cr0:#x}");
        assert_eq!(run(&mut cpu(cr0), FNSTSW), x87, "{cr0:#x}");
        assert_eq!(run(&mut cpu(cr0), WAIT), wait, "{cr0:#x}");
    }
}

/// 1 / 0, which is not masked.
fn divided_by_zero(cr0: u64) -> Cpu {
    let mut cpu = cpu(cr0);
    cpu.fpu.set_control(0x37b);
    for code in [FLD1, FLDZ, FDIVP] {
        assert_eq!(run(&mut cpu, code), Stop::None);
    }
    cpu
}

#[test]
fn an_exception_waits_for_an_instruction_that_waits() {
    let mut cpu = divided_by_zero(NE);
    let mf = Stop::Exception(Exception::fault(vector::MF));
    assert_eq!(run(&mut cpu, FNSTSW), Stop::None);
    assert_eq!(cpu.get::<2>(0), 0xb084);
    for code in [WAIT, FNOP, FLD1] {
        assert_eq!(run(&mut cpu, code), mf);
    }
    assert_eq!(run(&mut cpu, FNCLEX), Stop::None);
    assert_eq!(run(&mut cpu, FNOP), Stop::None);
}

#[test]
fn without_ne_the_machine_stops() {
    let mut cpu = divided_by_zero(0);
    assert!(matches!(run(&mut cpu, FNOP), Stop::Unsupported(_)));
}

/// Places in the order of numbers.
fn place(value: u128) -> i128 {
    // Without the significand's first bit.
    let magnitude = ((value >> 64 & 0x7fff) << 63 | value & ((1 << 63) - 1)) as i128;
    if value >> 79 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

/// Compares with what the host makes of many numbers: to one unit in the last place.
fn compare(
    name: &str,
    run: Operation,
    here: impl Fn(u128, u128, u16) -> Outcome,
    domain: impl Fn(u128, u128) -> bool,
) {
    let mut random = Random(0x10c5);
    let mut compared = 0;
    let mut far = Vec::new();
    for _ in 0..200_000 {
        let (x, y) = (number(&mut random), number(&mut random));
        let fcw = 0x37f & !(random.below(8) as u16 & 7) | (random.below(4) as u16) << 10;
        if !domain(x, y) {
            continue;
        }
        let mut job = Job::new(fcw, x, y, 0);
        run(&mut job);
        let (value, raised) = here(x, y, fcw);
        compared += 1;
        let codes = fsw::IE | 2 | 4 | fsw::OE | fsw::C2;
        let same_flags = (raised ^ job.fsw) & codes == 0;
        let stopped = raised & !fcw & fsw::BEFORE != 0;
        let near = stopped || (place(value) - place(job.a)).abs() <= 1;
        if !(same_flags && near) && far.len() < 10 {
            let (host, flags) = (job.a, job.fsw);
            far.push(format!(
                "x {x:020x} y {y:020x} under {fcw:#x}: host {host:020x} {flags:#x}, here {value:020x} {raised:#x}"
            ));
        }
    }
    assert!(compared > 20_000, "{name}: {compared}");
    assert!(far.is_empty(), "{name}:\n{}", far.join("\n"));
}

/// The exponent, from that of 1 on.
fn exponent(value: u128) -> i32 {
    (value >> 64 & 0x7fff) as i32 - 0x3fff
}

#[test]
fn functions_of_one_operand_are_as_on_the_host() {
    compare(
        "f2xm1",
        host::exp2_minus_1,
        |x, _, fcw| value::<Exp2>(x, fcw),
        |x, _| exponent(x) < 0,
    );
    compare(
        "fsin",
        host::sin,
        |x, _, fcw| value::<Sin>(x, fcw),
        |_, _| true,
    );
    compare(
        "fcos",
        host::cos,
        |x, _, fcw| value::<Cos>(x, fcw),
        |_, _| true,
    );
    compare(
        "fptan",
        host::tan,
        |x, _, fcw| value::<Tan>(x, fcw),
        |x, _| exponent(x) < 63,
    );
}

#[test]
fn functions_of_two_operands_are_as_on_the_host() {
    compare(
        "fyl2x",
        host::log2,
        |x, y, fcw| value_of_two::<Log2>(y, x, fcw),
        |_, _| true,
    );
    let small = |x: u128, _| exponent(x) < -2;
    compare(
        "fyl2xp1",
        host::log2_of_1_plus,
        |x, y, fcw| value_of_two::<Log2Of1Plus>(y, x, fcw),
        small,
    );
    compare(
        "fpatan",
        host::atan,
        |x, y, fcw| value_of_two::<Atan>(y, x, fcw),
        |_, _| true,
    );
}
