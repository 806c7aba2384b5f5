//! Copying to and from descriptor chains, whatever a driver puts into them.

use lockstep_memory::ram::GuestMap;
use std::ops::Range;
use virtio_queue::DescriptorChain;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

/// Appends the device-readable part of `chain` to `data`, which is empty. False if it is longer than
/// `limit` bytes or points outside RAM.
pub fn read<M>(chain: DescriptorChain<M>, mem: &GuestMap, limit: usize, data: &mut Vec<u8>) -> bool
where
    M: std::ops::Deref + Clone,
    M::Target: GuestMemory,
{
    for descriptor in chain.readable() {
        let start = data.len();
        let Some(end) = start.checked_add(descriptor.len() as usize) else {
            return false;
        };
        if end > limit {
            return false;
        }
        data.resize(end, 0);
        if mem
            .read_slice(&mut data[start..], descriptor.addr())
            .is_err()
        {
            return false;
        }
    }
    true
}

/// Copies two pieces of data, one after the other, to the device-writable part of `chain`; returns how
/// many bytes found room.
pub fn write<M>(chain: DescriptorChain<M>, mem: &GuestMap, data: [&[u8]; 2]) -> usize
where
    M: std::ops::Deref + Clone,
    M::Target: GuestMemory,
{
    let total = data[0].len() + data[1].len();
    let mut written = 0;
    for descriptor in chain.writable() {
        let end = total.min(written + descriptor.len() as usize);
        if end == written || !write_part(mem, data, written..end, descriptor.addr()) {
            break;
        }
        written = end;
    }
    written
}

/// Copies bytes `part` of the data to `address`; false if it does not lie in RAM.
fn write_part(
    mem: &GuestMap,
    [first, second]: [&[u8]; 2],
    part: Range<usize>,
    address: GuestAddress,
) -> bool {
    let split = first.len();
    let first = &first[part.start.min(split)..part.end.min(split)];
    let second = &second[part.start.max(split) - split..part.end.max(split) - split];
    if !first.is_empty() && mem.write_slice(first, address).is_err() {
        return false;
    }
    let behind = address.checked_add(first.len() as u64);
    second.is_empty() || behind.is_some_and(|at| mem.write_slice(second, at).is_ok())
}
