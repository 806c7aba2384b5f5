//! Taking the copy of a machine that runs, on the vCPU's thread.

use super::vcpu::{BuildError, Built, Job, News, Recording};
use crate::cuts::{CutPoint, Cuts};
use crate::state_digest;
use ft_protocol::log::{Header, LogStart};
use lockstep_loader::Image;
use lockstep_machine::{Input, Machine, MachineState};
use lockstep_memory::ram::PAGE;
use lockstep_memory::{PageReceiver, Ram, RamError};
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
    ) -> Result<Room, BuildError> {
        let ram = Ram::new(header.machine.mem_mib)?;
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
    let mut machine = Machine::restore(room.cpus, &room.header.machine, memory, digest, &state)
        .map_err(BuildError::Copy)?;
    plant(&mut machine, &room.cuts)?;
    // What the machine is, not what it was made from.
    let memory = machine.memory_digest()?;
    let ours = machine.save()?;
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

/// What drills plant, to see that the digest finds it: one bit of one page, which the guest does not read,
/// or a clock that is 1 ns fast.
pub(super) fn plant(machine: &mut Machine, cuts: &Cuts) -> Result<(), RamError> {
    if cuts.is_now(CutPoint::PageFlips) {
        let at = lockstep_abi::BOOT_INFO + PAGE as u64 - 1;
        let mut byte = [0];
        machine.ram().read(at, &mut byte)?;
        machine.ram().write(at, &[byte[0] ^ 1])?;
    }
    if cuts.is_now(CutPoint::DeviceFlips) {
        let ns = machine.view().now_ns + 1;
        machine.apply(Input::Clock { ns });
    }
    Ok(())
}
