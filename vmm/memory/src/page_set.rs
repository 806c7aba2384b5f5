//! A set of pages, one bit each.

/// Some pages of a RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSet {
    bits: Vec<u64>,
    /// Pages of the RAM.
    pages: usize,
}

impl PageSet {
    /// The empty set, for a RAM of `pages` pages.
    pub fn empty(pages: usize) -> PageSet {
        PageSet {
            bits: vec![0; pages.div_ceil(64)],
            pages,
        }
    }

    /// The set of all pages, for a RAM of `pages` pages.
    pub fn full(pages: usize) -> PageSet {
        let mut set = PageSet::empty(pages);
        set.add(&vec![u64::MAX; set.bits.len()]);
        set
    }

    /// Adds the pages whose bits are set in `bitmap`; page 0 is the lowest bit of the first word. Bits
    /// beyond the last page are ignored.
    pub fn add(&mut self, bitmap: &[u64]) {
        for (word, more) in self.bits.iter_mut().zip(bitmap) {
            *word |= more;
        }
        if !self.pages.is_multiple_of(64)
            && let Some(last) = self.bits.last_mut()
        {
            *last &= (1 << (self.pages % 64)) - 1;
        }
    }

    /// Adds the pages of another set.
    pub fn merge(&mut self, other: &PageSet) {
        self.add(&other.bits);
    }

    /// Is this page in the set?
    pub fn contains(&self, page: usize) -> bool {
        let word = self.bits.get(page / 64);
        word.is_some_and(|word| word >> (page % 64) & 1 != 0)
    }

    /// How many pages are in the set.
    pub fn len(&self) -> usize {
        self.bits
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Is the set empty?
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(|word| *word == 0)
    }

    /// The page numbers in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.bits.iter().enumerate().flat_map(|(index, &word)| {
            let next = |left: &u64| (*left & (*left - 1) != 0).then(|| *left & (*left - 1));
            let some = (word != 0).then_some(word);
            std::iter::successors(some, next)
                .map(move |left| index * 64 + left.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_lists_what_was_added() {
        let mut set = PageSet::empty(130);
        assert!(set.is_empty());
        set.add(&[1 << 63 | 1, 0, u64::MAX]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 128, 129]);
        assert_eq!(set.len(), 4);
        assert!(set.contains(129) && !set.contains(1) && !set.contains(130));
        let full = PageSet::full(130);
        assert_eq!(
            full.iter().collect::<Vec<_>>(),
            (0..130).collect::<Vec<_>>()
        );
        set.merge(&full);
        assert_eq!(set, full);
    }
}
