//! The loop that runs a machine between its source and its sink. A recording, a replay, a primary and a
//! backup differ only in their sources and sinks.

use super::edge::{Next, Sink, Source};
use super::{Entered, Machine, MachineError};
use ft_protocol::log::{End, EndReason};
use thiserror::Error;

/// Why driving stopped with an error.
#[derive(Debug, Error)]
pub enum DriveError<E> {
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The source or the sink.
    #[error("{0}")]
    Edge(E),
}

/// How driving stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// The machine ended.
    Ended(EndReason),
    /// The source stopped it. Drive again to go on.
    Stopped,
}

/// Runs `machine` until it ends or its source stops it.
///
/// A machine that was stopped goes on exactly where it stopped: between two inputs of a position, where
/// it asked for the time, or between two positions.
pub fn drive<E, X>(machine: &mut Machine, edge: &mut X) -> Result<Driven, DriveError<E>>
where
    X: Source<Error = E> + Sink<Error = E>,
{
    loop {
        // A restored machine may have left its position already.
        if !machine.left() {
            if machine.asks_time() {
                match edge.time(machine.moment()).map_err(DriveError::Edge)? {
                    Some(ns) => machine.answer_time(ns),
                    None => return Ok(Driven::Stopped),
                }
            }
            emit(machine, edge)?;
            if let Some(driven) = at_position(machine, edge)? {
                return Ok(driven);
            }
            let vector = machine.inject()?;
            edge.leave(machine.moment(), vector)
                .map_err(DriveError::Edge)?;
        }
        if edge.wants_state() {
            if !machine.settle()? {
                // Completing the instruction caused another exit: the next position.
                continue;
            }
            edge.take_state(machine).map_err(DriveError::Edge)?;
        }
        if !run(machine, edge)? {
            return Ok(Driven::Stopped);
        }
    }
}

/// Runs the guest to its next position. Returns false if the source stops it before.
fn run<E, X: Source<Error = E>>(
    machine: &mut Machine,
    edge: &mut X,
) -> Result<bool, DriveError<E>> {
    let mut kicked = false;
    loop {
        if edge.is_over(kicked).map_err(DriveError::Edge)? {
            return Ok(false);
        }
        match machine.enter()? {
            Entered::Arrived => return Ok(true),
            Entered::Kicked => kicked = true,
        }
    }
}

/// Does everything that happens at one position. `None` means: run the guest.
fn at_position<E, X>(machine: &mut Machine, edge: &mut X) -> Result<Option<Driven>, DriveError<E>>
where
    X: Source<Error = E> + Sink<Error = E>,
{
    loop {
        match edge.next(&machine.view()).map_err(DriveError::Edge)? {
            Next::Apply(input) => {
                machine.apply(input);
                emit(machine, edge)?;
            }
            Next::Digest => {
                let digest = machine.digest()?;
                edge.digest(machine.moment(), digest)
                    .map_err(DriveError::Edge)?;
            }
            Next::Capture => {
                let settled = machine.settle()?;
                assert!(settled, "an OUT or HLT that waits has nothing to finish");
                edge.take_state(machine).map_err(DriveError::Edge)?;
            }
            Next::Leave => return Ok(None),
            Next::Finish(reason) => {
                let digest = machine.digest()?;
                let end = End { reason, digest };
                edge.end(machine.moment(), end).map_err(DriveError::Edge)?;
                return Ok(Some(Driven::Ended(reason)));
            }
            Next::Stop => return Ok(Some(Driven::Stopped)),
        }
    }
}

fn emit<E, X: Sink<Error = E>>(machine: &mut Machine, edge: &mut X) -> Result<(), DriveError<E>> {
    let outputs = machine.take_outputs();
    if outputs.is_empty() {
        return Ok(());
    }
    let moment = machine.moment();
    for output in outputs {
        edge.output(moment, output).map_err(DriveError::Edge)?;
    }
    Ok(())
}
