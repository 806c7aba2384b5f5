//! An event as a line of text: one JSON object, with the time.

use crate::Event;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fmt;
use strum::VariantNames;
use thiserror::Error;

/// The key of the time, and of the event's name.
const TIME: &str = "mono_ns";
const NAME: &str = "event";

/// An event, and when it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    /// CLOCK_MONOTONIC of the member's host, in nanoseconds.
    pub mono_ns: u64,
    /// What happened.
    pub event: Event,
}

/// Why a line is not an event of this version.
#[derive(Debug, Error)]
pub enum LineError {
    /// It is something else.
    #[error("it is not a JSON object ({0})")]
    NotAnObject(serde_json::Error),
    /// The time is missing.
    #[error("it has no `{TIME}`")]
    NoTime,
    /// The name is missing.
    #[error("it has no `{NAME}`")]
    NoName,
    /// There is no such event.
    #[error("`{0}` is unknown")]
    Unknown(String),
    /// The event has other fields.
    #[error("`{name}` has other fields: {source}")]
    Fields {
        /// Its name.
        name: String,
        /// Which.
        source: serde_json::Error,
    },
}

impl Stamped {
    /// The line, with its end. The keys are in alphabetical order.
    pub fn line(&self) -> String {
        let mut object = self.event.object();
        object.insert(TIME.into(), self.mono_ns.into());
        format!("{}\n", Value::Object(object))
    }

    /// Reads a line, with or without its end.
    ///
    /// # Errors
    /// Whatever this version would not write, such as an event or a field that it does not know.
    pub fn read(line: &[u8]) -> Result<Stamped, LineError> {
        let object = serde_json::from_slice(line);
        let mut object: Map<String, Value> = object.map_err(LineError::NotAnObject)?;
        let time = object.remove(TIME);
        let mono_ns = time.and_then(|time| time.as_u64());
        let mono_ns = mono_ns.ok_or(LineError::NoTime)?;
        let name = object.get(NAME).and_then(Value::as_str);
        let name = name.ok_or(LineError::NoName)?.to_owned();
        if !Event::is_name(&name) {
            return Err(LineError::Unknown(name));
        }
        match Event::deserialize(Value::Object(object)) {
            Ok(event) => Ok(Stamped { mono_ns, event }),
            Err(source) => Err(LineError::Fields { name, source }),
        }
    }
}

impl Event {
    /// Whether there is an event of this name.
    pub fn is_name(name: &str) -> bool {
        Event::VARIANTS.contains(&name)
    }

    pub(crate) fn object(&self) -> Map<String, Value> {
        let value = serde_json::to_value(self).expect("an event has text keys and plain values");
        let Value::Object(object) = value else {
            unreachable!("an event is an object");
        };
        object
    }
}

/// Its name and its fields, for a log that people read.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut object = self.object();
        let name = object.remove(NAME);
        let name = name.as_ref().and_then(Value::as_str).unwrap_or_default();
        write!(f, "{name} {}", Value::Object(object))
    }
}
