//! Taking the copy of a machine that runs, on the vCPU's thread.

use super::vcpu::{Built, Job, News, Recording};
use crate::machine::{Machine, MachineState};
use crate::memory::{Image, Ram, RamDigest, pages};
use crate::replay::LogDirWriter;
use ft_protocol::log::Header;
use ft_protocol::transfer::StateDigest;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

/// Memory for the copy, and what else the machine is made of.
pub struct Room {
    header: Header,
    image: Image,
    record: Option<PathBuf>,
    ram: Ram,
    digest: RamDigest,
    loaded: u64,
}

impl Room {
    /// Makes room.
    pub fn new(header: Header, image: Image, record: Option<PathBuf>) -> Result<Room, String> {
        let ram = Ram::new(header.machine.mem_mib).map_err(|e| e.to_string())?;
        Ok(Room {
            digest: RamDigest::of_zeroes(&ram),
            header,
            image,
            record,
            ram,
            loaded: 0,
        })
    }
}

/// Takes the copy until it is complete. None: the pair came to nothing.
pub fn receive(
    mut room: Room,
    jobs: &Receiver<Job>,
    tell: &impl Fn(News),
) -> Result<Option<Built>, String> {
    loop {
        match jobs.recv() {
            Ok(Job::Load(pages)) => {
                pages::decode(&pages, &room.ram, &mut room.digest)
                    .map_err(|e| format!("the copy of the machine's memory is damaged: {e}"))?;
                room.loaded += pages.len() as u64;
                tell(News::Loaded { bytes: room.loaded });
            }
            Ok(Job::Restore {
                seq,
                outputs,
                state,
            }) => return restore(room, seq, outputs, &state, tell).map(Some),
            Ok(Job::GoLive(_)) => unreachable!("there is no machine yet"),
            Err(_) => return Ok(None),
        }
    }
}

fn restore(
    room: Room,
    seq: u64,
    outputs: u64,
    state: &[u8],
    tell: &impl Fn(News),
) -> Result<Built, String> {
    let state = MachineState::decode(state).map_err(|e| e.to_string())?;
    let mut machine = Machine::restore(&room.header.machine, room.ram, &state, room.digest)
        .map_err(|e| format!("this host cannot take the copy of the machine: {e}"))?;
    // What the machine is, not what it was made from.
    let ram = machine.digest().map_err(|e| e.to_string())?.ram;
    let ours = machine.save().map_err(|e| e.to_string())?;
    let recording = room
        .record
        .and_then(|dir| record(&dir, &room.header, &room.image, &mut machine, seq, outputs));
    tell(News::Restored {
        digest: StateDigest(ours.components_and_memory(ram)),
        recording,
    });
    Ok(Built { machine, outputs })
}

/// Begins a recording with the copy. A VM is worth more than its log: one that cannot be begun is none.
fn record(
    dir: &std::path::Path,
    header: &Header,
    image: &Image,
    machine: &mut Machine,
    seq: u64,
    outputs: u64,
) -> Option<Recording> {
    match LogDirWriter::create_at(dir, header, image, machine, seq, outputs) {
        Ok(writer) => Some(Recording::new(writer, header.clone())),
        Err(e) => {
            tracing::error!("nothing is recorded, the VM is protected all the same: {e}");
            None
        }
    }
}
