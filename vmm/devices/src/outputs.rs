//! What the guest emits, in buffers that are used again.

use ft_protocol::log::OutputPort;

/// Buffers kept for later: as many as a ring of frames fills.
const SPARE: usize = crate::virtio::QUEUE_SIZE as usize;
/// Room in a new buffer, bytes: any frame fits. One that grew beyond twice that is not kept.
const BUFFER_BYTES: usize = 2048;

/// Something the guest emits to the world outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Where it goes.
    pub port: OutputPort,
    /// Its bytes: one frame, or console text.
    pub data: Vec<u8>,
}

/// Outputs that wait to be handed out, in order.
#[derive(Debug, Default)]
pub struct Outputs {
    waiting: Vec<Output>,
    spare: Vec<Vec<u8>>,
}

impl Outputs {
    /// An empty buffer to fill.
    pub fn buffer(&mut self) -> Vec<u8> {
        let spare = self.spare.pop();
        spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// A buffer that is not needed any more.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE && buffer.capacity() <= 2 * BUFFER_BYTES {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// The guest emits this.
    pub fn push(&mut self, port: OutputPort, data: Vec<u8>) {
        self.waiting.push(Output { port, data });
    }

    /// Those that wait.
    pub fn waiting(&self) -> &[Output] {
        &self.waiting
    }

    /// Drops the outputs that were handed out, and keeps their buffers.
    pub fn clear(&mut self) {
        while let Some(output) = self.waiting.pop() {
            self.give_back(output.data);
        }
    }
}
