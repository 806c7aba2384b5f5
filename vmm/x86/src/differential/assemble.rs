//! Instructions as bytes.

use super::layout;
use crate::block::bitness;
use crate::state::Mode;
use iced_x86::{Code, Encoder, Instruction, OpKind};

/// An immediate that stands for the address of the instruction itself; n more for that of the nth after it.
pub const AIM: u64 = 0x1a1a_1a10;

/// What encodes code of this mode.
pub fn encoder(mode: Mode) -> Encoder {
    Encoder::new(bitness(mode))
}

/// Can it be encoded? Some operands go with no other.
pub fn can_be_encoded(instruction: &Instruction, encoder: &mut Encoder) -> bool {
    let at = layout::CODE.at;
    let done = encoder.encode(&aimed(instruction, at), at).is_ok();
    let mut bytes = encoder.take_buffer();
    bytes.clear();
    encoder.set_buffer(bytes);
    done
}

/// Code as bytes.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where each instruction begins, and where the last one ends.
    pub starts: Vec<u64>,
}

impl Assembled {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }
}

/// The bytes of the whole, from `at` on. A branch goes behind the next
/// instruction, or to the end.
pub fn assemble(code: &[Instruction], at: u64, mode: Mode) -> Assembled {
    let mut encoder = encoder(mode);
    let mut starts = Vec::with_capacity(code.len() + 1);
    starts.push(at);
    for instruction in code {
        let here = starts[starts.len() - 1];
        let len = encoder.encode(&aimed(instruction, here), here);
        starts.push(here + len.expect("it was encoded before") as u64);
    }
    let mut bytes = encoder.take_buffer();
    for (index, instruction) in code.iter().enumerate() {
        let Some(distance) = distance(instruction) else {
            continue;
        };
        let target = starts[(index + distance).min(code.len())];
        let len = encoder.encode(&aimed(instruction, target), starts[index]);
        assert_eq!(
            starts[index] + len.expect("it is near") as u64,
            starts[index + 1]
        );
        let from = (starts[index] - at) as usize;
        let again = encoder.take_buffer();
        bytes[from..from + again.len()].copy_from_slice(&again);
    }
    Assembled { bytes, starts }
}

/// How many instructions further the instruction goes, or what it loads lies.
fn distance(instruction: &Instruction) -> Option<usize> {
    let near = |kind| matches!(kind, OpKind::NearBranch32 | OpKind::NearBranch64);
    if instruction.op_kinds().any(near) {
        return Some(2);
    }
    let loads = matches!(
        instruction.code(),
        Code::Mov_r64_imm64 | Code::Mov_r32_imm32
    );
    let value = loads.then(|| u64::from(instruction.immediate32()))?;
    (AIM..AIM + 8)
        .contains(&value)
        .then(|| (value - AIM) as usize)
}

/// The instruction, with that target.
fn aimed(instruction: &Instruction, target: u64) -> Instruction {
    let mut instruction = *instruction;
    if distance(&instruction).is_none() {
        return instruction;
    }
    match instruction.op_kind(instruction.op_count() - 1) {
        OpKind::NearBranch32 => instruction.set_near_branch32(target as u32),
        OpKind::NearBranch64 => instruction.set_near_branch64(target),
        OpKind::Immediate32 => instruction.set_immediate32(target as u32),
        _ => instruction.set_immediate64(target),
    }
    instruction
}
