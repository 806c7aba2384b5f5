//! virtio-net (Virtio 1.2, section 5.1): one receive and one transmit queue, no offloads.
//!
//! A transmission completes at once. Whether the frame may leave is decided outside the machine.

use super::{F_VERSION_1, QUEUES, VirtioDevice, chain, wants_interrupt};
use crate::state::{BadState, Reader, Words};
use crate::{InputKind, MAX_COUNT, Outputs};
use ft_protocol::log::OutputPort;
use lockstep_memory::ram::GuestMap;
use std::collections::VecDeque;
use virtio_queue::{Queue, QueueT};

const F_MAC: u64 = 1 << 5;
const F_STATUS: u64 = 1 << 16;
const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;

/// Bytes of `struct virtio_net_hdr` (with num_buffers, since VERSION_1 is negotiated).
pub const HEADER: usize = 12;
/// Shortest frame that is accepted: two addresses and a type, bytes.
pub const MIN_FRAME: usize = 14;
/// Longest frame: MTU 1500, addresses, type and one VLAN tag, bytes.
pub const MAX_FRAME: usize = 1518;
/// Most received frames that wait for a buffer of the driver; more are not taken.
pub const INBOX_FRAMES: usize = 256;

/// The device.
#[derive(Debug)]
pub struct Net {
    /// MAC and link status (up), as in `struct virtio_net_config`.
    config: [u8; 8],
    state: NetState,
}

/// The part of it that changes.
#[derive(Debug, Default)]
struct NetState {
    /// Frames received, not yet in a buffer of the driver's.
    inbox: VecDeque<Vec<u8>>,
    /// Frames dropped: no room in the inbox, or in the driver's buffer.
    dropped: u64,
    /// Transmissions dropped because they were too short or too long.
    malformed: u64,
}

impl Net {
    /// A device with this MAC.
    pub fn new(mac: [u8; 6]) -> Net {
        let mut config = [0; 8];
        config[..6].copy_from_slice(&mac);
        config[6] = 1;
        Net {
            config,
            state: NetState::default(),
        }
    }

    fn transmit(&mut self, queue: &mut Queue, mem: &GuestMap, outputs: &mut Outputs) -> bool {
        let mut used = false;
        // At most a ring's length at a time: the driver may move its ring while the device reads it.
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop_descriptor_chain(mem) else {
                break;
            };
            let head = chain.head_index();
            let mut data = outputs.buffer();
            let whole = chain::read(chain, mem, HEADER + MAX_FRAME, &mut data);
            if whole && data.len() >= HEADER + MIN_FRAME {
                data.drain(..HEADER);
                outputs.push(OutputPort::Net, data);
            } else {
                outputs.give_back(data);
                self.state.malformed += 1;
            }
            used |= queue.add_used(mem, head, 0).is_ok();
        }
        used
    }

    /// Hands the driver what waits, and then the frame that has just arrived, if there is one: that goes
    /// straight into the driver's buffer, and waits only if there is none for it.
    fn deliver(&mut self, queue: &mut Queue, mem: &GuestMap, arrived: Option<&[u8]>) -> bool {
        let state = &mut self.state;
        let mut used = false;
        while let Some(frame) = state.inbox.front() {
            let Some(put) = put(queue, mem, frame) else {
                break;
            };
            state.inbox.pop_front();
            state.dropped += u64::from(!put.whole);
            used |= put.used;
        }
        let Some(arrived) = arrived else {
            return used;
        };
        match state.inbox.is_empty().then(|| put(queue, mem, arrived)) {
            Some(Some(put)) => {
                state.dropped += u64::from(!put.whole);
                used |= put.used;
            }
            Some(None) | None => state.inbox.push_back(arrived.to_vec()),
        }
        used
    }

    /// Is there room for this frame? Counts a frame that is dropped.
    fn takes(&mut self, frame: &[u8]) -> bool {
        let takes = self.state.inbox.len() < INBOX_FRAMES && frame.len() <= MAX_FRAME;
        self.state.dropped += u64::from(!takes);
        takes
    }

    fn work(
        &mut self,
        queues: &mut [Queue; QUEUES],
        mem: &GuestMap,
        outputs: &mut Outputs,
        arrived: Option<&[u8]>,
    ) -> bool {
        let mut interrupt = false;
        if self.transmit(&mut queues[TRANSMITQ], mem, outputs) {
            interrupt |= wants_interrupt(&queues[TRANSMITQ], mem);
        }
        if self.deliver(&mut queues[RECEIVEQ], mem, arrived) {
            interrupt |= wants_interrupt(&queues[RECEIVEQ], mem);
        }
        interrupt
    }
}

/// `struct virtio_net_hdr` of a received frame: no offloads, one buffer.
const RECEIVED: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// What became of a frame for which the driver had a buffer.
struct Put {
    /// It found room.
    whole: bool,
    /// The buffer was given back.
    used: bool,
}

/// Copies a frame into the driver's next buffer. None: there is none.
fn put(queue: &mut Queue, mem: &GuestMap, frame: &[u8]) -> Option<Put> {
    let chain = queue.pop_descriptor_chain(mem)?;
    let head = chain.head_index();
    let written = chain::write(chain, mem, [&RECEIVED, frame]);
    let whole = written == HEADER + frame.len();
    let len = if whole { written as u32 } else { 0 };
    Some(Put {
        whole,
        used: queue.add_used(mem, head, len).is_ok(),
    })
}

impl VirtioDevice for Net {
    const NAME: &'static str = "virtio-net";
    const ID: u32 = 1;
    const POLLS: bool = true;

    fn features(&self) -> u64 {
        F_VERSION_1 | F_MAC | F_STATUS
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn process(
        &mut self,
        queues: &mut [Queue; QUEUES],
        mem: &GuestMap,
        outputs: &mut Outputs,
    ) -> bool {
        self.work(queues, mem, outputs, None)
    }

    fn take_in(
        &mut self,
        frame: &[u8],
        queues: &mut [Queue; QUEUES],
        mem: &GuestMap,
        outputs: &mut Outputs,
    ) -> bool {
        let arrived = self.takes(frame).then_some(frame);
        self.work(queues, mem, outputs, arrived)
    }

    fn reset(&mut self) {
        self.state = NetState::default();
    }

    fn save(&self, words: &mut Words) {
        words.put_all([self.state.dropped, self.state.malformed]);
        words.put(self.state.inbox.len() as u64);
        for frame in &self.state.inbox {
            words.put_bytes(frame);
        }
    }

    fn restore(&mut self, words: &mut Reader) -> Result<(), BadState> {
        let (dropped, malformed) = (words.take()?, words.take()?);
        let counts = dropped <= MAX_COUNT && malformed <= MAX_COUNT;
        words.unless(counts, "its counts are impossible")?;
        let frames = words.take()?;
        words.unless(frames <= INBOX_FRAMES, "more frames wait than it takes in")?;
        self.state = NetState {
            inbox: (0..frames)
                .map(|_| words.bytes(MAX_FRAME))
                .collect::<Result<_, _>>()?,
            dropped,
            malformed,
        };
        Ok(())
    }

    fn room(&self, kind: InputKind) -> Option<usize> {
        (kind == InputKind::Frame).then(|| INBOX_FRAMES - self.state.inbox.len())
    }

    fn receive(&mut self, frame: &[u8]) {
        if self.takes(frame) {
            self.state.inbox.push_back(frame.to_vec());
        }
    }
}
