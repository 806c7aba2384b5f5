//! The 8254 (Intel data sheet 231164): three counters at 1.193182 MHz, driven by guest time.
//!
//! The gates are tied high. Counter 0's output is interrupt line 0. Several expiries between two calls of [`Pit::advance`] make
//! one interrupt, as on hardware whose interrupt was not taken in time. BCD mode counts in binary.

use crate::state::{BadState, Reader, Words};
use crate::{Component, Device, Line, World};

/// Input clock, Hz.
const HZ: u128 = 1_193_182;
const NS_PER_SECOND: u128 = 1_000_000_000;

/// Which byte of a count the next access reads or writes (control word, bits 4 and 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Access {
    Low,
    High,
    #[default]
    LowHigh,
}

#[derive(Debug, Default)]
struct Counter {
    mode: u8,
    access: Access,
    /// Initial count as written; 0 stands for 65536.
    reload: u16,
    /// Guest time when the count was loaded, nanoseconds; `None` before that.
    loaded_ns: Option<u64>,
    /// Expiries since then that were already reported.
    expiries: u64,
    /// The low byte of a count whose high byte was not written yet.
    write_low: Option<u8>,
    /// The next read gives the high byte.
    read_high: bool,
    /// A latched count.
    latch: Option<u16>,
    /// A latched status byte.
    status: Option<u8>,
}

fn ticks(ns: u64) -> u64 {
    (u128::from(ns) * HZ / NS_PER_SECOND) as u64
}

/// First nanosecond at which `ticks` clock periods have passed.
fn nanoseconds(ticks: u64) -> u64 {
    (u128::from(ticks) * NS_PER_SECOND).div_ceil(HZ) as u64
}

impl Counter {
    fn period(&self) -> u64 {
        match self.reload {
            0 => 0x1_0000,
            count => u64::from(count),
        }
    }

    fn periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    /// Modes 1 and 5 wait for an edge of the gate, which is tied high here.
    fn needs_gate_edge(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    fn load(&mut self, count: u16, now_ns: u64) {
        self.reload = count;
        self.loaded_ns = Some(now_ns);
        self.expiries = 0;
    }

    /// Guest time of the next expiry, nanoseconds. `None` if it does not expire again by itself.
    fn next_expiry(&self) -> Option<u64> {
        let loaded = self.loaded_ns?;
        if self.needs_gate_edge() || !self.periodic() && self.expiries > 0 {
            return None;
        }
        let wait = nanoseconds(self.period() * (self.expiries + 1));
        Some(loaded.saturating_add(wait))
    }

    /// Counts on to `now_ns`. Returns true if the output rose at least once.
    fn advance(&mut self, now_ns: u64) -> bool {
        let Some(loaded) = self.loaded_ns.filter(|_| !self.needs_gate_edge()) else {
            return false;
        };
        let passed = ticks(now_ns.saturating_sub(loaded)) / self.period();
        let expiries = if self.periodic() {
            passed
        } else {
            passed.min(1)
        };
        let expired = expiries > self.expiries;
        self.expiries = self.expiries.max(expiries);
        expired
    }

    fn count(&self, now_ns: u64) -> u16 {
        let Some(loaded) = self.loaded_ns else {
            return 0;
        };
        let passed = ticks(now_ns.saturating_sub(loaded));
        match self.mode {
            2 => (self.period() - passed % self.period()) as u16,
            // Mode 3 counts down by two.
            3 => (self.period() - passed * 2 % self.period()) as u16 & !1,
            _ => self.period().wrapping_sub(passed) as u16,
        }
    }

    fn output(&self, now_ns: u64) -> bool {
        let Some(loaded) = self.loaded_ns else {
            return self.mode != 0;
        };
        let passed = ticks(now_ns.saturating_sub(loaded));
        match self.mode {
            0 | 1 => passed >= self.period(),
            3 => passed % self.period() < self.period().div_ceil(2),
            _ => true,
        }
    }

    fn control(&mut self, access: u8, mode: u8, now_ns: u64) {
        if access == 0 {
            self.latch = self.latch.or(Some(self.count(now_ns)));
            return;
        }
        *self = Counter {
            // Modes 6 and 7 are 2 and 3 (data sheet, control word format).
            mode: if mode > 5 { mode - 4 } else { mode },
            access: match access {
                1 => Access::Low,
                2 => Access::High,
                _ => Access::LowHigh,
            },
            ..Counter::default()
        };
    }

    fn write(&mut self, value: u8, now_ns: u64) {
        match (self.access, self.write_low.take()) {
            (Access::Low, _) => self.load(u16::from(value), now_ns),
            (Access::High, _) => self.load(u16::from(value) << 8, now_ns),
            (Access::LowHigh, None) => {
                self.write_low = Some(value);
                // The first byte of a new count stops a mode 0 countdown.
                if self.mode == 0 {
                    self.loaded_ns = None;
                }
            }
            (Access::LowHigh, Some(low)) => {
                self.load(u16::from_le_bytes([low, value]), now_ns);
            }
        }
    }

    fn read(&mut self, now_ns: u64) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let [low, high] = self
            .latch
            .unwrap_or_else(|| self.count(now_ns))
            .to_le_bytes();
        let (byte, done) = match self.access {
            Access::Low => (low, true),
            Access::High => (high, true),
            Access::LowHigh => {
                self.read_high = !self.read_high;
                if self.read_high {
                    (low, false)
                } else {
                    (high, true)
                }
            }
        };
        if done {
            self.latch = None;
        }
        byte
    }

    fn latch_status(&mut self, now_ns: u64) {
        let access = self.access.bits();
        let null_count = u8::from(self.loaded_ns.is_none());
        let output = u8::from(self.output(now_ns));
        self.status = Some(output << 7 | null_count << 6 | access << 4 | self.mode << 1);
    }
}

impl Access {
    /// The field of the control word.
    fn bits(self) -> u8 {
        match self {
            Access::Low => 1,
            Access::High => 2,
            Access::LowHigh => 3,
        }
    }

    fn from_bits(bits: u8) -> Option<Access> {
        [Access::Low, Access::High, Access::LowHigh]
            .into_iter()
            .find(|access| access.bits() == bits)
    }
}

impl Counter {
    fn save(&self, words: &mut Words) {
        words.put(self.mode);
        words.put(self.access.bits());
        words.put(self.reload);
        words.put_option(self.loaded_ns);
        words.put(self.expiries);
        words.put_option(self.write_low);
        words.put(self.read_high);
        words.put_option(self.latch);
        words.put_option(self.status);
    }

    fn restore(words: &mut Reader, now_ns: u64) -> Result<Counter, BadState> {
        let mode = words.take()?;
        let access = Access::from_bits(words.take()?);
        let counter = Counter {
            mode,
            access: access.ok_or_else(|| words.bad("a counter has no way to be read"))?,
            reload: words.take()?,
            loaded_ns: words.option()?,
            expiries: words.take()?,
            write_low: words.option()?,
            read_high: words.flag()?,
            latch: words.option()?,
            status: words.option()?,
        };
        let loaded = counter.loaded_ns.unwrap_or(0);
        let passed = ticks(now_ns.saturating_sub(loaded)) / counter.period();
        let sound = counter.mode <= 5 && loaded <= now_ns && counter.expiries <= passed;
        words.unless(sound, "a counter is ahead of its time")?;
        Ok(counter)
    }
}

/// Port 61h: counter 2's gate, and whether its output reaches the speaker. What is written there.
const SPEAKER_BITS: u8 = 0b11;
/// Port 61h, when read: a bit that changes with each refresh of memory, 15 µs, and counter 2's output.
const REFRESH: u8 = 1 << 4;
const REFRESH_NS: u64 = 15_085;
const OUTPUT: u8 = 1 << 5;
/// The offset of port 61h, which follows the four of the 8254.
const SPEAKER: u64 = 4;

/// The three counters, and the port beside them that belongs to the third.
#[derive(Debug, Default)]
pub struct Pit {
    counters: [Counter; 3],
    speaker: u8,
}

impl Pit {
    /// Counts on to guest time `now_ns`. Returns true if counter 0's output rose: an edge on line 0.
    #[must_use]
    pub fn advance(&mut self, now_ns: u64) -> bool {
        let [zero, one, two] = &mut self.counters;
        one.advance(now_ns);
        two.advance(now_ns);
        zero.advance(now_ns)
    }

    /// Guest time of counter 0's next edge, nanoseconds.
    pub fn next_edge(&self) -> Option<u64> {
        self.counters[0].next_expiry()
    }

    /// OUT to port 40h + `register` (0 to 3).
    pub fn write(&mut self, register: u16, value: u8, now_ns: u64) {
        match (register, value >> 6) {
            (3, 3) => self.read_back(value, now_ns),
            (3, counter) => {
                self.counters[usize::from(counter)].control(value >> 4 & 3, value >> 1 & 7, now_ns);
            }
            (counter, _) => self.counters[usize::from(counter)].write(value, now_ns),
        }
    }

    /// The gate does not stop counter 2: software opens it before it loads a count.
    fn read_speaker(&self, now_ns: u64) -> u8 {
        let refresh = if (now_ns / REFRESH_NS) & 1 == 1 {
            REFRESH
        } else {
            0
        };
        let output = if self.counters[2].output(now_ns) {
            OUTPUT
        } else {
            0
        };
        self.speaker | refresh | output
    }

    fn read_back(&mut self, value: u8, now_ns: u64) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            if value & 2 << index == 0 {
                continue;
            }
            if value & 0x20 == 0 {
                counter.control(0, 0, now_ns);
            }
            if value & 0x10 == 0 {
                counter.latch_status(now_ns);
            }
        }
    }

    /// IN from port 40h + `register`; the control word (3) cannot be read.
    pub fn read(&mut self, register: u16, now_ns: u64) -> u8 {
        match register {
            3 => 0xff,
            counter => self.counters[usize::from(counter)].read(now_ns),
        }
    }
}

impl Component for Pit {
    fn name(&self) -> &'static str {
        "8254"
    }

    fn save(&self, words: &mut Words) {
        for counter in &self.counters {
            counter.save(words);
        }
        words.put(self.speaker);
    }

    fn restore(&mut self, words: &mut Reader, world: &World) -> Result<(), BadState> {
        for counter in &mut self.counters {
            *counter = Counter::restore(words, world.now_ns)?;
        }
        self.speaker = words.take()?;
        let sound = self.speaker & !SPEAKER_BITS == 0;
        words.unless(sound, "port 61h has bits that are not kept")
    }
}

impl Device for Pit {
    fn read(&mut self, offset: u64, data: &mut [u8], world: &World) {
        data.fill_with(|| match offset {
            SPEAKER => self.read_speaker(world.now_ns),
            _ => self.read(offset as u16, world.now_ns),
        });
    }

    fn write(&mut self, offset: u64, data: &[u8], world: &World) {
        for &value in data {
            match offset {
                SPEAKER => self.speaker = value & SPEAKER_BITS,
                _ => self.write(offset as u16, value, world.now_ns),
            }
        }
    }

    fn needs_time(&self) -> bool {
        true
    }

    fn advance(&mut self, now_ns: u64, mut line: Line) -> bool {
        let rose = self.advance(now_ns);
        if rose {
            line.pulse();
        }
        rose
    }

    fn next_edge_ns(&self) -> Option<u64> {
        self.next_edge()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn programmed(mode: u8, count: u16, now: u64) -> Pit {
        let mut pit = Pit::default();
        pit.write(3, 0x30 | mode << 1, now);
        let [low, high] = count.to_le_bytes();
        pit.write(0, low, now);
        assert_eq!(pit.next_edge(), None, "half a count starts nothing");
        pit.write(0, high, now);
        pit
    }

    #[test]
    fn a_periodic_counter_expires_at_its_rate_without_drift() {
        let mut pit = programmed(2, 1193, 5 * MS);
        let mut now = 5 * MS;
        for _ in 0..1000 {
            now = pit.next_edge().unwrap();
            assert!(!pit.advance(now - 1));
            assert!(pit.advance(now));
            assert!(!pit.advance(now), "an edge is reported once");
        }
        // 1000 periods of 1193 ticks.
        let exact = 5 * MS + (1_193_000u128 * 1_000_000_000 / HZ) as u64;
        assert!(now.abs_diff(exact) <= 1, "{now} {exact}");
    }

    #[test]
    fn missed_expiries_are_one_edge() {
        let mut pit = programmed(2, 1193, 0);
        assert!(pit.advance(10 * MS));
        assert!(!pit.advance(10 * MS));
        assert!(pit.next_edge().unwrap() > 10 * MS);
    }

    #[test]
    fn a_one_shot_expires_once() {
        let mut pit = programmed(0, 1193, 0);
        let due = pit.next_edge().unwrap();
        assert!(pit.advance(due));
        assert_eq!(pit.next_edge(), None);
        assert!(!pit.advance(due * 1000));
    }

    #[test]
    fn half_a_new_count_stops_a_one_shot() {
        let mut pit = programmed(0, 1193, 0);
        pit.write(0, 0x10, MS / 2);
        assert!(!pit.advance(10 * MS), "no expiry between the two bytes");
        pit.write(0, 0x10, 10 * MS);
        assert!(pit.next_edge().unwrap() > 13 * MS);
    }

    #[test]
    fn a_mode_that_waits_for_its_gate_never_expires() {
        for mode in [1, 5] {
            let mut pit = programmed(mode, 1193, 0);
            assert_eq!(pit.next_edge(), None);
            assert!(!pit.advance(1000 * MS));
        }
    }

    #[test]
    fn an_absurd_time_is_no_panic() {
        let mut pit = programmed(2, 1193, u64::MAX - 5);
        assert_eq!(pit.next_edge(), Some(u64::MAX));
        let _edge = pit.advance(u64::MAX);
    }

    #[test]
    fn a_count_of_zero_is_the_longest() {
        let pit = programmed(2, 0, 0);
        assert_eq!(pit.next_edge().unwrap() / MS, 54);
    }

    #[test]
    fn a_latched_count_stands_still_until_read() {
        let mut pit = programmed(2, 10_000, 0);
        pit.write(3, 0x00, MS);
        let low = pit.read(0, 2 * MS);
        let high = pit.read(0, 3 * MS);
        let latched = u16::from_le_bytes([low, high]);
        assert_eq!(u64::from(latched), 10_000 - ticks(MS));
        let unlatched = u16::from_le_bytes([pit.read(0, 2 * MS), pit.read(0, 2 * MS)]);
        assert_eq!(u64::from(unlatched), 10_000 - ticks(2 * MS));
    }

    #[test]
    fn read_back_gives_the_status() {
        let mut pit = programmed(2, 1193, 0);
        pit.write(3, 0xe2, 0);
        assert_eq!(pit.read(0, 0), 0xb4);
    }
}
