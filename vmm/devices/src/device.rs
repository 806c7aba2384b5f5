//! What the machine asks of every device.

use crate::state::{BadState, Reader, Saved, Words};
use crate::{Outputs, Pic};
use ft_protocol::log::EndReason;
use lockstep_memory::ram::GuestMap;

/// A part of the machine with a state of its own.
pub trait Component: Send {
    /// Its name, unique in a machine.
    fn name(&self) -> &'static str;

    /// Writes down all state that its future behaviour depends on.
    fn save(&self, words: &mut Words);

    /// Puts a component that is as after a reset into a state that [`Component::save`] wrote down. The
    /// words may come from an untrusted peer or file.
    fn restore(&mut self, words: &mut Reader, world: &World) -> Result<(), BadState>;

    /// Saves its state together with its name.
    fn saved(&self) -> Saved {
        let mut words = Words::default();
        self.save(&mut words);
        Saved {
            name: self.name().into(),
            words: words.into_vec(),
        }
    }

    /// Restores what [`Component::saved`] returned.
    fn restore_saved(&mut self, saved: &Saved, world: &World) -> Result<(), BadState> {
        let mut reader = Reader::new(self.name(), &saved.words);
        if saved.name != self.name() {
            return Err(reader.bad(format!("the state has {:?} in its place", saved.name)));
        }
        self.restore(&mut reader, world)?;
        reader.end()
    }
}

/// What a device may look at.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// Guest time, nanoseconds since boot.
    pub now_ns: u64,
    /// Guest memory.
    pub mem: &'a GuestMap,
}

/// A device's interrupt line.
#[derive(Debug)]
pub struct Line<'a> {
    pic: &'a mut Pic,
    number: u8,
}

impl Line<'_> {
    /// Line `number` of `pic`, 0 to 15.
    pub fn new(pic: &mut Pic, number: u8) -> Line<'_> {
        Line { pic, number }
    }

    /// A low-to-high edge, whatever the level was.
    pub fn pulse(&mut self) {
        self.pic.pulse(self.number);
    }

    /// Sets the level.
    pub fn set(&mut self, level: bool) {
        self.pic.set_line(self.number, level);
    }
}

/// A kind of input from outside the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// An Ethernet frame.
    Frame,
    /// Console input.
    Console,
    /// Random bytes.
    Entropy,
}

/// A device on the bus: a state machine. Time, memory and interrupt line are handed to it.
pub trait Device: Component {
    /// Reads at `offset` from the device's first port or address. Devices at ports see single bytes.
    fn read(&mut self, offset: u64, data: &mut [u8], world: &World);

    /// Writes at `offset`.
    fn write(&mut self, offset: u64, data: &[u8], world: &World);

    /// Must guest time be brought up to date before the device is read or written?
    fn needs_time(&self) -> bool {
        false
    }

    /// Guest time went on. Returns true if the device has something new for the guest.
    fn advance(&mut self, _now_ns: u64, _line: Line) -> bool {
        false
    }

    /// Guest time of the device's next interrupt by itself, nanoseconds.
    fn next_edge_ns(&self) -> Option<u64> {
        None
    }

    /// Has the guest ended the machine through it?
    fn ends(&self) -> Option<EndReason> {
        None
    }

    /// Works on its rings. Done after every exit and every input, so that when a ring is looked at depends
    /// on these alone.
    fn process(&mut self, _mem: &GuestMap, _outputs: &mut Outputs, _line: Line) {}

    /// How much input of this kind the device can take now: frames, or bytes. `None` if the device does
    /// not take this kind, or its driver is not up.
    fn room(&self, _kind: InputKind) -> Option<usize> {
        None
    }

    /// Input arrives; what finds no room is lost.
    fn receive(&mut self, _kind: InputKind, _data: &[u8]) {}

    /// Input arrives, and the device works on its rings: [`Device::receive`] and then [`Device::process`],
    /// as far as anybody can see.
    fn take_in(
        &mut self,
        kind: InputKind,
        data: &[u8],
        mem: &GuestMap,
        outputs: &mut Outputs,
        line: Line,
    ) {
        self.receive(kind, data);
        self.process(mem, outputs, line);
    }
}
