//! Instructions as bytes.

use super::layout;
use crate::block::bitness;
use crate::state::Mode;
use iced_x86::{Encoder, Instruction, OpKind};

/// Can it be encoded? Some operands go with no other.
pub fn can_be_encoded(instruction: &Instruction, mode: Mode) -> bool {
    let at = layout::CODE.at;
    let mut encoder = Encoder::new(bitness(mode));
    encoder.encode(&aimed(instruction, at), at).is_ok()
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
    let mut encoder = Encoder::new(bitness(mode));
    let mut starts = vec![at];
    for instruction in code {
        let here = starts[starts.len() - 1];
        let len = encoder.encode(&aimed(instruction, here), here);
        starts.push(here + len.expect("it was encoded before") as u64);
    }
    let mut bytes = encoder.take_buffer();
    for (index, instruction) in code.iter().enumerate().filter(|(_, i)| is_near(i)) {
        let target = starts[(index + 2).min(code.len())];
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

fn is_near(instruction: &Instruction) -> bool {
    instruction
        .op_kinds()
        .any(|kind| matches!(kind, OpKind::NearBranch32 | OpKind::NearBranch64))
}

/// The instruction, with that target if it is a near branch.
fn aimed(instruction: &Instruction, target: u64) -> Instruction {
    let mut instruction = *instruction;
    if is_near(&instruction) {
        match instruction.op0_kind() {
            OpKind::NearBranch32 => instruction.set_near_branch32(target as u32),
            _ => instruction.set_near_branch64(target),
        }
    }
    instruction
}
