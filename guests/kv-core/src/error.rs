//! Why a command is refused.

use thiserror::Error;

use crate::buffer::OutOfMemory;
use crate::commands::MAX_REPLY;
use crate::resp::MAX_BULK;

/// The error that a client gets, in Redis's words where Redis has this error.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No memory left for data, or for a reply.
    #[error("OOM command not allowed when used memory > 'maxmemory'.")]
    OutOfMemory(#[from] OutOfMemory),
    /// A command for another type of value.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Not a 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NoInteger,
    /// Not a floating-point number.
    #[error("ERR value is not a valid float")]
    NoFloat,
    /// A negative count.
    #[error("ERR value is out of range, must be positive")]
    Negative,
    /// The sum does not fit 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The string would be too long.
    #[error("ERR string exceeds maximum allowed size ({MAX_BULK} bytes)")]
    TooLong,
    /// The reply would be too long.
    #[error("ERR the reply would exceed {MAX_REPLY} bytes")]
    ReplyTooLong,
    /// An option that does not exist, or that does not go together with the others.
    #[error("ERR syntax error")]
    Syntax,
    /// The command needs a key that does not exist.
    #[error("ERR no such key")]
    NoKey,
    /// An expiry time that this command does not allow.
    #[error("ERR invalid expire time in '{0}' command")]
    Expire(&'static str),
    /// Too few or too many arguments for this command.
    #[error("ERR wrong number of arguments for '{0}' command")]
    WrongNumber(&'static str),
    /// An error of a single command.
    #[error("{0}")]
    Said(&'static str),
}
