//! What `monitor` does in gdb.

use crate::DebugError;
use crate::session::{Ending, Halt, Session};
use ft_protocol::log::EndReason;
use lockstep_vcpu::debug::{Watched, Watchpoint};
use std::fmt::Write;

const HELP: &str = "\
when                        which moment this is: exit, steps, guest time
goto EXIT[:COUNT]           go to a position, as `log show` prints them
events                      the log's entries around here
where-written ADDR [LEN]    go back to the last write to these bytes (8)
checkpoints                 from where moments are reached";

/// Said after a command that went to another moment.
const MOVED: &str =
    "gdb may still show the old registers: say `maintenance flush register-cache` and `frame`";

/// Bytes that `where-written` looks at.
const WORD: u64 = 8;

/// The answer to a command.
pub fn answer(session: &mut Session, command: &str) -> Result<String, DebugError> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        [] | ["help"] => Ok(HELP.into()),
        ["when"] => Ok(when(session)),
        ["checkpoints"] => Ok(session.store.describe()),
        ["events"] => crate::events::around(session),
        ["goto", place] => match place_of(place) {
            Some((exit, count)) => goto(session, exit, count),
            None => Ok(format!("`{place}` is no EXIT[:COUNT], like 12 or 12:3400")),
        },
        ["where-written", address] => where_written(session, address, None),
        ["where-written", address, len] => where_written(session, address, Some(len)),
        _ => Ok(format!("`{command}` is no command; these are:\n{HELP}")),
    }
}

/// A number as gdb's users write them.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn place_of(text: &str) -> Option<(u64, Option<u64>)> {
    let text = text.strip_prefix('@').unwrap_or(text);
    match text.split_once(':') {
        Some((exit, count)) => Some((number(exit)?, Some(number(count)?))),
        None => Some((number(text)?, None)),
    }
}

fn when(session: &mut Session) -> String {
    let (now, rip) = (session.when(), session.registers().registers.rip);
    let view = session.machine.view();
    let mut text = format!(
        "position {}:{}, {} steps, guest time {}.{:09} s, RIP {rip:#x}",
        view.moment.at.exit,
        session.machine.count(),
        now.steps,
        view.now_ns / 1_000_000_000,
        view.now_ns % 1_000_000_000,
    );
    if let Some(ending) = session.ended() {
        let _infallible = write!(text, "\n{}", tell(ending));
    }
    text
}

fn tell(ending: &Ending) -> String {
    match ending {
        Ending::Ended(EndReason::Exited { status }) => {
            format!("the guest ended here with status {status}")
        }
        Ending::Ended(EndReason::Dead) => "the guest died here: it can never run again".into(),
        Ending::Ended(EndReason::Reset) => {
            "the guest reset its machine here, which ended it".into()
        }
        Ending::Ended(EndReason::Stopped) => "the machine was stopped here".into(),
        Ending::Cut => "the log ends here without an end entry: it was cut".into(),
        Ending::Broken { why, .. } => format!("the log cannot be followed further: {why}"),
    }
}

fn goto(session: &mut Session, exit: u64, count: Option<u64>) -> Result<String, DebugError> {
    session.seek_position(exit, count, &mut || false)?;
    Ok(format!("{}\n{MOVED}", when(session)))
}

fn where_written(
    session: &mut Session,
    address: &str,
    len: Option<&str>,
) -> Result<String, DebugError> {
    let len = len.map_or(Some(WORD), number).filter(|len| *len > 0);
    let (Some(address), Some(len)) = (number(address), len) else {
        return Ok("it wants an address and perhaps a length: where-written 0x201000 4".into());
    };
    let breakpoints = session.breakpoints().to_vec();
    let watchpoints = session.watchpoints().to_vec();
    session.set_breakpoints(Vec::new());
    session.set_watchpoints(vec![Watchpoint {
        address,
        len,
        kind: Watched::Write,
    }]);
    let from = session.when();
    let found = session.resume_back(&mut || false);
    session.set_breakpoints(breakpoints);
    session.set_watchpoints(watchpoints);
    match found? {
        Halt::Watchpoint(_) => Ok(format!(
            "the next instruction writes there:\n{}\n{MOVED}",
            when(session)
        )),
        _ => {
            session.seek(from, &mut || false)?;
            Ok("no instruction before this moment writes there: the loader or a device did".into())
        }
    }
}
