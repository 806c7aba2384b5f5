//! Which pages of RAM the VMM itself wrote, and whether one of them was being watched.
//!
//! A software CPU watches the pages whose code it has decoded: what a device writes there must be decoded
//! anew.

use crate::ram::PAGE;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vm_memory::bitmap::{AtomicBitmap, Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

const WATCHED: u8 = 1;
const HIT: u8 = 2;

/// The bitmap that RAM's map keeps.
#[derive(Debug, Default)]
pub struct Written {
    pages: AtomicBitmap,
    watched: Box<[AtomicU8]>,
    /// Those that are watched and were written.
    hits: Mutex<Vec<usize>>,
    /// Are there any?
    hit: AtomicBool,
}

impl NewBitmap for Written {
    fn with_len(len: usize) -> Written {
        let watched = (0..len.div_ceil(PAGE)).map(|_| AtomicU8::new(0));
        Written {
            pages: AtomicBitmap::with_len(len),
            watched: watched.collect(),
            hits: Mutex::default(),
            hit: AtomicBool::new(false),
        }
    }
}

impl<'a> WithBitmapSlice<'a> for Written {
    type S = RefSlice<'a, Written>;
}

impl Bitmap for Written {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.pages.mark_dirty(offset, len);
        let last = offset.saturating_add(len.saturating_sub(1)) / PAGE;
        let pages = self.watched.iter().enumerate();
        for (number, page) in pages.take(last + 1).skip(offset / PAGE) {
            if page.load(Ordering::Relaxed) == WATCHED {
                page.store(HIT, Ordering::Relaxed);
                self.hits().push(number);
                self.hit.store(true, Ordering::Release);
            }
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.pages.dirty_at(offset)
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Written> {
        RefSlice::new(self, offset)
    }
}

impl Written {
    /// Pages written since the last call, one bit a page.
    pub fn take(&self) -> Vec<u64> {
        self.pages.get_and_reset()
    }

    /// From now on this page is watched, or not.
    pub fn watch(&self, page: usize, on: bool) {
        let mark = if on { WATCHED } else { 0 };
        self.watched[page].store(mark, Ordering::Relaxed);
    }

    /// Watched pages that were written since the last call.
    pub fn take_watched(&self) -> Vec<usize> {
        if !self.hit.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        let mut pages = std::mem::take(&mut *self.hits());
        // Some may be watched no more.
        pages.retain(|page| {
            let mark = &self.watched[*page];
            let written = mark.load(Ordering::Relaxed) == HIT;
            if written {
                mark.store(WATCHED, Ordering::Relaxed);
            }
            written
        });
        pages.sort_unstable();
        pages
    }

    fn hits(&self) -> MutexGuard<'_, Vec<usize>> {
        self.hits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
