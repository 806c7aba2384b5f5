//! The 8042 of a PC, without keyboard and mouse: what is left of it is a way to reset the machine.

use crate::state::{BadState, Reader, Words};
use crate::{Component, Device, World};
use ft_protocol::log::EndReason;

/// The command port follows the data port here.
const COMMAND: u64 = 1;
/// The command that pulses the processor's reset line.
const RESET: u8 = 0xfe;

/// The controller.
#[derive(Debug, Default)]
pub struct Keyboard {
    reset: bool,
}

impl Component for Keyboard {
    fn name(&self) -> &'static str {
        "8042"
    }

    fn save(&self, words: &mut Words) {
        words.put(self.reset);
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        self.reset = words.flag()?;
        Ok(())
    }
}

impl Device for Keyboard {
    /// Nothing waits to be read, and there is always room for a command.
    fn read(&mut self, _: u64, data: &mut [u8], _: &World) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8], _: &World) {
        self.reset |= offset == COMMAND && data.contains(&RESET);
    }

    fn ends(&self) -> Option<EndReason> {
        self.reset.then_some(EndReason::Reset)
    }
}
