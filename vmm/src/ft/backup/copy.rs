//! Taking the copy of a machine that runs, on the vCPU's thread.

use crate::ft::state_digest;
use super::vcpu::{Built, Job, News};
use crate::machine::{Machine, MachineState};
use crate::memory::{Image, PageReceiver, Ram};
use ft_protocol::log::Header;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

/// Memory for the copy, and what else the machine is made of.
pub struct Room {
    header: Header,
    image: Image,
    record: Option<PathBuf>,
    pages: PageReceiver,
    loaded: u64,
}

impl Room {
    /// Makes room.
    pub fn new(header: Header, image: Image, record: Option<PathBuf>) -> Result<Room, String> {
        let ram = Ram::new(header.machine.mem_mib).map_err(|e| e.to_string())?;
        Ok(Room {
            pages: PageReceiver::new(ram),
            header,
            image,
            record,
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
                room.pages.take(&pages).map_err(|e| e.to_string())?;
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
    let (memory, digest) = room.pages.into_parts();
    let mut machine = Machine::restore(&room.header.machine, memory, digest, &state)
        .map_err(|e| format!("this host cannot take the copy of the machine: {e}"))?;
    // What the machine is, not what it was made from.
    let ram = machine.digest().map_err(|e| e.to_string())?.ram;
    let ours = machine.save().map_err(|e| e.to_string())?;
    let recording = None;
    tell(News::Restored {
        digest: state_digest(&ours, ram),
        recording,
    });
    Ok(Built { machine, outputs })
}
