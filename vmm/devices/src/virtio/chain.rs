//! Copying to and from descriptor chains, whatever a driver puts into them.

use lockstep_memory::ram::GuestMap;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestMemory};

/// Copies the device-readable part of `chain`. None if it is longer than `limit` bytes or points
/// outside RAM.
pub fn read<M>(chain: DescriptorChain<M>, mem: &GuestMap, limit: usize) -> Option<Vec<u8>>
where
    M: std::ops::Deref + Clone,
    M::Target: GuestMemory,
{
    let mut data = Vec::new();
    for descriptor in chain.readable() {
        let start = data.len();
        let end = start.checked_add(descriptor.len() as usize)?;
        if end > limit {
            return None;
        }
        data.resize(end, 0);
        mem.read_slice(&mut data[start..], descriptor.addr()).ok()?;
    }
    Some(data)
}

/// Copies `data` to the device-writable part of `chain`; returns how many bytes found room.
pub fn write<M>(chain: DescriptorChain<M>, mem: &GuestMap, data: &[u8]) -> usize
where
    M: std::ops::Deref + Clone,
    M::Target: GuestMemory,
{
    let mut written = 0;
    for descriptor in chain.writable() {
        let part = &data[written..data.len().min(written + descriptor.len() as usize)];
        if part.is_empty() || mem.write_slice(part, descriptor.addr()).is_err() {
            break;
        }
        written += part.len();
    }
    written
}
