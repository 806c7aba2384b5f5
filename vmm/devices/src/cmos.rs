//! The battery-backed clock of a PC, an MC146818: the wall clock at boot, and guest time since.
//!
//! It counts in BCD and in 24 hours. What a guest writes to the clock is not kept, and it makes no interrupts.

use crate::state::{BadState, Reader, Words};
use crate::{Component, Device, World};

/// Registers that hold what was written to them begin here.
const RAM_FIRST: usize = 0x0e;
/// Bytes of memory, registers included.
const BYTES: usize = 128;
/// Register B: 24 hours.
const HOURS_24: u8 = 1 << 1;
/// Register D: the battery is good.
const BATTERY: u8 = 1 << 7;
/// Register A: what a PC's firmware sets, a divider for a crystal of 32.768 kHz and a rate of 1024 Hz.
const DIVIDER: u8 = 0x26;
/// The register that has the century, as the ACPI tables say.
const CENTURY: u8 = 0x32;

const NS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// The clock, and the memory beside it.
pub struct Cmos {
    /// Wall clock at boot, nanoseconds since 1970.
    wall_ns: u64,
    index: u8,
    memory: [u8; BYTES],
}

impl Cmos {
    /// A clock that showed this time at boot, nanoseconds since 1970.
    pub fn new(wall_ns: u64) -> Cmos {
        Cmos {
            wall_ns,
            index: 0,
            memory: [0; BYTES],
        }
    }

    fn value(&self, now_ns: u64) -> u8 {
        let date = Date::at(self.wall_ns.saturating_add(now_ns) / NS_PER_SECOND);
        match self.index {
            0x00 => bcd(date.second),
            0x02 => bcd(date.minute),
            0x04 => bcd(date.hour),
            0x06 => date.weekday as u8,
            0x07 => bcd(date.day),
            0x08 => bcd(date.month),
            0x09 => bcd(date.year % 100),
            CENTURY => bcd(date.year / 100),
            0x0a => DIVIDER,
            0x0b => HOURS_24,
            0x0c => 0,
            0x0d => BATTERY,
            index => self.memory[usize::from(index)],
        }
    }
}

/// Two digits.
fn bcd(value: u64) -> u8 {
    ((value / 10 % 10) << 4) as u8 | (value % 10) as u8
}

/// A date of the Gregorian calendar, UTC.
#[derive(Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
    /// 1 for Sunday.
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Date {
    fn at(seconds: u64) -> Date {
        let (days, second) = (seconds / SECONDS_PER_DAY, seconds % SECONDS_PER_DAY);
        let (year, month, day) = civil(days);
        Date {
            year,
            month,
            day,
            // 1970 began on a Thursday.
            weekday: (days + 4) % 7 + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }
}

/// Year, month and day of a day since 1970. Years are counted from March on, so that a leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = match month {
        0..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    (era * 400 + year + carry, month, day)
}

impl Component for Cmos {
    fn name(&self) -> &'static str {
        "CMOS clock"
    }

    fn save(&self, words: &mut Words) {
        words.put(self.index);
        words.put_bytes(&self.memory);
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        self.index = words.take()?;
        words.unless(usize::from(self.index) < BYTES, "its index is too large")?;
        let memory = words.bytes(BYTES)?;
        let memory = memory.try_into();
        self.memory = memory.map_err(|_| words.bad("its memory has another size"))?;
        Ok(())
    }
}

impl Device for Cmos {
    fn read(&mut self, offset: u64, data: &mut [u8], world: &World) {
        data.fill(match offset {
            0 => 0xff,
            _ => self.value(world.now_ns),
        });
    }

    fn write(&mut self, offset: u64, data: &[u8], _: &World) {
        for &value in data {
            match offset {
                // The highest bit turns off an interrupt that this machine has not.
                0 => self.index = value & 0x7f,
                _ if usize::from(self.index) >= RAM_FIRST => {
                    self.memory[usize::from(self.index)] = value;
                }
                _ => {}
            }
        }
    }

    fn needs_time(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(seconds: u64) -> (u64, u64, u64, u64) {
        let date = Date::at(seconds);
        (date.year, date.month, date.day, date.weekday)
    }

    #[test]
    fn days_have_their_dates() {
        assert_eq!(date(0), (1970, 1, 1, 5));
        assert_eq!(date(951_782_400), (2000, 2, 29, 3));
        assert_eq!(date(951_782_400 + SECONDS_PER_DAY), (2000, 3, 1, 4));
        assert_eq!(date(1_767_225_599), (2025, 12, 31, 4));
        assert_eq!(date(1_767_225_600), (2026, 1, 1, 5));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, 2));
        assert_eq!(date(4_107_542_399), (2100, 2, 28, 1));
        // Every day follows the one before.
        let mut last = civil(0);
        for day in 1..80_000 {
            let next = civil(day);
            let follows = next.2 == last.2 + 1 || next.2 == 1 && next.1 != last.1;
            assert!(follows, "{last:?} {next:?}");
            last = next;
        }
    }

    #[test]
    fn the_clock_shows_the_wall_clock_at_boot_and_guest_time_since() {
        let mut cmos = Cmos::new(1_767_225_599 * NS_PER_SECOND);
        let mut read = |index, now_ns| {
            cmos.index = index;
            cmos.value(now_ns)
        };
        let shown: Vec<u8> = [0x32, 9, 8, 7, 4, 2, 0].map(|index| read(index, 0)).into();
        assert_eq!(shown, [0x20, 0x25, 0x12, 0x31, 0x23, 0x59, 0x59]);
        let shown: Vec<u8> = [0x32, 9, 8, 7, 4, 2, 0]
            .map(|index| read(index, NS_PER_SECOND))
            .into();
        assert_eq!(shown, [0x20, 0x26, 1, 1, 0, 0, 0]);
        assert_eq!(read(0x0a, 0) & 0x80, 0, "no update is ever in progress");
    }
}
