use super::*;
use crate::ram::MIN_MIB;
use ft_protocol::log::codec::encode_payload;

/// Page 1 compresses, page 2 does not, page 7 is zero.
fn source() -> Ram {
    let ram = Ram::new(MIN_MIB).unwrap();
    ram.write(PAGE as u64, &b"lockstep".repeat(PAGE / 8))
        .unwrap();
    ram.write(2 * PAGE as u64, &noise()).unwrap();
    ram
}

fn noise() -> Vec<u8> {
    let words = (0..PAGE as u64 / 8).map(|i| xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes()));
    words.flat_map(u64::to_le_bytes).collect()
}

fn content_of(ram: &Ram) -> Vec<u8> {
    let mut content = vec![0; ram.len()];
    ram.read(0, &mut content).unwrap();
    content
}

fn receiver() -> PageReceiver {
    PageReceiver::new(Ram::new(MIN_MIB).unwrap())
}

#[test]
fn a_whole_memory_arrives_with_its_digest() {
    let ram = source();
    let (mut sender, mut receiver) = (PageSender::new(&ram), receiver());
    let all: Vec<usize> = (0..ram.pages()).collect();
    for pages in all.chunks(CHUNK_PAGES) {
        receiver.take(&sender.chunk(pages)).unwrap();
    }
    // Copied again after more writes, which made one page all zeros.
    ram.write(PAGE as u64, &[0; PAGE]).unwrap();
    ram.write(3 * PAGE as u64 + 5, b"late").unwrap();
    receiver.take(&sender.chunk(&[1, 3])).unwrap();
    assert_eq!(sender.digest(), RamDigest::of(&ram).value());
    assert_eq!(receiver.digest(), sender.digest());
    let stats = sender.stats();
    assert_eq!(stats, receiver.stats());
    assert_eq!(stats.pages, ram.pages() as u64 + 2);
    assert_eq!(stats.zero_pages, ram.pages() as u64 - 1);
    assert_eq!(stats.content_bytes, 3 * PAGE as u64);
    assert!(stats.chunk_bytes < 2 * PAGE as u64 + 4 * ram.pages() as u64);
    let (arrived, digest) = receiver.into_parts();
    assert!(content_of(&arrived) == content_of(&ram));
    assert_eq!(digest, RamDigest::of(&arrived));
}

#[test]
fn only_what_pays_is_compressed() {
    let ram = source();
    let mut sender = PageSender::new(&ram);
    assert!(sender.chunk(&[7]).len() < 32);
    assert!(sender.chunk(&[1]).len() < 128);
    let random = sender.chunk(&[2]).len();
    assert!((PAGE..PAGE + 32).contains(&random), "{random}");
    assert_eq!(sender.chunk(&[]).len(), 5);
}

/// Flips every bit of chunks of every kind: each damaged chunk is refused or means the same as before.
#[test]
fn a_flipped_bit_is_refused() {
    let ram = source();
    for pages in [&[7][..], &[1, 7], &[2, 7, 8]] {
        let chunk = PageSender::new(&ram).chunk(pages);
        let mut sound = receiver();
        sound.take(&chunk).unwrap();
        let mut refused = 0;
        for bit in 0..chunk.len() * 8 {
            let mut damaged = chunk.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut receiver = receiver();
            match receiver.take(&damaged) {
                Ok(()) => assert_eq!(receiver.digest(), sound.digest(), "bit {bit}"),
                Err(_) => refused += 1,
            }
        }
        assert!(
            refused > chunk.len() * 7,
            "{refused} of {}",
            chunk.len() * 8
        );
    }
}

#[test]
fn a_cut_or_longer_chunk_is_refused() {
    let chunk = PageSender::new(&source()).chunk(&[1, 2, 7]);
    for length in 0..chunk.len() {
        receiver().take(&chunk[..length]).unwrap_err();
    }
    let mut longer = chunk;
    longer.push(0);
    receiver().take(&longer).unwrap_err();
    receiver().take(&vec![0; CHUNK_BYTES + 1]).unwrap_err();
}

/// What a damaged or dishonest chunk may claim, each with everything else in order.
#[test]
fn nonsense_is_refused_by_name() {
    let bytes = |chunk: &Chunk| {
        let mut bytes = Vec::new();
        encode_payload(chunk, &mut bytes);
        bytes
    };
    let chunk = |pages: Vec<u32>, zero: Vec<u8>, packed: bool, content: Vec<u8>| Chunk {
        pages,
        zero,
        packed,
        content,
        sum: 0,
    };
    let outside = (MIN_MIB << 20) / PAGE as u32;
    let many: Vec<u32> = (0..=CHUNK_PAGES as u32).collect();
    let bomb = lz4_flex::block::compress(&vec![0; 64 << 20]);
    let cases = [
        (chunk(vec![outside], vec![1], false, vec![]), "outside"),
        (chunk(vec![u32::MAX], vec![1], false, vec![]), "outside"),
        (chunk(many, vec![0xff; 33], false, vec![]), "257 pages"),
        (chunk(vec![2, 1], vec![3], false, vec![]), "order"),
        (chunk(vec![1, 1], vec![3], false, vec![]), "order"),
        (chunk(vec![1], vec![], false, vec![]), "zero"),
        (chunk(vec![1], vec![3], false, vec![]), "zero"),
        (chunk(vec![1], vec![0], false, vec![]), "as long"),
        (chunk(vec![1], vec![0], false, vec![0; PAGE + 1]), "as long"),
        (chunk(vec![1], vec![0], true, vec![]), "unpacked"),
        (chunk(vec![1], vec![0], true, vec![0xff; 100]), "unpacked"),
        (chunk(vec![1], vec![0], true, bomb), "unpacked"),
        (chunk(vec![1], vec![1], false, vec![]), "checksum"),
    ];
    for (chunk, what) in cases {
        let error = receiver().take(&bytes(&chunk)).unwrap_err().to_string();
        assert!(error.contains(what), "{error}: not {what}");
    }
}
