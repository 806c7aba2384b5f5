//! The high precision event timer (IA-PC HPET specification 1.0a), driven by guest time: a counter of 32 bits at
//! 100 MHz, and three comparators.
//!
//! Unlike the 8254 it can wait for longer than 54 ms, so that an idle guest sleeps. Comparator 0 makes interrupts
//! once the guest has it replace the 8254 (the legacy route); the other two never do. Interrupts are edges:
//! several between two looks are one.

use crate::state::{BadState, Reader, Words};
use crate::{Component, Device, Line, MAX_COUNT, World};

/// Length of a tick.
const TICK_NS: u64 = 10;
const TICK_FS: u64 = TICK_NS * 1_000_000;
const TIMERS: usize = 3;
/// The counter's values.
const WRAP: u64 = 1 << 32;

/// Register offsets.
mod register {
    pub const CAPABILITIES: u64 = 0x000;
    pub const CONFIG: u64 = 0x010;
    pub const COUNTER: u64 = 0x0f0;
    pub const TIMERS: u64 = 0x100;
    /// Bytes of a timer's registers.
    pub const TIMER_LEN: u64 = 0x20;
}

/// Revision 1, three timers, 32 bits, legacy route, and the tick's length.
const CAPABILITIES: u64 = 1 | (TIMERS as u64 - 1) << 8 | 1 << 15 | 0x8086 << 16 | TICK_FS << 32;

/// General configuration.
mod config {
    pub const ENABLE: u8 = 1;
    pub const LEGACY: u8 = 1 << 1;
    pub const KNOWN: u8 = ENABLE | LEGACY;
}

/// A timer's configuration.
mod timer {
    pub const INTERRUPT: u16 = 1 << 2;
    pub const PERIODIC: u16 = 1 << 3;
    pub const CAN_REPEAT: u16 = 1 << 4;
    /// The next write of the comparator is to its value, in periodic mode too.
    pub const SET_VALUE: u16 = 1 << 6;
    /// Those that are kept.
    pub const KEPT: u16 = INTERRUPT | PERIODIC | SET_VALUE;
}

/// A comparator.
#[derive(Debug, Default)]
struct Timer {
    config: u16,
    comparator: u32,
    period: u32,
    /// The tick at which it matches next, counted as [`Hpet::tick`] does.
    next: u64,
}

/// The timer block.
#[derive(Debug, Default)]
pub struct Hpet {
    config: u8,
    /// Ticks up to when it was turned on last, or off; in their lower half, the counter's value.
    counted: u64,
    /// Guest time when it was turned on.
    since_ns: u64,
    timers: [Timer; TIMERS],
}

impl Timer {
    /// It matches next after `tick`.
    fn arm(&mut self, tick: u64) {
        let ahead = u64::from(self.comparator.wrapping_sub(tick as u32));
        self.next = tick + if ahead == 0 { WRAP } else { ahead };
    }

    /// Counts on to `tick`. Returns true if it matched at least once.
    fn advance(&mut self, tick: u64) -> bool {
        if self.next > tick {
            return false;
        }
        let step = match (self.config & timer::PERIODIC != 0, self.period) {
            (true, 1..) => u64::from(self.period),
            (true, 0) | (false, _) => WRAP,
        };
        let times = (tick - self.next) / step + 1;
        self.next += times * step;
        self.comparator = self.next as u32;
        true
    }

    fn write_comparator(&mut self, value: u32, tick: u64) {
        if self.config & timer::PERIODIC != 0 {
            self.period = value;
        }
        if self.config & timer::PERIODIC == 0 || self.config & timer::SET_VALUE != 0 {
            self.comparator = value;
        }
        self.config &= !timer::SET_VALUE;
        self.arm(tick);
    }

    fn save(&self, words: &mut Words) {
        words.put(self.config);
        words.put_all([self.comparator, self.period]);
        words.put(self.next);
    }

    fn restore(words: &mut Reader) -> Result<Timer, BadState> {
        let timer = Timer {
            config: words.take()?,
            comparator: words.take()?,
            period: words.take()?,
            next: words.take()?,
        };
        let sound = timer.config & !timer::KEPT == 0 && timer.next <= MAX_COUNT;
        words.unless(sound, "a timer has an impossible value")?;
        Ok(timer)
    }
}

impl Hpet {
    fn enabled(&self) -> bool {
        self.config & config::ENABLE != 0
    }

    /// Ticks so far.
    fn tick(&self, now_ns: u64) -> u64 {
        match self.enabled() {
            true => self.counted + now_ns.saturating_sub(self.since_ns) / TICK_NS,
            false => self.counted,
        }
    }

    /// Is comparator 0 where the 8254 was?
    fn interrupts(&self) -> bool {
        self.config & config::KNOWN == config::KNOWN
            && self.timers[0].config & timer::INTERRUPT != 0
    }

    fn read_register(&self, offset: u64, now_ns: u64) -> u64 {
        match offset {
            register::CAPABILITIES => CAPABILITIES,
            register::CONFIG => u64::from(self.config),
            register::COUNTER => u64::from(self.tick(now_ns) as u32),
            _ => match self.timer_at(offset) {
                Some((index, 0)) => u64::from(self.timers[index].config | timer::CAN_REPEAT),
                Some((index, 8)) => u64::from(self.timers[index].comparator),
                _ => 0,
            },
        }
    }

    /// The timer whose register this is, and which of its registers.
    fn timer_at(&self, offset: u64) -> Option<(usize, u64)> {
        let within = offset.checked_sub(register::TIMERS)?;
        let (index, register) = (within / register::TIMER_LEN, within % register::TIMER_LEN);
        ((index as usize) < TIMERS).then_some((index as usize, register))
    }

    fn write_register(&mut self, offset: u64, value: u32, now_ns: u64) {
        let tick = self.tick(now_ns);
        match offset {
            register::CONFIG => {
                (self.counted, self.since_ns) = (tick, now_ns);
                self.config = value as u8 & config::KNOWN;
            }
            // Only while it stands still.
            register::COUNTER if !self.enabled() => self.counted = u64::from(value),
            _ => match self.timer_at(offset) {
                Some((index, 0)) => self.timers[index].config = value as u16 & timer::KEPT,
                Some((index, 8)) => return self.timers[index].write_comparator(value, tick),
                _ => return,
            },
        }
        let tick = self.tick(now_ns);
        for timer in &mut self.timers {
            timer.arm(tick);
        }
    }
}

impl Component for Hpet {
    fn name(&self) -> &'static str {
        "HPET"
    }

    fn save(&self, words: &mut Words) {
        words.put(self.config);
        words.put_all([self.counted, self.since_ns]);
        for timer in &self.timers {
            timer.save(words);
        }
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        self.config = words.take()?;
        (self.counted, self.since_ns) = (words.take()?, words.take()?);
        let most = MAX_COUNT / 4;
        let sound =
            self.config & !config::KNOWN == 0 && self.counted <= most && self.since_ns <= most;
        words.unless(sound, "its counter has an impossible value")?;
        for timer in &mut self.timers {
            *timer = Timer::restore(words)?;
        }
        Ok(())
    }
}

impl Device for Hpet {
    /// Registers have 64 bits and are read by halves too. What crosses them reads as zero.
    fn read(&mut self, offset: u64, data: &mut [u8], world: &World) {
        data.fill(0);
        let at = (offset % 8) as usize;
        let value = self
            .read_register(offset - offset % 8, world.now_ns)
            .to_le_bytes();
        if let (0 | 4, Some(part)) = (at, value.get(at..at + data.len())) {
            data.copy_from_slice(part);
        }
    }

    /// The upper halves keep nothing.
    fn write(&mut self, offset: u64, data: &[u8], world: &World) {
        if let (Some(value), true) = (data.first_chunk::<4>(), offset.is_multiple_of(8)) {
            self.write_register(offset, u32::from_le_bytes(*value), world.now_ns);
        }
    }

    fn needs_time(&self) -> bool {
        true
    }

    fn advance(&mut self, now_ns: u64, mut line: Line) -> bool {
        if !self.enabled() {
            return false;
        }
        let tick = self.tick(now_ns);
        let matched = self.timers.each_mut().map(|timer| timer.advance(tick));
        let rose = matched[0] && self.interrupts();
        if rose {
            line.pulse();
        }
        rose
    }

    fn next_edge_ns(&self) -> Option<u64> {
        let wait = self.timers[0].next.saturating_sub(self.counted);
        self.interrupts()
            .then(|| self.since_ns.saturating_add(wait.saturating_mul(TICK_NS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pic;
    use lockstep_memory::Ram;

    const COMPARATOR: u64 = register::TIMERS + 8;

    struct Rig(Hpet, Ram, u64);

    impl Rig {
        /// On, in place of the 8254, with comparator 0 in this mode.
        fn new(mode: u16) -> Rig {
            let mut rig = Rig(Hpet::default(), Ram::new(16).unwrap(), 1_000_003);
            rig.write(register::TIMERS, u32::from(mode | timer::INTERRUPT));
            rig.write(register::CONFIG, 3);
            rig
        }

        fn write(&mut self, offset: u64, value: u32) {
            let world = World {
                now_ns: self.2,
                mem: self.1.map(),
            };
            self.0.write(offset, &value.to_le_bytes(), &world);
        }

        fn counter(&mut self) -> u32 {
            let world = World {
                now_ns: self.2,
                mem: self.1.map(),
            };
            let mut data = [0; 4];
            self.0.read(register::COUNTER, &mut data, &world);
            u32::from_le_bytes(data)
        }

        fn rises_at(&mut self, now_ns: u64) -> bool {
            self.2 = now_ns;
            let mut pic = Pic::default();
            self.0.advance(now_ns, Line::new(&mut pic, 0))
        }
    }

    #[test]
    fn a_comparator_matches_once_at_its_tick() {
        let mut rig = Rig::new(0);
        assert_eq!(rig.counter(), 0);
        rig.write(COMPARATOR, 500_000_000);
        let due = rig.0.next_edge_ns().unwrap();
        assert_eq!(due, 1_000_003 + 5_000_000_000, "seconds ahead");
        assert!(!rig.rises_at(due - 1));
        assert!(rig.rises_at(due));
        assert!(!rig.rises_at(due + 1_000_000_000));
        // One that has passed already waits for the counter to come round.
        let counter = rig.counter();
        rig.write(COMPARATOR, counter);
        assert_eq!(
            rig.0.next_edge_ns().unwrap() / 1_000_000_000,
            due / 1_000_000_000 + 43
        );
    }

    #[test]
    fn a_periodic_comparator_keeps_its_period_and_missed_matches_are_one() {
        let mut rig = Rig::new(timer::PERIODIC | timer::SET_VALUE);
        rig.write(COMPARATOR, 1000);
        rig.write(COMPARATOR, 400_000);
        let first = rig.0.next_edge_ns().unwrap();
        assert_eq!(first, 1_000_003 + 10_000);
        assert!(rig.rises_at(first));
        assert_eq!(rig.0.next_edge_ns(), Some(first + 4_000_000));
        assert!(rig.rises_at(first + 21_000_000));
        assert!(!rig.rises_at(first + 21_000_000));
        assert_eq!(rig.0.next_edge_ns(), Some(first + 24_000_000));
    }

    #[test]
    fn it_makes_no_interrupts_before_it_replaces_the_8254() {
        let mut rig = Rig::new(0);
        rig.write(register::CONFIG, 1);
        rig.write(COMPARATOR, 1000);
        assert_eq!(rig.0.next_edge_ns(), None);
        assert!(!rig.rises_at(1_000_003 + 20_000));
    }

    #[test]
    fn the_counter_stands_still_while_it_is_off() {
        let mut rig = Rig::new(0);
        rig.2 += 1000;
        rig.write(register::CONFIG, 0);
        rig.2 += 1000;
        assert_eq!(rig.counter(), 100);
        rig.write(register::COUNTER, 7);
        rig.write(register::CONFIG, 1);
        rig.2 += 50;
        assert_eq!(rig.counter(), 12);
        rig.write(register::COUNTER, 0);
        assert_eq!(rig.counter(), 12, "it runs");
    }
}
