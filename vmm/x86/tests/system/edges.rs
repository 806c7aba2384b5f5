//! Edges that the kvm-unit-tests found.

use super::{LOG, address, exceptions, run, word};

labels!(system_hidden system_bases system_quiet system_general_detect);
labels!(system_quiet_trap system_quiet_sti system_general_detect_at);

const SOFT: lockstep_x86::Soft = lockstep_x86::Soft;

/// The RIP that the handler noted for an exception.
fn noted_rip(memory: &[u8], number: u64) -> u64 {
    word(memory, LOG + 80 * number + 16)
}

#[test]
fn bases_stay_when_a_return_takes_the_selectors() {
    let (_, state, memory) = run(&SOFT, &raw const system_hidden);
    assert_eq!(exceptions(&memory), [(6, 0)]);
    let [_, rbx, _, _, rsi, rdi, ..] = state.registers.general;
    assert_eq!((rbx, rsi, rdi), (77, 0, 77));
}

#[test]
fn a_base_that_is_not_canonical_is_refused() {
    let (_, _, memory) = run(&SOFT, &raw const system_bases);
    assert_eq!(exceptions(&memory), [(13, 0x48), (13, 0x18)]);
}

#[test]
fn mov_ss_keeps_its_own_single_step_away() {
    let (_, _, memory) = run(&SOFT, &raw const system_quiet);
    assert_eq!(exceptions(&memory), [(1, 0), (1, 0)]);
    let traps = [0, 1].map(|number| noted_rip(&memory, number));
    let expected = [
        address(&raw const system_quiet_trap),
        address(&raw const system_quiet_sti),
    ];
    assert_eq!(traps, expected);
}

#[test]
fn general_detect_guards_the_debug_registers() {
    const GENERAL_DETECT: u64 = 1 << 13;
    let (_, state, memory) = run(&SOFT, &raw const system_general_detect);
    assert_eq!(exceptions(&memory), [(1, 0), (1, 0)]);
    // The instruction itself begins behind the LEA of 7 bytes.
    let at = address(&raw const system_general_detect_at) + 7;
    assert_eq!(noted_rip(&memory, 0), at);
    let dr6 = word(&memory, LOG + 64);
    assert_eq!(dr6 & (GENERAL_DETECT | 0x400f), GENERAL_DETECT);
    // DR7 afterwards, and DR1, which was not written.
    let [_, _, rcx, rdx, ..] = state.registers.general;
    assert_eq!((rcx & GENERAL_DETECT, rdx), (0, 0));
}
