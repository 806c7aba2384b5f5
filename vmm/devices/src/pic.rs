//! The 8259A pair (Intel data sheet 231468), with the slave on line 2 of the master.
//!
//! Edge-triggered and fully nested, with rotation: the modes that PC software uses. Left out: polling,
//! level triggering, special fully nested mode. One difference: if a line falls before its request is
//! acknowledged, the request is withdrawn, where the chip would deliver a spurious interrupt 7.

use crate::state::{BadState, Reader, Words};
use crate::{Component, World};

/// Input of the master that the slave's output drives.
const CASCADE: u8 = 2;

/// One 8259A.
#[derive(Clone, Debug, Default)]
struct Chip {
    /// Interrupt request register.
    irr: u8,
    /// In-service register.
    isr: u8,
    /// Interrupt mask register.
    imr: u8,
    /// Levels of the input lines.
    lines: u8,
    /// ICW2: the vector of input 0.
    vector_base: u8,
    /// Input with the highest priority.
    highest: u8,
    /// Next initialisation command word expected: 2, 3 or 4; 0 when initialised.
    expects: u8,
    /// ICW1 announced an ICW4.
    icw4_follows: bool,
    /// ICW1 said there is no slave.
    single: bool,
    /// ICW4: automatic end of interrupt.
    auto_eoi: bool,
    /// OCW2: rotate on automatic end of interrupt.
    rotate_on_auto_eoi: bool,
    /// OCW3: the next read gives ISR instead of IRR.
    read_isr: bool,
    /// OCW3: special mask mode.
    special_mask: bool,
}

impl Chip {
    fn set_line(&mut self, line: u8, level: bool) {
        let bit = 1 << line;
        if level && self.lines & bit == 0 {
            self.irr |= bit;
        }
        if level {
            self.lines |= bit;
        } else {
            // An edge-triggered request is withdrawn when its line falls.
            self.lines &= !bit;
            self.irr &= !bit;
        }
    }

    /// Distance of input `line` from the one with the highest priority.
    fn rank(&self, line: u8) -> u8 {
        line.wrapping_sub(self.highest) & 7
    }

    fn first(&self, set: u8) -> Option<u8> {
        (0..8)
            .map(|distance| (self.highest + distance) & 7)
            .find(|line| set & 1 << line != 0)
    }

    /// The input that would be acknowledged now.
    fn request(&self) -> Option<u8> {
        let line = self.first(self.irr & !self.imr)?;
        let serving = match self.special_mask {
            true => self.isr & !self.imr,
            false => self.isr,
        };
        match self.first(serving) {
            Some(busy) if self.rank(busy) <= self.rank(line) => None,
            _ => Some(line),
        }
    }

    fn acknowledge(&mut self, line: u8) -> u8 {
        self.irr &= !(1 << line);
        if !self.auto_eoi {
            self.isr |= 1 << line;
        } else if self.rotate_on_auto_eoi {
            self.highest = (line + 1) & 7;
        }
        self.vector_base | line
    }

    fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            *self = Chip {
                lines: self.lines,
                expects: 2,
                icw4_follows: value & 1 != 0,
                single: value & 2 != 0,
                ..Chip::default()
            };
        } else if value & 0x08 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let (rotate, specific, eoi) = (value & 0x80 != 0, value & 0x40 != 0, value & 0x20 != 0);
        let level = value & 7;
        match (rotate, specific, eoi) {
            (_, _, true) => {
                let line = match specific {
                    true => Some(level),
                    false => self.first(self.isr),
                };
                if let Some(line) = line {
                    self.isr &= !(1 << line);
                    if rotate {
                        self.highest = (line + 1) & 7;
                    }
                }
            }
            (true, true, false) => self.highest = (level + 1) & 7,
            (rotate, false, false) => self.rotate_on_auto_eoi = rotate,
            (false, true, false) => {}
        }
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & 0x02 != 0 {
            self.read_isr = value & 1 != 0;
        }
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.expects {
            2 => {
                self.vector_base = value & 0xf8;
                self.expects = match (self.single, self.icw4_follows) {
                    (false, _) => 3,
                    (true, true) => 4,
                    (true, false) => 0,
                };
            }
            3 => self.expects = if self.icw4_follows { 4 } else { 0 },
            4 => {
                self.auto_eoi = value & 2 != 0;
                self.expects = 0;
            }
            _ => self.imr = value,
        }
    }

    fn read(&self, data_port: bool) -> u8 {
        match (data_port, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }
}

impl Chip {
    fn save(&self, words: &mut Words) {
        words.put_all([self.irr, self.isr, self.imr, self.lines]);
        words.put_all([self.vector_base, self.highest, self.expects]);
        words.put_all([self.icw4_follows, self.single, self.auto_eoi]);
        words.put_all([self.rotate_on_auto_eoi, self.read_isr, self.special_mask]);
    }

    fn restore(words: &mut Reader) -> Result<Chip, BadState> {
        let chip = Chip {
            irr: words.take()?,
            isr: words.take()?,
            imr: words.take()?,
            lines: words.take()?,
            vector_base: words.take()?,
            highest: words.take()?,
            expects: words.take()?,
            icw4_follows: words.flag()?,
            single: words.flag()?,
            auto_eoi: words.flag()?,
            rotate_on_auto_eoi: words.flag()?,
            read_isr: words.flag()?,
            special_mask: words.flag()?,
        };
        let sound =
            chip.highest < 8 && matches!(chip.expects, 0 | 2..=4) && chip.vector_base & 7 == 0;
        words.unless(sound, "a register has an impossible value")?;
        Ok(chip)
    }
}

/// Master and slave.
#[derive(Clone, Debug, Default)]
pub struct Pic {
    master: Chip,
    slave: Chip,
}

impl Pic {
    /// Sets the level of line 0 to 15.
    pub fn set_line(&mut self, line: u8, level: bool) {
        assert!(line < 16, "the 8259 pair has 16 lines, not line {line}");
        match line < 8 {
            true => self.master.set_line(line, level),
            false => self.slave.set_line(line - 8, level),
        }
        self.cascade();
    }

    /// A low-to-high edge on a line, whatever its level was.
    pub fn pulse(&mut self, line: u8) {
        self.set_line(line, false);
        self.set_line(line, true);
    }

    /// Does the pair request an interrupt of the CPU?
    pub fn requests(&self) -> bool {
        self.master.request().is_some()
    }

    /// Would an edge on `line` make the pair request an interrupt? It would not if the line is masked,
    /// or if an interrupt of the same or higher priority is in service.
    pub fn would_request(&self, line: u8) -> bool {
        let mut then = self.clone();
        then.pulse(line);
        then.requests()
    }

    /// The CPU acknowledges the request: returns the vector.
    ///
    /// If there is no request, the chip answers with its input 7 (data sheet: a spurious interrupt).
    pub fn acknowledge(&mut self) -> u8 {
        let vector = match self.master.request() {
            Some(CASCADE) if !self.master.single => {
                self.master.acknowledge(CASCADE);
                match self.slave.request() {
                    Some(line) => self.slave.acknowledge(line),
                    None => self.slave.vector_base | 7,
                }
            }
            Some(line) => self.master.acknowledge(line),
            None => self.master.vector_base | 7,
        };
        // The slave's output falls during the acknowledge, so that a second request makes a new edge.
        self.master.set_line(CASCADE, false);
        self.cascade();
        vector
    }

    fn cascade(&mut self) {
        let requests = self.slave.request().is_some();
        self.master.set_line(CASCADE, requests);
    }

    /// OUT to one of the four ports: `slave` chip or master, `data` port or command port.
    pub fn write(&mut self, slave: bool, data: bool, value: u8) {
        let chip = if slave {
            &mut self.slave
        } else {
            &mut self.master
        };
        match data {
            true => chip.write_data(value),
            false => chip.write_command(value),
        }
        self.cascade();
    }

    /// IN from one of the four ports.
    pub fn read(&self, slave: bool, data: bool) -> u8 {
        let chip = if slave { &self.slave } else { &self.master };
        chip.read(data)
    }
}

impl Component for Pic {
    fn name(&self) -> &'static str {
        "8259 pair"
    }

    fn save(&self, words: &mut Words) {
        self.master.save(words);
        self.slave.save(words);
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        self.master = Chip::restore(words)?;
        self.slave = Chip::restore(words)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialised(auto_eoi: bool) -> Pic {
        let mut pic = Pic::default();
        for (slave, base) in [(false, 0x20), (true, 0x28)] {
            pic.write(slave, false, 0x11);
            pic.write(slave, true, base);
            pic.write(slave, true, if slave { 2 } else { 4 });
            pic.write(slave, true, if auto_eoi { 3 } else { 1 });
            pic.write(slave, true, 0);
        }
        pic
    }

    #[test]
    fn an_edge_is_delivered_once() {
        let mut pic = initialised(true);
        pic.set_line(4, true);
        assert!(pic.requests());
        assert_eq!(pic.acknowledge(), 0x24);
        assert!(!pic.requests());
        pic.set_line(4, true);
        assert!(!pic.requests(), "a level that stays makes no second edge");
        pic.pulse(4);
        assert_eq!(pic.acknowledge(), 0x24);
    }

    #[test]
    fn a_masked_request_waits() {
        let mut pic = initialised(true);
        pic.write(false, true, 0xff);
        pic.pulse(0);
        assert!(!pic.requests());
        pic.write(false, true, 0xfe);
        assert_eq!(pic.acknowledge(), 0x20);
    }

    #[test]
    fn an_edge_that_would_not_be_delivered_is_known_before_it_comes() {
        let mut pic = initialised(false);
        assert!(pic.would_request(0) && pic.would_request(10));
        assert!(!pic.requests(), "asking changes nothing");
        pic.write(false, true, 0x01);
        assert!(!pic.would_request(0), "masked");
        pic.write(false, true, 0x00);
        pic.pulse(0);
        pic.acknowledge();
        assert!(!pic.would_request(0) && !pic.would_request(5), "in service");
        pic.write(false, false, 0x20);
        assert!(pic.would_request(0));
        pic.write(true, true, 0x04);
        assert!(!pic.would_request(10), "masked at the slave");
    }

    #[test]
    fn a_lower_priority_waits_for_the_end_of_interrupt() {
        let mut pic = initialised(false);
        pic.pulse(3);
        assert_eq!(pic.acknowledge(), 0x23);
        pic.pulse(5);
        assert!(!pic.requests());
        pic.pulse(1);
        assert_eq!(pic.acknowledge(), 0x21, "a higher one nests");
        pic.write(false, false, 0x20);
        assert!(!pic.requests());
        pic.write(false, false, 0x20);
        assert_eq!(pic.acknowledge(), 0x25);
        pic.write(false, false, 0x0b);
        assert_eq!(pic.read(false, false), 1 << 5);
    }

    #[test]
    fn two_lines_of_the_slave_both_arrive() {
        let mut pic = initialised(true);
        pic.set_line(10, true);
        pic.set_line(12, true);
        assert_eq!(pic.acknowledge(), 0x2a);
        assert!(pic.requests());
        assert_eq!(pic.acknowledge(), 0x2c);
        assert!(!pic.requests());
    }

    #[test]
    fn with_manual_eoi_the_slave_needs_two() {
        let mut pic = initialised(false);
        pic.set_line(10, true);
        assert_eq!(pic.acknowledge(), 0x2a);
        pic.set_line(11, true);
        assert!(!pic.requests());
        pic.write(true, false, 0x20);
        pic.write(false, false, 0x20);
        assert_eq!(pic.acknowledge(), 0x2b);
    }

    #[test]
    fn a_request_withdrawn_before_the_acknowledge_is_spurious() {
        let mut pic = initialised(true);
        pic.set_line(4, true);
        pic.set_line(4, false);
        assert!(!pic.requests());
        assert_eq!(pic.acknowledge(), 0x27);
    }

    #[test]
    fn rotation_moves_the_priorities() {
        let mut pic = initialised(false);
        pic.pulse(3);
        pic.acknowledge();
        pic.write(false, false, 0xa0);
        pic.pulse(3);
        pic.pulse(4);
        assert_eq!(pic.acknowledge(), 0x24);
    }
}
