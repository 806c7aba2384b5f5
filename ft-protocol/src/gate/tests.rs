use super::*;
use crate::testing::Rng;

#[test]
fn outputs_leave_with_the_ack_of_the_last_entry_they_need() {
    let mut gate = Gate::new();
    gate.queue(1, 3, 100);
    gate.queue(2, 3, 100);
    gate.queue(3, 7, 100);
    assert_eq!((gate.passed(), gate.held()), (0, 3));
    gate.ack(2);
    assert_eq!(gate.passed(), 0);
    gate.ack(6);
    assert_eq!(gate.passed(), 2);
    // An older ack that arrives late takes nothing back.
    gate.ack(1);
    assert_eq!((gate.passed(), gate.acked()), (2, 6));
    gate.ack(7);
    assert_eq!((gate.passed(), gate.held()), (3, 0));
    // What needs nothing new leaves at once.
    gate.queue(4, 7, 100);
    assert_eq!(gate.passed(), 4);
}

#[test]
fn an_open_gate_lets_everything_through() {
    let mut gate = Gate::new();
    gate.queue(1, 10, 100);
    gate.queue(2, 20, 100);
    gate.open();
    assert_eq!(gate.passed(), 2);
    gate.queue(3, 30, 100);
    assert_eq!((gate.passed(), gate.queued()), (3, 3));
}

#[test]
fn a_full_gate_says_so() {
    let mut gate = Gate::new();
    for number in 1..=GATE_OUTPUTS as u64 {
        assert!(!gate.is_full());
        gate.queue(number, number, 100);
    }
    assert!(gate.is_full());
    gate.ack(1);
    assert!(!gate.is_full());
}

#[test]
fn few_large_outputs_fill_it_as_well() {
    const LARGE: u64 = 64 << 10;
    let mut gate = Gate::new();
    let fit = GATE_BYTES / LARGE;
    assert!(fit < GATE_OUTPUTS as u64);
    for number in 1..=fit {
        assert!(!gate.is_full(), "{number}");
        gate.queue(number, number, LARGE);
    }
    assert!(gate.is_full());
    assert_eq!(gate.held_bytes(), GATE_BYTES);
    gate.ack(1);
    assert!(!gate.is_full());
    gate.open();
    assert_eq!((gate.held(), gate.held_bytes()), (0, 0));
}

#[test]
#[should_panic(expected = "outputs come in order")]
fn a_skipped_output_is_a_bug() {
    Gate::new().queue(2, 1, 100);
}

#[test]
#[should_panic(expected = "needs no less")]
fn an_output_that_needs_less_than_the_last_is_a_bug() {
    let mut gate = Gate::new();
    gate.queue(1, 5, 100);
    gate.queue(2, 4, 100);
}

#[test]
fn at_random_the_output_rule_holds() {
    let mut rng = Rng::seeded(5);
    for _ in 0..200 {
        let (mut gate, mut needs, mut acked) = (Gate::new(), vec![0], 0);
        for _ in 0..200 {
            if rng.one_in(2) {
                needs.push(needs.last().unwrap() + rng.below(3));
                gate.queue(needs.len() as u64 - 1, *needs.last().unwrap(), 100);
            } else {
                let ack = rng.below(needs.last().unwrap() + 1);
                acked = acked.max(ack);
                gate.ack(ack);
            }
            let passed = needs.iter().skip(1).take_while(|&&n| n <= acked).count();
            assert_eq!(gate.passed(), passed as u64);
        }
    }
}
