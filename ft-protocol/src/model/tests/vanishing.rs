//! The arbiter loses its records.

use super::*;

/// A primary puts back the record of its pair, and a member that runs alone its claim. An operator puts
/// back a record by which no member has won.
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

/// Without an operator's help, the records may even vanish twice.
#[test]
fn the_records_vanish_twice() {
    let faults = faults!(vanishes: 2, looks: 2, silences: 1);
    let setting = Setting::pair(SMALL, faults);
    let reaches = [HELD, PUT_BACK, STALE_AFTER_ALL];
    setting.reaching(&reaches).explore(105_492);
}

/// The rule for operators is needed: if a record is put back by which a member went on alone, two
/// machines of one VM run.
#[test]
fn a_careless_operator_makes_two_of_one_vm() {
    let faults = faults!(vanishes: 1, careless_restores: 1, silences: 1);
    let setting = Setting::pair(SMALL, faults);
    let checker = setting.clone().checker();
    let checker = checker.finish_when(HasDiscoveries::AnyOf([I4].into()));
    assert!(setting.violates(I4, &checker.spawn_bfs().join()));
}
