//! An operator's view of a VM's records, and the repairs that an operator may make.

use super::{Arbiter, Unreachable, damaged, name, put_back, read_claim, read_open};
use ft_protocol::arbiter::{
    Claim, Close, FIRST_GENERATION, MemberId, OpenRecord, RecordKind, RecordName, Standing,
    StartRecord,
};
use std::collections::BTreeSet;
use thiserror::Error;

/// All records of a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The founder's record, if a `member` founded it.
    pub start: Option<StartRecord>,
    /// Its generations, the oldest first.
    pub generations: Vec<Generation>,
}

/// All records of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number.
    pub generation: u64,
    /// Its members.
    pub open: Option<OpenRecord>,
    /// The member that goes on alone.
    pub claim: Option<Claim>,
    /// The member that ended it.
    pub close: Option<Close>,
}

/// Reads all records of a VM.
pub fn survey(arbiter: &dyn Arbiter, vm: &str) -> Result<Survey, Unreachable> {
    let names = arbiter.list(vm)?;
    let start = arbiter.read(vm, name(FIRST_GENERATION, RecordKind::Start))?;
    let start = start.map(|text| StartRecord::decode(&text, vm));
    let of_generations = names.iter().filter(|name| name.kind != RecordKind::Start);
    let numbers: BTreeSet<u64> = of_generations.map(|name| name.generation).collect();
    let generation = |generation: u64| {
        let close = arbiter.read(vm, name(generation, RecordKind::Close))?;
        let close = close.map(|text| Close::decode(&text, vm, generation));
        Ok(Generation {
            generation,
            open: read_open(arbiter, vm, generation)?,
            claim: read_claim(arbiter, vm, generation)?,
            close: close.transpose().map_err(|e| {
                let name = name(generation, RecordKind::Close);
                damaged(arbiter, vm, name, &e)
            })?,
        })
    };
    Ok(Survey {
        start: start.transpose().map_err(|e| {
            let name = name(FIRST_GENERATION, RecordKind::Start);
            damaged(arbiter, vm, name, &e)
        })?,
        generations: numbers
            .into_iter()
            .map(generation)
            .collect::<Result<_, Unreachable>>()?,
    })
}

/// Why a record is not put back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotRestored {
    /// The VM went on without it.
    #[error(
        "generation {later} of VM {vm} is in the arbiter, so generation {generation} is over: look with \
         `lockstep arbiter show`"
    )]
    Over {
        /// The VM.
        vm: String,
        /// The generation that was to be put back.
        generation: u64,
        /// One after it.
        later: u64,
    },
    /// Another pair has it.
    #[error(
        "generation {generation} of VM {vm} belongs to others in the arbiter: look with `lockstep arbiter \
         show`"
    )]
    Others {
        /// The VM.
        vm: String,
        /// The generation.
        generation: u64,
    },
}

/// Puts back the records that `member` says it had, unless there is a later generation: then they are
/// of no use, and may give a right that others have by now. The caller must know whether they may give
/// such a right otherwise.
///
/// # Errors
/// The inner one is for the operator, the outer one the storage's.
pub fn restore(
    arbiter: &dyn Arbiter,
    vm: &str,
    member: MemberId,
    standing: &Standing,
) -> Result<Result<(), NotRestored>, Unreachable> {
    let generation = standing.right.generation;
    let later = arbiter.list(vm)?.into_iter();
    if let Some(later) = later.map(|name| name.generation).find(|&g| g > generation) {
        let vm = vm.to_owned();
        return Ok(Err(NotRestored::Over {
            vm,
            generation,
            later,
        }));
    }
    put_back(arbiter, vm, member, standing)?;
    let found = read_open(arbiter, vm, generation)?;
    let ours = standing.record(vm, 0);
    let same =
        found.is_some_and(|found| (found.members, found.nonce) == (ours.members, ours.nonce));
    Ok(match same {
        true => Ok(()),
        false => Err(NotRestored::Others {
            vm: vm.to_owned(),
            generation,
        }),
    })
}

/// Removes all records of a VM. If the VM has ended, the record that says so is removed last.
pub fn forget(arbiter: &dyn Arbiter, vm: &str) -> Result<(), Unreachable> {
    let mut names: Vec<RecordName> = arbiter.list(vm)?;
    names.sort_by_key(|name| (name.kind == RecordKind::Close, name.generation));
    for name in names {
        arbiter.remove(vm, name)?;
    }
    Ok(())
}
