//! The ELCR of a PC: a bit for each line of the 8259 pair, which says how it is triggered.
//!
//! They are kept and change nothing: every device here makes an edge for each interrupt, which is right whatever
//! the driver expects.

use crate::state::{BadState, Reader, Words};
use crate::{Component, Device, World};

/// The two registers.
#[derive(Debug, Default)]
pub struct Triggers([u8; 2]);

impl Component for Triggers {
    fn name(&self) -> &'static str {
        "ELCR"
    }

    fn save(&self, words: &mut Words) {
        words.put_all(self.0);
    }

    fn restore(&mut self, words: &mut Reader, _: &World) -> Result<(), BadState> {
        self.0 = [words.take()?, words.take()?];
        Ok(())
    }
}

impl Device for Triggers {
    fn read(&mut self, offset: u64, data: &mut [u8], _: &World) {
        data.fill(self.0[offset as usize & 1]);
    }

    fn write(&mut self, offset: u64, data: &[u8], _: &World) {
        for &value in data {
            self.0[offset as usize & 1] = value;
        }
    }
}
