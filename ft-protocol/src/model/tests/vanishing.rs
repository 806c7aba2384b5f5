//! The arbiter loses its records.

use super::*;

/// A primary puts its pair's record back, and whoever runs alone its claim; an operator what nobody won by.
#[test]
fn the_records_vanish_and_are_put_back() {
    let faults = faults!(vanishes: 1, looks: 1, restores: 1, crashes: 1, cuts: 1);
    let reaches = [HELD, PUT_BACK, RESTORED, STALE_AFTER_ALL, STALE_REPEAT];
    let setting = Setting::pair(SMALL, faults);
    setting.reaching(&reaches).explore(52_325);
}

#[test]
fn the_records_vanish_while_a_side_is_stopped() {
    let faults = faults!(vanishes: 1, looks: 1, restores: 1, silences: 1);
    let reaches = [HELD, PUT_BACK, RESTORED, STALE_AFTER_ALL];
    let setting = Setting::pair(SMALL, faults);
    setting.reaching(&reaches).explore(48_735);
}

#[test]
fn the_records_vanish_while_somebody_joins() {
    let faults = faults!(vanishes: 1, looks: 1, crashes: 1, cuts: 1);
    let setting = Setting::solo(SMALL, faults);
    setting.reaching(&[HELD, PUT_BACK]).explore(134_339);
}

/// Without an operator's help also twice.
#[test]
fn the_records_vanish_twice() {
    let faults = faults!(vanishes: 2, looks: 2, silences: 1);
    let setting = Setting::pair(SMALL, faults);
    let reaches = [HELD, PUT_BACK, STALE_AFTER_ALL];
    setting.reaching(&reaches).explore(105_492);
}

/// The rule is needed: who puts back a record by which somebody went on makes two of one VM.
#[test]
fn a_careless_operator_makes_two_of_one_vm() {
    let faults = faults!(vanishes: 1, careless_restores: 1, silences: 1);
    let setting = Setting::pair(SMALL, faults);
    let checker = setting.clone().checker();
    let checker = checker.finish_when(HasDiscoveries::AnyOf([I4].into()));
    assert!(setting.violates(I4, &checker.spawn_bfs().join()));
}
