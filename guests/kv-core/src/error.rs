//! Why a command is refused.

use thiserror::Error;

use crate::buffer::OutOfMemory;
use crate::commands::MAX_REPLY;
use crate::resp::MAX_BULK;

/// The error that a client is told, as Redis words it where Redis has it.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No memory left for data, or for a reply.
    #[error("OOM command not allowed when used memory > 'maxmemory'.")]
    OutOfMemory(#[from] OutOfMemory),
    /// A command for another type of value.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// What is no number of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NoInteger,
    /// What is no floating-point number.
    #[error("ERR value is not a valid float")]
    NoFloat,
    /// A count below 0.
    #[error("ERR value is out of range, must be positive")]
    Negative,
    /// The sum has more than 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The string would be too long.
    #[error("ERR string exceeds maximum allowed size ({MAX_BULK} bytes)")]
    TooLong,
    /// The reply would be too long.
    #[error("ERR the reply would exceed {MAX_REPLY} bytes")]
    ReplyTooLong,
    /// An option that there is not, or that does not go with the others.
    #[error("ERR syntax error")]
    Syntax,
    /// A command that needs the key.
    #[error("ERR no such key")]
    NoKey,
    /// A time that is not to be had, with this command.
    #[error("ERR invalid expire time in '{0}' command")]
    Expire(&'static str),
    /// Too few or too many arguments of this command.
    #[error("ERR wrong number of arguments for '{0}' command")]
    WrongNumber(&'static str),
    /// What one command says and no other.
    #[error("{0}")]
    Said(&'static str),
}
