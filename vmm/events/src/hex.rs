//! Ids as the arbiter's records have them: 32 hexadecimal digits.

use ft_protocol::arbiter::{MemberId, Nonce};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use std::fmt::Display;

/// A number that is told as such an id.
pub trait Id: Display {
    /// The id of this number.
    fn of(number: u128) -> Self;
}

impl Id for MemberId {
    fn of(number: u128) -> MemberId {
        MemberId(number)
    }
}

impl Id for Nonce {
    fn of(number: u128) -> Nonce {
        Nonce(number)
    }
}

fn parse<I: Id, E: Error>(text: &str) -> Result<I, E> {
    let number = u128::from_str_radix(text, 16);
    let number = number.ok().filter(|_| text.len() == 32);
    let number = number.ok_or_else(|| E::custom(format_args!("`{text}` is not an id")))?;
    Ok(I::of(number))
}

pub fn serialize<S: Serializer>(id: &impl Id, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

pub fn deserialize<'de, I: Id, D: Deserializer<'de>>(from: D) -> Result<I, D::Error> {
    parse(&String::deserialize(from)?)
}

/// The same for an id that may be missing: null.
pub mod option {
    use super::{Id, parse};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(id: &Option<impl Id>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => to.collect_str(id),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, I: Id, D: Deserializer<'de>>(from: D) -> Result<Option<I>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| parse(&text)).transpose()
    }
}
