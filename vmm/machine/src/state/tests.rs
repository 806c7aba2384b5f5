use super::*;
use crate::drive::{DriveError, drive};
use crate::{Input, Machine, MachineError, Moment, Next, Sink, Source, View};
use ft_protocol::log::{End, MachineDigest};
use lockstep_kvm::Kvm;
use lockstep_loader::Image;
use lockstep_memory::ram::BEAT_PAGES;
use lockstep_vcpu::{CpuBackend, CpuError};
use xxhash_rust::xxh3::xxh3_64;

fn config() -> MachineConfig {
    MachineConfig {
        quantum: 100_000,
        ..MachineConfig::new(16)
    }
}

const BACKEND: &dyn CpuBackend = &Kvm;

/// Time goes on in steps. The state is taken at the first position at which this much has happened.
struct Until {
    exits: u64,
    given_at: Option<Moment>,
    state: Option<MachineState>,
}

impl Source for Until {
    type Error = ();

    fn next(&mut self, view: &View) -> Result<Next<'_>, ()> {
        if let Some(reason) = view.ended {
            return Ok(Next::Finish(reason));
        }
        if self.given_at == Some(view.moment) && view.wait.is_none() {
            return Ok(Next::Leave);
        }
        self.given_at = Some(view.moment);
        let ns = view.now_ns + 40_000;
        Ok(Next::Apply(Input::Clock { ns }))
    }

    fn time(&mut self, moment: Moment) -> Result<Option<u64>, ()> {
        Ok(Some(moment.at.exit * 40_000))
    }

    fn wants_state(&self) -> bool {
        self.given_at.is_some_and(|m| m.at.exit >= self.exits)
    }

    fn take_state(&mut self, machine: &mut Machine) -> Result<(), ()> {
        self.state = Some(machine.save().unwrap());
        Err(())
    }
}

impl Sink for Until {
    type Error = ();

    fn output(&mut self, _: Moment, _: &lockstep_devices::Output) -> Result<(), ()> {
        Ok(())
    }

    fn leave(&mut self, _: Moment, _: Option<u8>) -> Result<(), ()> {
        Ok(())
    }

    fn digest(&mut self, _: Moment, _: MachineDigest) -> Result<(), ()> {
        Ok(())
    }

    fn end(&mut self, _: Moment, _: End) -> Result<(), ()> {
        Ok(())
    }
}

/// The state and the memory of a machine that runs `ticker`, after about `exits` exits.
fn running(exits: u64) -> (MachineState, Ram) {
    let image = Image::parse("ticker", lockstep_images::TICKER.to_vec()).unwrap();
    let mut machine = Machine::new(BACKEND, &config(), &image).unwrap_or_else(|e| panic!("{e}"));
    let mut until = Until {
        exits,
        given_at: None,
        state: None,
    };
    match drive(&mut machine, &mut until) {
        Err(DriveError::Edge(())) => (until.state.unwrap(), machine.ram().clone()),
        other => panic!("{other:?}"),
    }
}

fn restore(state: &MachineState, ram: &Ram) -> Result<Machine, MachineError> {
    Machine::restore(BACKEND, &config(), ram.clone(), RamDigest::of(ram), state)
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_state_comes_back_from_its_bytes() {
    let (state, ram) = running(60);
    let bytes = state.encode();
    assert_eq!(MachineState::decode(&bytes), Ok(state.clone()));
    let mut machine = restore(&state, &ram).unwrap();
    assert_eq!(machine.save().unwrap().encode(), bytes);
    for length in 0..bytes.len() {
        MachineState::decode(&bytes[..length]).unwrap_err();
    }
    let mut longer = bytes.clone();
    longer.push(0);
    MachineState::decode(&longer).unwrap_err();
    let mut newer = bytes;
    newer[0] += 1;
    let error = MachineState::decode(&newer).unwrap_err();
    assert_eq!(
        error,
        StateError::Version {
            found: MODEL_VERSION + 1
        }
    );
}

#[test]
fn garbage_is_no_state_and_no_panic() {
    for seed in 0..2000u64 {
        let words = (0..seed % 300).map(|i| xxh3_64(&(seed << 32 | i).to_le_bytes()));
        let mut bytes = MODEL_VERSION.to_le_bytes().to_vec();
        bytes.extend(words.flat_map(u64::to_le_bytes));
        MachineState::decode(&bytes).unwrap_err();
    }
}

/// Sets every byte of a state to other values. A machine that can be restored can also be entered; what
/// the guest does then does not matter.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_damaged_state_is_no_panic() {
    let (state, ram) = running(60);
    let digest = RamDigest::of(&ram);
    let bytes = state.encode();
    let (mut undecodable, mut refused, mut taken) = (0, 0, 0);
    for index in VERSION_LEN..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[index] ^= 1 << (index % 8);
        let Ok(damaged) = MachineState::decode(&damaged) else {
            undecodable += 1;
            continue;
        };
        match Machine::restore(BACKEND, &config(), ram.clone(), digest.clone(), &damaged) {
            Ok(mut machine) => {
                machine.save().unwrap();
                taken += 1;
            }
            Err(MachineError::Cpu(CpuError::Unavailable(e))) => panic!("{e}"),
            Err(_) => refused += 1,
        }
    }
    println!("{undecodable} undecodable, {refused} refused, {taken} taken");
    assert!(undecodable > 0 && refused > 0 && taken > 0);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn a_state_of_another_machine_is_refused_with_a_sentence() {
    let (state, ram) = running(10);
    let refused = |state: &MachineState, ram: Ram, pages: usize, what: &str| {
        let restored = Machine::restore(BACKEND, &config(), ram, RamDigest::unread(pages), state);
        let error = restored.unwrap_err().to_string();
        assert!(error.contains(what), "{error}: not {what}");
    };
    let pages = ram.pages();
    refused(&state, Ram::new(32).unwrap(), 2 * pages, "its memory");
    refused(&state, ram.clone(), pages + 1, "its memory");
    let changed = |change: fn(&mut MachineState), what: &str| {
        let mut changed = state.clone();
        change(&mut changed);
        refused(&changed, ram.clone(), pages, what);
    };
    changed(|s| s.at.exit = u64::MAX, "aeons");
    changed(|s| s.waiting = Waiting::Halted, "waits");
    changed(|s| s.left = false, "waits");
}

#[test]
fn components_that_differ_are_named_on_whichever_side_they_are() {
    let ours = [("clock", 1), ("8254", 2), ("FPU", 3)];
    let theirs = [("clock", 1), ("8254", 4), ("virtio-blk", 5)];
    let named = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
        let list = list.iter();
        list.map(|(name, digest)| (name.to_string(), *digest))
            .collect()
    };
    assert!(differing(&named(&ours), &named(&ours)).is_empty());
    assert_eq!(
        differing(&named(&ours), &named(&theirs)),
        ["8254", "FPU", "virtio-blk"]
    );
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_first_digest_of_a_large_machine_reads_only_what_was_written() {
    let image = Image::parse("ticker", lockstep_images::TICKER.to_vec()).unwrap();
    let config = MachineConfig {
        mem_mib: 512,
        ..config()
    };
    let mut machine = Machine::new(BACKEND, &config, &image).unwrap_or_else(|e| panic!("{e}"));
    let pulse = lockstep_pulse::Pulse::default();
    machine.set_pulse(pulse.clone());
    let digest = machine.digest().unwrap();
    assert_eq!(digest.ram, RamDigest::of(machine.ram()).value());
    let chunks = machine.ram().pages() / BEAT_PAGES;
    assert!(pulse.beats() < chunks as u64 / 10, "{}", pulse.beats());
    // After all memory was written again, the thread shows beats all along the digest.
    let page = [1; 4096];
    for number in 0..machine.ram().pages() as u64 {
        machine.ram().write(number * 4096, &page).unwrap();
    }
    let before = pulse.beats();
    machine.digest().unwrap();
    assert!(pulse.beats() - before >= chunks as u64);
}
