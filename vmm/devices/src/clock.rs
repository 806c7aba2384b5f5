//! The paravirtual clock: a page of RAM in which the guest reads its time without an exit.

use crate::state::{BadState, Reader, Words};
use crate::{Component, MAX_COUNT, World};
use lockstep_abi::{CLOCK_PAGE, ClockPage};
use lockstep_memory::Ram;
use std::mem::offset_of;

/// Guest time, and a count of deliveries (interrupts and used buffers).
#[derive(Debug)]
pub struct Clock {
    now_ns: u64,
    activity: u64,
    /// The guest has a clock page.
    paged: bool,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock {
            now_ns: 0,
            activity: 0,
            paged: true,
        }
    }
}

impl Clock {
    /// Guest time for a guest that does not know of the page, and has other things in its memory.
    pub fn without_page() -> Clock {
        Clock {
            paged: false,
            ..Clock::default()
        }
    }

    fn write(&self, ram: &Ram, offset: usize, value: u64) {
        if self.paged {
            ram.write_u64(CLOCK_PAGE + offset as u64, value)
                .expect("the clock page lies in RAM");
        }
    }

    /// Guest time since boot, nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Sets guest time. It never goes back: an earlier time is ignored.
    pub fn set(&mut self, ns: u64, ram: &Ram) {
        if ns > self.now_ns {
            self.now_ns = ns;
            self.write(ram, offset_of!(ClockPage, now_ns), ns);
        }
    }

    /// Counts a delivery that the guest may be waiting for.
    pub fn note_activity(&mut self, ram: &Ram) {
        self.activity += 1;
        self.write(ram, offset_of!(ClockPage, activity), self.activity);
    }

    /// Was anything delivered since the guest read the low half of the count as `seen`?
    pub fn news_since(&self, seen: u32) -> bool {
        self.activity as u32 != seen
    }

    /// When the guest wants to be woken, nanoseconds; `u64::MAX` for never.
    pub fn wake_at(&self, ram: &Ram) -> u64 {
        ram.read_u64(CLOCK_PAGE + offset_of!(ClockPage, wake_at_ns) as u64)
            .expect("the clock page lies in RAM")
    }
}

impl Component for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn save(&self, words: &mut Words) {
        words.put_all([self.now_ns, self.activity]);
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        (self.now_ns, self.activity) = (words.take()?, words.take()?);
        let sound = self.now_ns <= MAX_COUNT && self.activity <= MAX_COUNT;
        words.unless(sound, "it is centuries ahead")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let ram = Ram::new(16).unwrap();
        let mut clock = Clock::default();
        clock.set(50, &ram);
        clock.set(40, &ram);
        assert_eq!(clock.now_ns(), 50);
        assert_eq!(ram.read_u64(CLOCK_PAGE).unwrap(), 50);
    }

    #[test]
    fn activity_between_looking_and_idling_is_news() {
        let ram = Ram::new(16).unwrap();
        let mut clock = Clock::default();
        assert!(!clock.news_since(0));
        clock.note_activity(&ram);
        assert!(clock.news_since(0));
        assert!(!clock.news_since(1));
        assert_eq!(ram.read_u64(CLOCK_PAGE + 8).unwrap(), 1);
    }
}
