//! Receives the copy of a running machine, on the vCPU's thread.

use super::vcpu::{BuildError, Built, Job, News, Recording};
use crate::cuts::Cuts;
use crate::state_digest;
use ft_protocol::log::{Header, LogStart};
use lockstep_loader::Image;
use lockstep_machine::{Machine, MachineState};
use lockstep_memory::{PageReceiver, Ram};
use lockstep_pulse::{Pulse, Rest};
use lockstep_replay::LogDirWriter;
use lockstep_vcpu::CpuBackend;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

/// Memory for the copy, and the other parts of the machine.
pub struct Room {
    backend: &'static dyn CpuBackend,
    header: Header,
    image: Image,
    record: Option<PathBuf>,
    pages: PageReceiver,
    loaded: u64,
    cuts: Cuts,
}

impl Room {
    /// Maps the memory.
    pub fn new(
        backend: &'static dyn CpuBackend,
        header: Header,
        image: Image,
        record: Option<PathBuf>,
        cuts: Cuts,
    ) -> Result<Room, BuildError> {
        let ram = Ram::new(header.machine.mem_mib)?;
        Ok(Room {
            backend,
            pages: PageReceiver::new(ram),
            header,
            image,
            record,
            loaded: 0,
            cuts,
        })
    }
}

/// Receives the copy until it is complete. `None` if there is no pair any more.
pub fn receive(
    mut room: Room,
    jobs: &Receiver<Job>,
    tell: &impl Fn(News),
    pulse: &Pulse,
) -> Result<Option<Built>, BuildError> {
    let rest = pulse.rest();
    loop {
        match jobs.recv() {
            Ok(Job::Load(pages)) => {
                room.pages.take(&pages)?;
                room.loaded += pages.len() as u64;
                tell(News::Loaded { bytes: room.loaded });
            }
            Ok(Job::Restore {
                seq,
                outputs,
                state,
            }) => return restore(room, (seq, outputs), &state, tell, rest, pulse).map(Some),
            Ok(Job::GoLive(_)) => unreachable!("there is no machine yet"),
            Err(_) => return Ok(None),
        }
    }
}

fn restore(
    room: Room,
    (seq, outputs): (u64, u64),
    state: &[u8],
    tell: &impl Fn(News),
    rest: Rest<'_>,
    pulse: &Pulse,
) -> Result<Built, BuildError> {
    let state = MachineState::decode(state)?;
    let (memory, digest) = room.pages.into_parts();
    let mut machine = Machine::restore(room.backend, &room.header.machine, memory, digest, &state)
        .map_err(BuildError::Copy)?;
    room.cuts.built(&mut machine)?;
    // The digest of the machine's memory itself, not of the received chunks.
    let memory = machine.memory_digest()?;
    let ours = machine.save()?;
    // Reported before the checkpoint is written, which takes longer than all the rest: nothing needs to
    // wait for that.
    tell(News::Restored {
        digest: state_digest(&ours.parts(memory)),
    });
    let start = LogStart {
        seq,
        outputs,
        at: machine.position(),
    };
    // If the disk hangs, this side becomes mute, and the source goes on without it.
    drop(rest);
    let wrote = || pulse.beat();
    let recording = room.record.and_then(|dir| {
        let machine = (&ours, machine.ram());
        record(&dir, room.header, &room.image, start, machine, &wrote)
    });
    tell(News::Follows { recording });
    Ok(Built { machine, outputs })
}

/// Begins a recording with the copy. A VM is worth more than its log: if the recording cannot begin,
/// there is none.
fn record(
    dir: &Path,
    header: Header,
    image: &Image,
    start: LogStart,
    machine: (&MachineState, &Ram),
    wrote: &dyn Fn(),
) -> Option<Recording> {
    match LogDirWriter::create_at(dir, &header, image, start, machine, wrote) {
        Ok(writer) => Some(Recording::new(writer, header)),
        Err(e) => {
            tracing::error!("nothing is recorded, the VM is protected all the same: {e}");
            None
        }
    }
}
