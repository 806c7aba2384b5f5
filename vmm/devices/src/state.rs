//! A component's state as words. The same words are saved, restored and digested.
//!
//! The words are explicit, so that the meaning of a digest in a log does not depend on a library's
//! encoding. To change which words a component saves, or their meaning, is a change of the machine
//! model: see [`ft_protocol::log::MODEL_VERSION`].

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// A state that the component cannot be in. It came from a peer or a file.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the state of the {device} makes no sense ({what})")]
pub struct BadState {
    /// Which component.
    pub device: String,
    /// What is wrong.
    pub what: String,
}

/// The state of one component, by the component's name. It is encoded as bytes, eight per word: a
/// decoder limits the bytes that it allocates, but an encoded number may be shorter than a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    pub(crate) name: String,
    pub(crate) words: Vec<u64>,
}

impl Saved {
    /// The component's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// xxh3-64 of the words, little-endian.
    pub fn digest(&self) -> u64 {
        digest(&self.words)
    }
}

impl Encode for Saved {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.name.encode(encoder)?;
        bytes_of(&self.words).encode(encoder)
    }
}

impl<C> Decode<C> for Saved {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Saved, DecodeError> {
        let name = String::decode(decoder)?;
        let bytes = Vec::<u8>::decode(decoder)?;
        let (words, rest) = bytes.as_chunks::<WORD>();
        match rest {
            [] => Ok(Saved {
                name,
                words: words.iter().map(|word| u64::from_le_bytes(*word)).collect(),
            }),
            _ => Err(DecodeError::Other("a state ends inside a word")),
        }
    }
}

impl<'de, C> BorrowDecode<'de, C> for Saved {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Saved, DecodeError> {
        Saved::decode(decoder)
    }
}

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// xxh3-64 of words, little-endian.
pub fn digest(words: &[u64]) -> u64 {
    xxh3_64(&bytes_of(words))
}

/// Where a component writes its state.
#[derive(Debug, Default)]
pub struct Words(Vec<u64>);

impl Words {
    /// Adds a number.
    pub fn put(&mut self, word: impl Into<u64>) {
        self.0.push(word.into());
    }

    /// Adds several numbers of one type.
    pub fn put_all<T: Into<u64>>(&mut self, words: impl IntoIterator<Item = T>) {
        self.0.extend(words.into_iter().map(Into::into));
    }

    /// Adds a number that may be missing, as two words: is it there, and its value or 0.
    pub fn put_option(&mut self, word: Option<impl Into<u64>>) {
        self.put(word.is_some());
        self.put(word.map_or(0, Into::into));
    }

    /// Adds bytes: their number, then the bytes, eight per word, little-endian.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.len() as u64);
        for chunk in bytes.chunks(WORD) {
            let mut word = [0; WORD];
            word[..chunk.len()].copy_from_slice(chunk);
            self.put(u64::from_le_bytes(word));
        }
    }

    /// All words.
    pub fn into_vec(self) -> Vec<u64> {
        self.0
    }
}

/// Where a component reads its state from. It checks everything, as the words may come from an
/// untrusted peer or file.
#[derive(Debug)]
pub struct Reader<'a> {
    component: &'static str,
    words: &'a [u64],
}

impl<'a> Reader<'a> {
    /// A reader of the state of this component.
    pub fn new(component: &'static str, words: &'a [u64]) -> Reader<'a> {
        Reader { component, words }
    }

    /// An error about this component.
    pub fn bad(&self, what: impl Into<String>) -> BadState {
        BadState {
            device: self.component.into(),
            what: what.into(),
        }
    }

    /// An error about this component unless `holds`.
    pub fn unless(&self, holds: bool, what: &str) -> Result<(), BadState> {
        holds.then_some(()).ok_or_else(|| self.bad(what))
    }

    /// Reads a number, which must fit this type.
    pub fn take<T: TryFrom<u64>>(&mut self) -> Result<T, BadState> {
        let (first, rest) = self
            .words
            .split_first()
            .ok_or_else(|| self.bad("it is cut"))?;
        self.words = rest;
        T::try_from(*first).map_err(|_| self.bad(format!("{first} is too large for its place")))
    }

    /// Reads a number that must be 0 or 1.
    pub fn flag(&mut self) -> Result<bool, BadState> {
        match self.take::<u64>()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.bad(format!("{other} is neither yes nor no"))),
        }
    }

    /// Reads a number that may be missing.
    pub fn option<T: TryFrom<u64>>(&mut self) -> Result<Option<T>, BadState> {
        let there = self.flag()?;
        let value = self.take()?;
        Ok(there.then_some(value))
    }

    /// Reads bytes, at most `limit` of them.
    pub fn bytes(&mut self, limit: usize) -> Result<Vec<u8>, BadState> {
        let len: usize = self.take()?;
        self.unless(len <= limit, "more waits than it takes in")?;
        let mut bytes = Vec::with_capacity(len.next_multiple_of(WORD));
        for _ in 0..len.div_ceil(WORD) {
            bytes.extend(self.take::<u64>()?.to_le_bytes());
        }
        let padding = bytes.split_off(len);
        self.unless(padding.iter().all(|byte| *byte == 0), "its padding is set")?;
        Ok(bytes)
    }

    /// An error if words are left.
    pub fn end(&self) -> Result<(), BadState> {
        self.unless(self.words.is_empty(), "it goes on after its end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut words = Words::default();
        words.put(7u8);
        words.put(true);
        words.put_option(Some(9u16));
        words.put_option(None::<u64>);
        words.put_bytes(b"nine byte");
        let words = words.into_vec();
        assert_eq!(words.len(), 9);
        let mut reader = Reader::new("test", &words);
        assert_eq!(reader.take::<u8>().unwrap(), 7);
        assert!(reader.flag().unwrap());
        assert_eq!(reader.option::<u16>().unwrap(), Some(9));
        assert_eq!(reader.option::<u64>().unwrap(), None);
        assert_eq!(reader.bytes(9).unwrap(), b"nine byte");
        reader.end().unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |words: &[u64], read: fn(&mut Reader) -> Result<(), BadState>| {
            let mut reader = Reader::new("thing", words);
            read(&mut reader)
                .and_then(|()| reader.end())
                .unwrap_err()
                .to_string()
        };
        for (words, read, why) in [
            (
                &[][..],
                (|r| r.take::<u8>().map(drop)) as fn(&mut Reader) -> _,
                "cut",
            ),
            (&[256], |r| r.take::<u8>().map(drop), "too large"),
            (&[2], |r| r.flag().map(drop), "neither"),
            (&[9, 0, 0], |r| r.bytes(8).map(drop), "more waits"),
            (&[1, 256], |r| r.bytes(8).map(drop), "padding"),
            (&[8], |r| r.bytes(8).map(drop), "cut"),
            (&[1, 1], |r| r.flag().map(drop), "goes on"),
        ] {
            let text = refused(words, read);
            assert!(text.contains("thing") && text.contains(why), "{text}");
        }
    }
}
