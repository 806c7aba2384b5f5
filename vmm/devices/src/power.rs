//! ACPI's fixed hardware (ACPI 6.5, section 4.8.3): power-off, reset, and the power management timer.
//!
//! It never makes an event: there is no power button.

use crate::state::{BadState, Reader, Words};
use crate::{Component, Device, World};
use ft_protocol::log::EndReason;
use lockstep_abi::port;

/// The timer's rate, Hz.
const HZ: u128 = 3_579_545;
const NS_PER_SECOND: u128 = 1_000_000_000;
/// PM1 control, high byte: SLP_TYP in bits 2 to 4 and SLP_EN in bit 5.
const SLEEP_TYPE: u8 = 7 << 2;
const SLEEP: u8 = 1 << 5;
/// SLP_TYP of S5, as the DSDT says.
const OFF: u8 = 5 << 2;
/// PM1 control, low byte: SCI_EN. ACPI is always on, as there is no firmware to turn it off for.
const ENABLED: u8 = 1;

/// The registers.
#[derive(Debug, Default)]
pub struct Power {
    /// PM1 enable. No status bit is ever set.
    enable: [u8; 2],
    control: [u8; 2],
    ended: Ended,
}

/// What the guest asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ended {
    #[default]
    No,
    Off,
    Reset,
}

/// A register, and which of its bytes.
enum At {
    Status,
    Enable(usize),
    Control(usize),
    Timer(usize),
    Reset,
    Nothing,
}

fn at(offset: u64) -> At {
    const EVENTS: u64 = port::POWER_EVENTS as u64;
    const CONTROL: u64 = port::POWER_CONTROL as u64;
    const TIMER: u64 = port::POWER_TIMER as u64;
    const RESET: u64 = port::POWER_RESET as u64;
    let within = |first| (offset - first) as usize;
    match offset {
        EVENTS..2 => At::Status,
        2..CONTROL => At::Enable(within(2)),
        CONTROL..6 => At::Control(within(CONTROL)),
        TIMER..RESET => At::Timer(within(TIMER)),
        RESET => At::Reset,
        _ => At::Nothing,
    }
}

fn timer(now_ns: u64) -> u32 {
    (u128::from(now_ns) * HZ / NS_PER_SECOND) as u32
}

impl Component for Power {
    fn name(&self) -> &'static str {
        "ACPI"
    }

    fn save(&self, words: &mut Words) {
        words.put_all(self.enable);
        words.put_all(self.control);
        words.put(match self.ended {
            Ended::No => 0u8,
            Ended::Off => 1,
            Ended::Reset => 2,
        });
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        self.enable = [words.take()?, words.take()?];
        self.control = [words.take()?, words.take()?];
        self.ended = match words.take::<u8>()? {
            0 => Ended::No,
            1 => Ended::Off,
            2 => Ended::Reset,
            _ => return Err(words.bad("it has ended in a way that is not there")),
        };
        Ok(())
    }
}

impl Device for Power {
    fn read(&mut self, offset: u64, data: &mut [u8], world: &World) {
        data.fill(match at(offset) {
            At::Status => 0,
            At::Enable(byte) => self.enable[byte],
            At::Control(0) => self.control[0] | ENABLED,
            At::Control(byte) => self.control[byte],
            At::Timer(byte) => timer(world.now_ns).to_le_bytes()[byte],
            At::Reset => 0,
            At::Nothing => 0xff,
        });
    }

    fn write(&mut self, offset: u64, data: &[u8], _: &World) {
        for &value in data {
            match at(offset) {
                At::Enable(byte) => self.enable[byte] = value,
                At::Control(byte) => {
                    let sleeps = byte == 1 && value & SLEEP != 0;
                    if sleeps && value & SLEEP_TYPE == OFF {
                        self.ended = Ended::Off;
                    }
                    // SLP_EN is not kept.
                    self.control[byte] = if byte == 1 { value & !SLEEP } else { value };
                }
                At::Reset if value == port::RESET_VALUE => self.ended = Ended::Reset,
                At::Status | At::Timer(_) | At::Reset | At::Nothing => {}
            }
        }
    }

    fn needs_time(&self) -> bool {
        true
    }

    fn ends(&self) -> Option<EndReason> {
        match self.ended {
            Ended::No => None,
            Ended::Off => Some(EndReason::Exited { status: 0 }),
            Ended::Reset => Some(EndReason::Reset),
        }
    }
}
