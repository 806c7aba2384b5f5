//! The records in the arbiter that a member stands by, looked at now and then: the same for both roles.

use crate::EventLog;
use crate::arbiter::{Asker, Question, Watch, look as look_at};
use ft_protocol::arbiter::{Look, Standing};
use ft_protocol::transfer::Right;
use lockstep_events::RecordStatus;
use tokio::sync::mpsc::UnboundedSender;

/// Looks at the records of a member that stands like this, if it has any, and keeps them from cleaners.
pub fn look<T: Send + 'static>(
    watch: &mut Watch,
    asker: &Asker<T>,
    answers: &UnboundedSender<T>,
    standing: Option<Standing>,
    answer: fn(Option<Standing>, Look) -> T,
) {
    watch.begin();
    // Nothing is put back before that is answered.
    asker.ask(
        Question::PutBack,
        answers,
        move |arbiter, vm, me| answer(standing, look_at(arbiter, vm, me, standing.as_ref())),
        move |why| answer(standing, Look::Unreachable(why)),
    );
}

/// Tells what a look found that was begun with the standing `before`; that standing, if it is still the
/// member's.
pub fn looked(
    watch: &mut Watch,
    events: &mut EventLog,
    before: Option<Standing>,
    standing: Option<Standing>,
    found: &Look,
) -> Option<Standing> {
    watch.end();
    let standing = standing.filter(|_| before == standing)?;
    watch.found(events, found);
    Some(standing)
}

/// What an operator needs who puts a record back, for `lockstep status`.
pub fn record(
    right: Option<Right>,
    standing: Option<Standing>,
    watch: &Watch,
) -> Option<RecordStatus> {
    let won = standing.is_some_and(|standing| standing.won);
    let known = Standing { right: right?, won };
    Some(RecordStatus::new(&known, watch.holds()))
}
