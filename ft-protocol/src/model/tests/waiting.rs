//! A copy that is not under way whole: what follows it waits.

use super::*;

impl Setting {
    /// Two pieces, of which the second waits for the first.
    fn with_memory(self) -> Setting {
        Setting { pieces: 2, ..self }
    }
}

#[test]
fn the_log_waits_behind_a_copy() {
    let setting = Setting::solo(COPIED, Faults::NONE).with_memory();
    let reaches = [WAITS, PROTECTED_AGAIN, BOTH_FINISH, REFUSED];
    setting.reaching(&reaches).explore(3_730);
}

#[test]
fn a_side_dies_while_something_waits_behind_a_copy() {
    let faults = faults!(crashes: 1, cuts: 1);
    let setting = Setting::solo(COPIED, faults).with_memory();
    let reaches = [WAITS, JOINER_LIVE, SOURCE_LOST_UNARMED, LOST_PROVING];
    setting.reaching(&reaches).explore(62_382);
}

#[test]
fn a_log_that_overtakes_its_copy_breaks_the_protocol() {
    let setting = Setting::solo(COPIED, Faults::NONE).with_memory();
    assert!(setting.catches(Mutant::OvertakesCopy, SOUND));
}
