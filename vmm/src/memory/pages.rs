//! stub
use super::ram::{PAGE, page_hash};
use super::{Ram, RamDigest};
pub const CHUNK_PAGES: usize = 256;
#[derive(Default)]
pub struct PageEncoder { zero: u64 }
impl PageEncoder {
    pub fn encode(&mut self, ram: &Ram, pages: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut buffer = [0; PAGE];
        for &page in pages {
            ram.read_page(page, &mut buffer);
            out.extend((page as u32).to_le_bytes());
            if buffer.iter().all(|b| *b == 0) { self.zero += 1; out.push(0); } else { out.push(1); out.extend(buffer); }
        }
        out
    }
    pub fn zero_pages(&self) -> u64 { self.zero }
}
pub fn decode(mut bytes: &[u8], ram: &Ram, digest: &mut RamDigest) -> Result<(), String> {
    while !bytes.is_empty() {
        let page = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        let mut buffer = [0; PAGE];
        if bytes[4] == 1 { buffer.copy_from_slice(&bytes[5..5 + PAGE]); bytes = &bytes[5 + PAGE..]; } else { bytes = &bytes[5..]; }
        ram.write((page * PAGE) as u64, &buffer).unwrap();
        digest.set_page(page, page_hash(page, &buffer));
    }
    Ok(())
}
