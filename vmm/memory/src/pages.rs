//! Copies pages of memory to another machine or to a file, in chunks of up to [`CHUNK_PAGES`] pages.
//!
//! A chunk, encoded by bincode, holds: the numbers of its pages; for each page one bit that says
//! whether the page is all zeros; the content of the other pages, compressed by LZ4 if that saves
//! enough; and the sum of the pages' hashes ([`page_hash`]). The sum shows at once whether a chunk was
//! damaged. With the hashes, both ends know the digest ([`RamDigest`]) of the copy when the copying
//! ends.

use super::ram::{PAGE, Ram, RamDigest, page_hash};
use bincode::{Decode, Encode};
use ft_protocol::log::codec::{decode_payload, encode_payload};
use thiserror::Error;

/// Most pages in one chunk.
pub const CHUNK_PAGES: usize = 256;
/// Longest chunk, bytes: all of its pages uncompressed, and 4 KiB for the rest.
pub const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE + (4 << 10);
/// Content is sent compressed only if that saves at least one byte in this many.
const LEAST_SAVING: usize = 16;

/// Why a chunk cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("a piece of the machine's memory is damaged ({0}); it must be sent anew")]
pub struct PageError(String);

/// How much was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageStats {
    /// Pages copied. A page that is copied again counts again.
    pub pages: u64,
    /// Those of them that were all zeros.
    pub zero_pages: u64,
    /// Bytes of memory in the pages that were not all zeros.
    pub content_bytes: u64,
    /// Bytes of the encoded chunks.
    pub chunk_bytes: u64,
}

impl PageStats {
    fn count(&mut self, pages: usize, zero: usize, chunk: usize) {
        self.pages += pages as u64;
        self.zero_pages += zero as u64;
        self.content_bytes += ((pages - zero) * PAGE) as u64;
        self.chunk_bytes += chunk as u64;
    }
}

#[derive(Encode, Decode)]
struct Chunk {
    /// Page numbers, in ascending order.
    pages: Vec<u32>,
    /// One bit per page: the page is all zeros and has no content here.
    zero: Vec<u8>,
    /// The content is compressed.
    packed: bool,
    content: Vec<u8>,
    /// Sum of the pages' hashes.
    sum: u64,
}

/// Reads pages of a RAM, which the guest may be writing to, and keeps the digest of what was read.
#[derive(Debug)]
pub struct PageSender {
    ram: Ram,
    digest: RamDigest,
    stats: PageStats,
}

impl PageSender {
    /// A sender of the pages of `ram`.
    pub fn new(ram: &Ram) -> PageSender {
        PageSender {
            ram: ram.clone(),
            digest: RamDigest::unread(ram.pages()),
            stats: PageStats::default(),
        }
    }

    /// Encodes a chunk with the present content of these pages.
    ///
    /// # Panics
    /// If there are more than [`CHUNK_PAGES`], or they are not in ascending order, or lie outside RAM.
    pub fn chunk(&mut self, pages: &[usize]) -> Vec<u8> {
        assert!(pages.len() <= CHUNK_PAGES && pages.is_sorted_by(|a, b| a < b));
        let mut zero = vec![0; pages.len().div_ceil(8)];
        let mut content = Vec::with_capacity(pages.len() * PAGE);
        let mut sum = 0u64;
        let mut page = [0; PAGE];
        for (index, &number) in pages.iter().enumerate() {
            // Each page is read only once, so that what is hashed is what is sent, even if the guest
            // writes meanwhile.
            self.ram.read_page(number, &mut page);
            let hash = page_hash(number, &page);
            self.digest.set_page(number, hash);
            sum = sum.wrapping_add(hash);
            if page == [0; PAGE] {
                zero[index / 8] |= 1 << (index % 8);
            } else {
                content.extend_from_slice(&page);
            }
        }
        let zero_pages = pages.len() - content.len() / PAGE;
        let packed = lz4_flex::block::compress(&content);
        let pays = packed.len() + content.len() / LEAST_SAVING < content.len();
        let chunk = Chunk {
            pages: pages.iter().map(|&number| number as u32).collect(),
            zero,
            packed: pays,
            content: if pays { packed } else { content },
            sum,
        };
        let mut bytes = Vec::new();
        encode_payload(&chunk, &mut bytes);
        self.stats.count(pages.len(), zero_pages, bytes.len());
        bytes
    }

    /// The digest of the pages that were sent. For a page sent twice, its last content counts.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// How much was sent.
    pub fn stats(&self) -> PageStats {
        self.stats
    }
}

/// Writes pages that were received into a RAM, and keeps the digest of them.
#[derive(Debug)]
pub struct PageReceiver {
    ram: Ram,
    digest: RamDigest,
    stats: PageStats,
}

impl PageReceiver {
    /// A receiver that writes to `ram`, which must be all zeros.
    pub fn new(ram: Ram) -> PageReceiver {
        PageReceiver {
            digest: RamDigest::unread(ram.pages()),
            ram,
            stats: PageStats::default(),
        }
    }

    /// Decodes a chunk and writes its pages. The chunk may come from an untrusted peer or file. After
    /// an error the memory must be thrown away.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), PageError> {
        if bytes.len() > CHUNK_BYTES {
            return Err(PageError(format!("{} bytes in one chunk", bytes.len())));
        }
        let chunk: Chunk = decode_payload(bytes).map_err(|e| PageError(e.to_string()))?;
        self.check(&chunk)?;
        let is_zero = |index: usize| chunk.zero[index / 8] >> (index % 8) & 1 != 0;
        let zero_pages = (0..chunk.pages.len()).filter(|i| is_zero(*i)).count();
        let content = content(&chunk, chunk.pages.len() - zero_pages)?;
        let (contents, rest) = content.as_chunks::<PAGE>();
        let mut contents = contents.iter();
        assert!(rest.is_empty(), "its length was checked");
        let mut sum = 0u64;
        let mut page = [0; PAGE];
        for (index, &number) in chunk.pages.iter().enumerate() {
            let number = number as usize;
            let wanted = match is_zero(index) {
                true => &[0; PAGE],
                false => contents.next().expect("they were counted"),
            };
            self.ram.read_page(number, &mut page);
            if page != *wanted {
                self.ram
                    .write((number * PAGE) as u64, wanted)
                    .expect("the page lies in RAM");
                self.ram.read_page(number, &mut page);
            }
            let hash = page_hash(number, &page);
            self.digest.set_page(number, hash);
            sum = sum.wrapping_add(hash);
        }
        if sum != chunk.sum {
            return Err(PageError("its checksum does not hold".into()));
        }
        self.stats.count(chunk.pages.len(), zero_pages, bytes.len());
        Ok(())
    }

    fn check(&self, chunk: &Chunk) -> Result<(), PageError> {
        let count = chunk.pages.len();
        let wrong = |what: &str| Err(PageError(what.into()));
        if count > CHUNK_PAGES {
            return Err(PageError(format!("{count} pages in one chunk")));
        }
        if !chunk.pages.is_sorted_by(|a, b| a < b) {
            return wrong("its pages are out of order");
        }
        if let Some(last) = chunk
            .pages
            .last()
            .filter(|l| **l as usize >= self.ram.pages())
        {
            return Err(PageError(format!("page {last} lies outside the memory")));
        }
        if chunk.zero.len() != count.div_ceil(8) {
            return wrong("it does not say which pages are zero");
        }
        match chunk.zero.last() {
            Some(last) if !count.is_multiple_of(8) && last >> (count % 8) != 0 => {
                wrong("pages are zero that it does not have")
            }
            _ => Ok(()),
        }
    }

    /// The digest of the pages that were received.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// How much was received.
    pub fn stats(&self) -> PageStats {
        self.stats
    }

    /// The memory and its digest.
    pub fn into_parts(self) -> (Ram, RamDigest) {
        (self.ram, self.digest)
    }
}

/// The content, uncompressed, of the `pages` pages that are not all zeros.
fn content(chunk: &Chunk, pages: usize) -> Result<Vec<u8>, PageError> {
    if !chunk.packed {
        return match chunk.content.len() == pages * PAGE {
            true => Ok(chunk.content.clone()),
            false => Err(PageError("its content is not as long as its pages".into())),
        };
    }
    let mut content = vec![0; pages * PAGE];
    match lz4_flex::block::decompress_into(&chunk.content, &mut content) {
        Ok(length) if length == content.len() => Ok(content),
        Ok(_) => Err(PageError("its content is not as long as its pages".into())),
        Err(e) => Err(PageError(format!("its content cannot be unpacked: {e}"))),
    }
}

#[cfg(test)]
mod tests;
