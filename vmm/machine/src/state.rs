//! A machine's state as bytes: what a joiner needs besides the memory, and what a checkpoint holds.

use super::bus::BusState;
use super::{Arrival, Waiting};
use bincode::{Decode, Encode};
use ft_protocol::log::codec::{decode_payload, encode_payload};
use ft_protocol::log::{Counts, MODEL_VERSION, MachineConfig, Position};
use lockstep_devices::state::digest;
use lockstep_devices::{BadState, MAX_COUNT};
use lockstep_memory::{Ram, RamDigest};
use lockstep_vcpu::CpuState;
use serde::{Serialize, Serializer};
use std::fmt;
use thiserror::Error;

/// Bytes of the model version before the state.
const VERSION_LEN: usize = 4;

/// Why bytes are not accepted as a machine's state.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StateError {
    /// They were written with another version of the machine model.
    #[error(
        "the machine's state is of machine model {found}, and this version of lockstep builds model {MODEL_VERSION}; use the version that wrote it"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// They do not decode.
    #[error("the machine's state is not understood ({0}); it was damaged on its way")]
    Undecodable(String),
    /// They decode to a state in which no machine can be.
    #[error("the machine's state makes no sense ({0}); it was damaged on its way")]
    Impossible(&'static str),
    /// The same, for a device.
    #[error("{0}; it was damaged on its way")]
    Device(BadState),
}

/// All of a machine's state, without its memory, its configuration and its guest's image.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MachineState {
    pub(super) at: Position,
    /// Nothing more happens at that position; the next step is to enter the guest.
    pub(super) left: bool,
    pub(super) arrived: Arrival,
    pub(super) waiting: Waiting,
    pub(super) cpu: CpuState,
    pub(super) devices: BusState,
}

impl MachineState {
    /// Encodes it: the model version, then the state by bincode.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MODEL_VERSION.to_le_bytes().to_vec();
        encode_payload(self, &mut bytes);
        bytes
    }

    /// Decodes bytes, which may come from an untrusted peer or file.
    pub fn decode(bytes: &[u8]) -> Result<MachineState, StateError> {
        let Some((version, payload)) = bytes.split_first_chunk::<VERSION_LEN>() else {
            return Err(StateError::Undecodable("it is cut".into()));
        };
        match u32::from_le_bytes(*version) {
            MODEL_VERSION => {}
            found => return Err(StateError::Version { found }),
        }
        decode_payload(payload).map_err(|e| StateError::Undecodable(e.to_string()))
    }

    /// Where the machine is.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Was that position left, so that no more entries belong to it?
    pub fn left(&self) -> bool {
        self.left
    }

    /// A digest of each component but the memory, by name.
    pub fn components(&self) -> Vec<(String, u64)> {
        let mut components = vec![("position".to_owned(), self.place())];
        let cpu = self.cpu.components().into_iter();
        components.extend(cpu.map(|(name, digest)| (name.to_owned(), digest)));
        components.extend(self.devices.components());
        components
    }

    /// The same, with the memory's digest in front.
    pub fn parts(&self, memory: u64) -> Parts {
        let mut parts = vec![("memory".to_owned(), memory)];
        parts.extend(self.components());
        Parts(parts)
    }

    /// A digest of the position, and of what the machine does next there.
    fn place(&self) -> u64 {
        let (check, waiting) = (self.arrived.check, self.waiting.words());
        digest(&[
            self.at.exit,
            self.at.edges,
            u64::from(self.left),
            check.rip,
            u64::from(check.regs),
            u64::from(self.arrived.ready),
            self.arrived.digest.unwrap_or(0),
            waiting[0],
            waiting[1],
        ])
    }

    /// Could a machine of this configuration be in this state? The vCPU's state is checked by the CPU
    /// backend, and the devices' states by their models.
    pub(super) fn validate(
        &self,
        config: &MachineConfig,
        ram: &Ram,
        memory: &RamDigest,
    ) -> Result<(), StateError> {
        let impossible = |what| Err(StateError::Impossible(what));
        if ram.len() != (config.mem_mib as usize) << 20 || memory.pages() != ram.pages() {
            return impossible("its memory is not the machine's");
        }
        let counts_steps = config.counts == Counts::Instructions;
        if self.at.exit > MAX_COUNT || counts_steps && self.at.edges > MAX_COUNT {
            return impossible("it is aeons ahead");
        }
        if self.left != (self.waiting == Waiting::No) {
            return impossible("its guest waits where it does not");
        }
        if !self.left && self.arrived.ready && self.cpu.interrupt_queued() {
            return impossible("it could take two interrupts at once");
        }
        Ok(())
    }
}

/// A digest of each part of a machine by name, memory first: it shows in which parts two machines
/// differ. As text it is a line per part, in JSON an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts(Vec<(String, u64)>);

impl Parts {
    /// Each part's name and digest.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, digest)| (name.as_str(), *digest))
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (name, digest) in &self.0 {
            write!(f, "{between}{name:<22}{digest:016x}")?;
            between = "\n";
        }
        Ok(())
    }
}

impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let hex = |(name, digest): &(String, u64)| (name.clone(), format!("{digest:016x}"));
        to.collect_map(self.0.iter().map(hex))
    }
}

/// Names of the components that are not in both lists with the same digest.
#[cfg(test)]
pub fn differing<'a>(ours: &'a [(String, u64)], theirs: &'a [(String, u64)]) -> Vec<&'a str> {
    let differs = |a: &'a [(String, u64)], b: &[(String, u64)]| {
        let missing = a.iter().filter(|component| !b.contains(component));
        missing.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let mut names = differs(ours, theirs);
    for name in differs(theirs, ours) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests;
