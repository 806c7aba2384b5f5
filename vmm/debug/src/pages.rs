//! Memory as it was at a moment: pages that the images of several moments share while they do not differ.

use lockstep_memory::ram::{PAGE, page_hash};
use lockstep_memory::{PageSet, Ram, RamDigest};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pages of a part of an image, which is shared as a whole while none of them differs.
const PART: usize = 512;

/// How many bytes images hold in all.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicUsize>);

impl Meter {
    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A page that is not all zeros.
#[derive(Debug)]
struct Page {
    bytes: [u8; PAGE],
    hash: u64,
    meter: Meter,
}

impl Drop for Page {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(size_of::<Page>(), Ordering::Relaxed);
    }
}

/// Some pages; `None` is all zeros.
type Part = [Option<Arc<Page>>; PART];

/// All of memory at a moment.
#[derive(Clone, Debug)]
pub struct Image {
    parts: Vec<Arc<Part>>,
    meter: Meter,
}

impl Image {
    /// A memory of zeros, for a RAM of so many pages.
    pub fn zeroed(pages: usize, meter: Meter) -> Image {
        let zeros = Arc::new([const { None }; PART]);
        Image {
            parts: vec![zeros; pages.div_ceil(PART)],
            meter,
        }
    }

    fn page(&self, page: usize) -> Option<&Arc<Page>> {
        self.parts[page / PART][page % PART].as_ref()
    }

    /// Takes over what these pages of `ram` hold now.
    pub fn update(&mut self, ram: &Ram, written: &PageSet) {
        let mut bytes = [0; PAGE];
        for page in written.iter() {
            ram.read_page(page, &mut bytes);
            let old = self.page(page).map(|it| &it.bytes);
            if old.unwrap_or(&[0; PAGE]) == &bytes {
                continue;
            }
            let new = (bytes != [0; PAGE]).then(|| {
                let held = &self.meter.0;
                held.fetch_add(size_of::<Page>(), Ordering::Relaxed);
                Arc::new(Page {
                    bytes,
                    hash: page_hash(page, &bytes),
                    meter: self.meter.clone(),
                })
            });
            Arc::make_mut(&mut self.parts[page / PART])[page % PART] = new;
        }
    }

    /// Makes `ram` what this image is. It is `from` now, but for the pages that were `written` since.
    pub fn restore(&self, ram: &Ram, from: &Image, written: &PageSet) {
        for page in written.iter() {
            self.put(ram, page);
        }
        for (index, (part, old)) in self.parts.iter().zip(&from.parts).enumerate() {
            if Arc::ptr_eq(part, old) {
                continue;
            }
            for (offset, (page, old)) in part.iter().zip(old.iter()).enumerate() {
                let same = match (page, old) {
                    (Some(page), Some(old)) => Arc::ptr_eq(page, old),
                    (None, None) => true,
                    (Some(_), None) | (None, Some(_)) => false,
                };
                if !same {
                    self.put(ram, index * PART + offset);
                }
            }
        }
    }

    fn put(&self, ram: &Ram, page: usize) {
        let bytes = self.page(page).map_or(&[0; PAGE], |page| &page.bytes);
        let written = ram.write((page * PAGE) as u64, bytes);
        written.expect("an image is as large as its RAM");
    }

    /// Its digest; `zeroed` is the one of a memory of zeros of this size.
    pub fn digest(&self, zeroed: &RamDigest) -> RamDigest {
        let mut digest = zeroed.clone();
        for (index, part) in self.parts.iter().enumerate() {
            for (offset, page) in part.iter().enumerate() {
                if let Some(page) = page {
                    digest.set_page(index * PART + offset, page.hash);
                }
            }
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_memory::ram::MIN_MIB;

    fn written(ram: &Ram) -> PageSet {
        let mut pages = PageSet::empty(ram.pages());
        pages.add(&ram.take_written());
        pages
    }

    #[test]
    fn memory_goes_back_and_forth_and_equal_pages_are_held_once() {
        let ram = Ram::new(MIN_MIB).unwrap();
        let zeroed = RamDigest::zeroed(ram.pages());
        let meter = Meter::default();
        let mut now = Image::zeroed(ram.pages(), meter.clone());
        let mut moments = vec![(now.clone(), RamDigest::of(&ram))];
        for round in 0..20u64 {
            // One page that changes each time, one that changes once, one that comes back to what it was.
            ram.write_u64(0x3000, round + 1).unwrap();
            ram.write_u64(0x200_0000 / 16 + round * 4096, 7).unwrap();
            ram.write_u64(0x5000, round % 2).unwrap();
            now.update(&ram, &written(&ram));
            moments.push((now.clone(), RamDigest::of(&ram)));
        }
        for (image, digest) in &moments {
            assert_eq!(image.digest(&zeroed), *digest);
        }
        // 20 of the first, 20 of the second, 10 of the third.
        assert_eq!(meter.bytes(), 50 * size_of::<Page>());
        for (from, to) in [(20, 3), (3, 0), (0, 11), (11, 20)] {
            let (image, digest) = &moments[to];
            // Something is written before it goes there.
            ram.write_u64(0x9000, 1).unwrap();
            ram.write_u64(0x3000, 99).unwrap();
            image.restore(&ram, &moments[from].0, &written(&ram));
            assert_eq!(RamDigest::of(&ram), *digest, "{from} to {to}");
            written(&ram);
        }
        drop((moments, now));
        assert_eq!(meter.bytes(), 0);
    }
}
