//! Taking the copy of a machine that runs, on the vCPU's thread.

use super::vcpu::{Built, Job, News, Recording};
use crate::cuts::Cuts;
use crate::state_digest;
use ft_protocol::log::{Header, LogStart};
use lockstep_loader::Image;
use lockstep_machine::{Machine, MachineState};
use lockstep_memory::{PageReceiver, Ram};
use lockstep_pulse::{Pulse, Rest};
use lockstep_replay::LogDirWriter;
use lockstep_vcpu::CpuBackends;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

/// Memory for the copy, and what else the machine is made of.
pub struct Room {
    cpus: CpuBackends,
    header: Header,
    image: Image,
    record: Option<PathBuf>,
    pages: PageReceiver,
    loaded: u64,
    cuts: Cuts,
}

impl Room {
    /// Makes room.
    pub fn new(
        cpus: CpuBackends,
        header: Header,
        image: Image,
        record: Option<PathBuf>,
        cuts: Cuts,
    ) -> Result<Room, String> {
        let ram = Ram::new(header.machine.mem_mib).map_err(|e| e.to_string())?;
        Ok(Room {
            cpus,
            pages: PageReceiver::new(ram),
            header,
            image,
            record,
            loaded: 0,
            cuts,
        })
    }
}

/// Takes the copy until it is complete. None: the pair came to nothing.
pub fn receive(
    mut room: Room,
    jobs: &Receiver<Job>,
    tell: &impl Fn(News),
    pulse: &Pulse,
) -> Result<Option<Built>, String> {
    let rest = pulse.rest();
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
) -> Result<Built, String> {
    let state = MachineState::decode(state).map_err(|e| e.to_string())?;
    let (memory, digest) = room.pages.into_parts();
    let mut machine = Machine::restore(room.cpus, &room.header.machine, memory, digest, &state)
        .map_err(|e| format!("this host cannot take the copy of the machine: {e}"))?;
    room.cuts.built(&mut machine).map_err(|e| e.to_string())?;
    // What the machine is, not what it was made from.
    let memory = machine.memory_digest().map_err(|e| e.to_string())?;
    let ours = machine.save().map_err(|e| e.to_string())?;
    // Said before the checkpoint is written, which takes longer than all the rest: nobody waits for it.
    tell(News::Restored {
        digest: state_digest(&ours.parts(memory)),
    });
    let start = LogStart {
        seq,
        outputs,
        at: machine.position(),
    };
    // A disk that hangs makes this side mute, and a pair goes on without it.
    drop(rest);
    let wrote = || pulse.beat();
    let recording = room.record.and_then(|dir| {
        let machine = (&ours, machine.ram());
        record(&dir, room.header, &room.image, start, machine, &wrote)
    });
    tell(News::Follows { recording });
    Ok(Built { machine, outputs })
}

/// Begins a recording with the copy. A VM is worth more than its log: one that cannot be begun is none.
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
