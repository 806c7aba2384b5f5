//! Tests of KVM's dirty log together with the tracker of [`lockstep_vcpu::dirty`].

use crate::tests::fresh_cpu;
use lockstep_memory::ram::PAGE;
use lockstep_memory::{PageSet, RamDigest};
use std::thread;

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn every_reader_is_told_of_every_page_once() {
    let (ram, vcpu) = fresh_cpu();
    let first = vcpu.dirty_pages().reader();
    assert_eq!(first.take().unwrap(), PageSet::full(ram.pages()));
    ram.write(5 * PAGE as u64, b"x").unwrap();
    let second = vcpu.dirty_pages().reader_from_now().unwrap();
    assert!(second.take().unwrap().is_empty());
    ram.write(9 * PAGE as u64 - 1, b"xx").unwrap();
    let list = |set: PageSet| set.iter().collect::<Vec<_>>();
    assert_eq!(list(second.take().unwrap()), [8, 9]);
    assert_eq!(list(first.take().unwrap()), [5, 8, 9]);
    assert!(first.take().unwrap().is_empty() && second.take().unwrap().is_empty());
    drop(first);
    ram.write(0, b"x").unwrap();
    assert_eq!(list(second.take().unwrap()), [0]);
}

#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn the_first_reader_may_ask_for_writes_alone_and_misses_none() {
    let (ram, vcpu) = fresh_cpu();
    ram.write(5 * PAGE as u64, b"x").unwrap();
    let reader = vcpu.dirty_pages().reader_of_all_writes();
    let mut digest = RamDigest::zeroed(ram.pages());
    let written = reader.take().unwrap();
    assert!(written.len() < ram.pages(), "{}", written.len());
    digest.update(&ram, &written, &|| ());
    assert_eq!(digest, RamDigest::of(&ram));
}

/// Each of two readers copies the pages that are reported to it while a thread writes. In the end both
/// copies equal the memory.
#[test]
#[cfg_attr(skip_kvm, ignore = "LOCKSTEP_SKIP_KVM is set")]
fn no_write_is_missed_by_a_reader_that_copies_meanwhile() {
    const WRITES: u64 = 200_000;
    let (ram, vcpu) = fresh_cpu();
    let written = ram.clone();
    let writer = thread::spawn(move || {
        for i in 0..WRITES {
            let page = i.wrapping_mul(0x9e37_79b9) % (written.pages() as u64);
            written
                .write_u64(page * PAGE as u64 + i % 512 * 8, i)
                .unwrap();
        }
    });
    let readers = [(); 2].map(|()| vcpu.dirty_pages().reader());
    let mut digests = [(); 2].map(|()| RamDigest::unread(ram.pages()));
    let mut rounds = 0;
    let mut copy = || {
        for (reader, digest) in readers.iter().zip(&mut digests) {
            digest.update(&ram, &reader.take().unwrap(), &|| ());
        }
        rounds += 1;
    };
    while !writer.is_finished() {
        copy();
    }
    writer.join().unwrap();
    copy();
    let whole = RamDigest::of(&ram);
    assert_eq!(digests, [whole.clone(), whole]);
    assert!(rounds > 2, "{rounds}");
}
