//! Unpacking a kernel's payload.

use super::NotBootable;
use std::io::{self, Read};

/// Most bytes of an unpacked kernel.
pub const MAX_UNPACKED: usize = 256 << 20;

/// A way of packing, by how packed data begins.
const WAYS: [(&[u8], &str, Unpacker); 4] = [
    (&[0x1f, 0x8b], "gzip", |data| {
        Ok(Box::new(flate2::read::GzDecoder::new(data)))
    }),
    (b"\xfd7zXZ\0", "xz", |data| {
        Ok(Box::new(liblzma::read::XzDecoder::new(data)))
    }),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", |data| {
        let decoder = ruzstd::decoding::StreamingDecoder::new(data);
        Ok(Box::new(decoder.map_err(io::Error::other)?))
    }),
    (&LZ4_LEGACY, "lz4", |data| {
        Ok(Box::new(Lz4::new(&data[LZ4_LEGACY.len()..])))
    }),
];

type Unpacker = for<'a> fn(&'a [u8]) -> io::Result<Box<dyn Read + 'a>>;

/// The magic number of the lz4 format that kernels are packed in: no frame, only blocks with their lengths.
const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// A block of it has so many bytes when unpacked, the last one fewer.
const LZ4_BLOCK: usize = 8 << 20;

/// Unpacks the payload of a bzImage. At its end there may be the length of what was packed.
pub fn unpack(payload: &[u8]) -> Result<Vec<u8>, NotBootable> {
    unpack_up_to(payload, MAX_UNPACKED)
}

/// The same with this limit.
pub(super) fn unpack_up_to(payload: &[u8], most: usize) -> Result<Vec<u8>, NotBootable> {
    let known = WAYS.iter().find(|(magic, ..)| payload.starts_with(magic));
    let Some((_, name, unpacker)) = known else {
        let head = &payload[..payload.len().min(4)];
        return Err(NotBootable::Packing(format!("it begins with {head:02x?}")));
    };
    let damaged = |why: io::Error| NotBootable::Damaged(name, why.to_string());
    let mut unpacked = Vec::new();
    let data = unpacker(payload).map_err(damaged)?;
    let read = data.take(most as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(damaged)?;
    match unpacked.len() > most {
        true => Err(NotBootable::UnpacksTooLarge),
        false => Ok(unpacked),
    }
}

/// The blocks of the legacy lz4 format.
struct Lz4<'a> {
    left: &'a [u8],
    /// What was unpacked, and how much of it was read.
    block: Vec<u8>,
    read: usize,
}

impl<'a> Lz4<'a> {
    fn new(left: &'a [u8]) -> Lz4<'a> {
        Lz4 {
            left,
            block: Vec::new(),
            read: 0,
        }
    }

    /// The next block; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        let Some((len, rest)) = self.left.split_first_chunk::<4>() else {
            return Ok(false);
        };
        let len = u32::from_le_bytes(*len) as usize;
        // The kernel's build adds the length of what was packed, which is no block.
        if rest.is_empty() {
            return Ok(false);
        }
        let Some((packed, rest)) = rest.split_at_checked(len) else {
            return Err(io::Error::other("it is cut"));
        };
        self.block = lz4_flex::block::decompress(packed, LZ4_BLOCK).map_err(io::Error::other)?;
        (self.left, self.read) = (rest, 0);
        Ok(true)
    }
}

impl Read for Lz4<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.block.len() {
            if !self.next()? {
                return Ok(0);
            }
        }
        let mut unread = &self.block[self.read..];
        let read = unread.read(buffer)?;
        self.read += read;
        Ok(read)
    }
}
