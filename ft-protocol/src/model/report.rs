//! Prints a counterexample.

use super::process::{Process, Question, Side};
use super::step::Step;
use super::world::World;
use stateright::Path;
use std::fmt::Write;

/// The steps that lead to a state, each with the state of the processes after it.
pub fn tell(path: Path<World, Step>) -> String {
    let mut text = String::new();
    let mut before = None::<(World, Step)>;
    for (n, (world, step)) in path.into_vec().into_iter().enumerate() {
        let what = before.map_or("the beginning".into(), |(before, step)| name(&before, step));
        let where_: Vec<String> = world.processes.iter().map(|p| brief(p)).collect();
        writeln!(text, "{n:>4}. {what:<60} {}", where_.join("; ")).expect("a String takes it");
        if let Some(flaw) = &world.around.witness.flaw {
            writeln!(text, "      {flaw:?}").expect("a String takes it");
        }
        before = step.map(|step| (world, step));
    }
    text
}

fn name(before: &World, step: Step) -> String {
    match step {
        Step::Deliver { connection, to } => {
            let who = before.around.connections[connection].at(to);
            format!("{} arrives at {who}", before.arriving(connection, to))
        }
        step => format!("{step:?}"),
    }
}

/// The state of a process as text.
fn brief(process: &Process) -> String {
    let common = &process.common;
    let what = match &process.side {
        Side::Primary(side) if side.survivor.is_some() => format!("live at {}", side.executed),
        Side::Primary(side) if side.machine.is_solo() => format!("solo at {}", side.executed),
        Side::Primary(side) if side.started => format!("primary at {}", side.executed),
        Side::Primary(_) => "primary, waits".into(),
        Side::Backup(side) if side.suspects => format!("suspects at {}", side.executed),
        Side::Backup(side) if side.armed => format!("backup at {}", side.executed),
        Side::Backup(_) => "backup, joins".into(),
        Side::Gone => format!("{:?}", common.fate),
    };
    let asks = match common.question {
        Question::None => String::new(),
        question => format!(", {question:?}"),
    };
    format!("{} {what}{asks}", common.index)
}
