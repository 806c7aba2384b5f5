//! The state of a virtual CPU, in a form that every backend can load and save.

use bincode::{Decode, Encode};
use ft_protocol::log::Check;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// The MSRs that a guest's execution may depend on (SDM vol. 4), with their values after a reset. Left
/// out on purpose: the TSC, which keeps counting; paravirtual MSRs, which are not part of the machine;
/// and TSC_AUX, which not every KVM keeps and no allowed instruction reads.
pub const MSRS: [(u32, u64); 12] = [
    (0x174, 0),                     // IA32_SYSENTER_CS
    (0x175, 0),                     // IA32_SYSENTER_ESP
    (0x176, 0),                     // IA32_SYSENTER_EIP
    (0x277, 0x0007_0406_0007_0406), // IA32_PAT
    (0x2ff, 0),                     // IA32_MTRR_DEF_TYPE
    (0xc000_0081, 0),               // IA32_STAR
    (0xc000_0082, 0),               // IA32_LSTAR
    (0xc000_0083, 0),               // IA32_CSTAR
    (0xc000_0084, 0),               // IA32_FMASK
    (0xc000_0100, 0),               // IA32_FS_BASE
    (0xc000_0101, 0),               // IA32_GS_BASE
    (0xc000_0102, 0),               // IA32_KERNEL_GS_BASE
];

/// RFLAGS bits left out of checks and digests: IOPL reads back differently on different kinds of
/// KVM, and RF depends on whether a pending instruction was completed.
const FLAGS_MASK: u64 = !(0x3000 | 1 << 16);

/// General registers, instruction pointer and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Registers {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, R8 to R15.
    pub general: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
}

impl Registers {
    /// RIP, and a hash of the others without the flags outside `FLAGS_MASK`.
    pub fn check(&self) -> Check {
        let mut bytes = [0; 17 * 8];
        let words = self.general.into_iter().chain([self.rflags & FLAGS_MASK]);
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Check {
            rip: self.rip,
            regs: xxh3_64(&bytes) as u32,
        }
    }
}

/// A segment register with its hidden part, the descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Segment {
    /// Base address.
    pub base: u64,
    /// Limit: the segment's length in bytes, minus one.
    pub limit: u32,
    /// Selector.
    pub selector: u16,
    /// The descriptor's attributes, and whether the segment is unusable.
    pub attributes: Attributes,
}

/// What a segment's descriptor says besides base and limit (SDM vol. 3, 3.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[allow(missing_docs, reason = "the names are the manual's")]
pub struct Attributes {
    pub type_: u8,
    pub present: u8,
    pub dpl: u8,
    pub db: u8,
    pub s: u8,
    pub l: u8,
    pub g: u8,
    pub avl: u8,
    pub unusable: u8,
}

impl Segment {
    /// Words for the digest. The SDM leaves parts of an unusable segment undefined; they are left out.
    /// A segment that is not present counts as unusable, as not every KVM marks a null SS at CPL 0 as
    /// unusable.
    fn words(&self) -> [u64; 3] {
        let a = &self.attributes;
        if a.unusable != 0 || a.present == 0 {
            return [self.base, u64::from(self.selector), u64::MAX];
        }
        let packed = u64::from_le_bytes([a.type_, a.present, a.dpl, a.db, a.s, a.l, a.g, 0]);
        let limit = u64::from(self.limit) << 16;
        [self.base, limit | u64::from(self.selector), packed]
    }
}

/// System registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct System {
    /// CS, DS, ES, FS, GS, SS, TR, LDT.
    pub segments: [Segment; 8],
    /// GDT and IDT: base and limit.
    pub tables: [(u64, u16); 2],
    /// CR0, CR2, CR3, CR4, CR8, EFER.
    pub control: [u64; 6],
}

impl System {
    fn words(&self) -> Vec<u64> {
        let mut words: Vec<u64> = self.segments.iter().flat_map(Segment::words).collect();
        for (base, limit) in self.tables {
            words.extend([base, u64::from(limit)]);
        }
        words.extend(self.control);
        words
    }
}

/// Length of the legacy FXSAVE area (SDM vol. 1, 10.5.1) up to the end of XMM15, in 32-bit words.
pub const FPU_WORDS: usize = 104;
/// The words of it that hold x87 and SSE state. Word 7, MXCSR_MASK, is left out: it belongs to the
/// host.
const FPU_STATE: [Range<usize>; 2] = [0..7, 8..FPU_WORDS];

/// x87 and SSE state in the layout of FXSAVE. Guests run with XSAVE off, so there is no other FPU
/// state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fpu([u32; FPU_WORDS]);

impl Default for Fpu {
    /// After a reset: FCW and MXCSR mask all exceptions.
    fn default() -> Fpu {
        let mut words = [0; FPU_WORDS];
        words[0] = 0x37f;
        words[6] = 0x1f80;
        Fpu(words)
    }
}

impl Fpu {
    /// Takes the state from the beginning of an FXSAVE area.
    ///
    /// # Panics
    /// If the area is shorter than [`FPU_WORDS`].
    pub fn from_fxsave(area: &[u32]) -> Fpu {
        let mut words = [0; FPU_WORDS];
        for part in FPU_STATE {
            words[part.clone()].copy_from_slice(&area[part]);
        }
        Fpu(words)
    }

    /// The state as the beginning of an FXSAVE area.
    pub fn fxsave(&self) -> &[u32; FPU_WORDS] {
        &self.0
    }

    /// The same, to change it.
    pub fn fxsave_mut(&mut self) -> &mut [u32; FPU_WORDS] {
        &mut self.0
    }

    fn words(&self) -> Vec<u64> {
        let parts = FPU_STATE.into_iter();
        parts
            .flat_map(|part| self.0[part].iter().map(|word| u64::from(*word)))
            .collect()
    }
}

/// Events under way in the CPU, as `struct kvm_vcpu_events` of the KVM API has them. System management
/// mode is missing, as no guest here can enter it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Events {
    /// Injected, pending, vector, has an error code.
    pub exception: [u8; 4],
    /// The exception's error code.
    pub error_code: u32,
    /// What a pending exception will do to CR2 or DR6 when it is delivered.
    pub payload: Option<u64>,
    /// Injected, vector, is a software interrupt, interrupt shadow.
    pub interrupt: [u8; 4],
    /// Injected, pending, masked.
    pub nmi: [u8; 3],
}

impl Events {
    /// Words for the digest. If no exception or interrupt is under way, its vector is left over from an
    /// earlier one, and is left out.
    fn words(&self) -> Vec<u64> {
        let byte = u64::from;
        let [injected, pending, number, _] = self.exception;
        let mut words = match injected != 0 || pending != 0 {
            true => vec![
                byte(injected) << 16 | byte(pending) << 8 | byte(number),
                u64::from(self.error_code),
                self.payload.unwrap_or(0),
            ],
            false => vec![0; 3],
        };
        let [injected, number, _, shadow] = self.interrupt;
        let interrupt = match injected {
            0 => 0,
            injected => byte(injected) << 8 | byte(number),
        };
        words.push(interrupt << 8 | byte(shadow));
        let [injected, pending, masked] = self.nmi;
        words.push(byte(injected) << 16 | byte(pending) << 8 | byte(masked));
        words
    }
}

/// Debug registers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Debug {
    /// DR0 to DR3.
    pub addresses: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
}

impl Default for Debug {
    /// After a reset (SDM vol. 3, 9.1.1).
    fn default() -> Debug {
        Debug {
            addresses: [0; 4],
            dr6: 0xffff_0ff0,
            dr7: 0x400,
        }
    }
}

/// All of a CPU's state that the guest's execution depends on.
///
/// It is complete only after the instruction that exited was completed ([`crate::Vcpu::settle`]).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CpuState {
    /// General registers.
    pub registers: Registers,
    /// System registers.
    pub system: System,
    /// x87 and SSE.
    pub fpu: Fpu,
    /// XCR0.
    pub xcr0: u64,
    /// Values of [`MSRS`].
    pub msrs: [u64; MSRS.len()],
    /// Events under way.
    pub events: Events,
    /// Debug registers.
    pub debug: Debug,
    /// What the CPU counts, if it does.
    pub counters: Counters,
}

/// What a CPU counts that counts instructions; zero on others, and in a machine that does not let its guest see
/// it. No digest of a log covers it, as the position does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Counters {
    /// Steps made.
    pub steps: u64,
    /// The time-stamp counter, less the steps.
    pub tsc_offset: u64,
    /// The part of it that the guest made (IA32_TSC_ADJUST).
    pub tsc_adjust: u64,
}

impl Default for CpuState {
    /// What a boot protocol starts from: the values after a reset where the manual defines them, else
    /// zero.
    fn default() -> CpuState {
        CpuState {
            registers: Registers::default(),
            system: System::default(),
            fpu: Fpu::default(),
            xcr0: 1,
            msrs: MSRS.map(|(_, value)| value),
            events: Events::default(),
            debug: Debug::default(),
            counters: Counters::default(),
        }
    }
}

impl CpuState {
    /// Was an interrupt handed over that the guest has not taken yet?
    pub fn interrupt_queued(&self) -> bool {
        self.events.interrupt[0] != 0
    }

    /// xxh3-64 of the whole state, without what no replay can reproduce.
    pub fn digest(&self) -> u64 {
        hash(self.parts().into_iter().flat_map(|(_, words)| words))
    }

    /// A digest of each part, by name.
    pub fn components(&self) -> Vec<(&'static str, u64)> {
        let Counters {
            steps,
            tsc_offset,
            tsc_adjust,
        } = self.counters;
        let counters = ("counters", vec![steps, tsc_offset, tsc_adjust]);
        let parts = self.parts().into_iter().chain([counters]);
        parts.map(|(name, words)| (name, hash(words))).collect()
    }

    /// The state as words. Their choice and order are part of every digest in every log.
    fn parts(&self) -> [(&'static str, Vec<u64>); 6] {
        let mut registers = self.registers.general.to_vec();
        registers.extend([self.registers.rip, self.registers.rflags & FLAGS_MASK]);
        let mut debug = self.debug.addresses.to_vec();
        debug.extend([self.debug.dr6, self.debug.dr7]);
        let mut msrs = self.msrs.to_vec();
        msrs.push(self.xcr0);
        [
            ("vCPU registers", registers),
            ("vCPU system registers", self.system.words()),
            ("FPU", self.fpu.words()),
            ("events", self.events.words()),
            ("debug registers", debug),
            ("MSRs", msrs),
        ]
    }
}

fn hash(words: impl IntoIterator<Item = u64>) -> u64 {
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state in which all numbers are different.
    fn motley() -> CpuState {
        let mut state = CpuState::default();
        let mut next = 0u64;
        let mut number = || {
            next += 1;
            next
        };
        state.registers.general = [(); 16].map(|()| number());
        (state.registers.rip, state.registers.rflags) = (number(), 0xfff);
        for segment in &mut state.system.segments {
            segment.base = number();
            segment.limit = number() as u32;
            segment.selector = number() as u16;
            segment.attributes.type_ = number() as u8;
            segment.attributes.present = 1;
        }
        state.system.tables = [(number(), 1), (number(), 2)];
        state.system.control = [(); 6].map(|()| number());
        for word in state.fpu.fxsave_mut() {
            *word = number() as u32;
        }
        state.msrs = [(); 12].map(|()| number());
        state.events.exception = [1, 0, 14, 1];
        state.events.error_code = 2;
        state.events.interrupt = [1, 0x30, 0, 1];
        state.debug.addresses = [(); 4].map(|()| number());
        state.counters = Counters {
            steps: number(),
            tsc_offset: number(),
            tsc_adjust: number(),
        };
        state
    }

    #[test]
    fn a_changed_state_has_a_new_model_version() {
        let golden: [(&str, u64); 7] = [
            ("vCPU registers", 0x52eb_d9ce_66d5_2f63),
            ("vCPU system registers", 0xdab3_9b48_70ba_5bfe),
            ("FPU", 0x2b0a_3b30_6924_942b),
            ("events", 0x4e2e_8180_9e1a_2a43),
            ("debug registers", 0x1366_68b7_51c0_1102),
            ("MSRs", 0xe55e_506f_92d2_2134),
            ("counters", 0x83f7_fea2_4d7e_3aab),
        ];
        assert_eq!(
            motley().components(),
            golden,
            "raise ft_protocol::log::MODEL_VERSION, then write these digests down: {:#x?}",
            motley().components()
        );
    }

    #[test]
    fn what_no_replay_can_reproduce_is_left_out() {
        let digest = motley().digest();
        let same = |change: fn(&mut CpuState)| {
            let mut state = motley();
            change(&mut state);
            assert_eq!(state.digest(), digest);
        };
        same(|s| s.registers.rflags |= 0x3000 | 1 << 16);
        same(|s| s.fpu.fxsave_mut()[7] ^= 1);
        same(|s| s.system.segments[3].attributes.avl = 1);
    }
}
