//! Delivery of exceptions and interrupts through the IDT of long mode (SDM vol. 3, 6.14).

use crate::engine::{Engine, Event};
use crate::exception::{Exception, Kind, SS0, vector};
use crate::flags::{IF, NT, RF, TF, VM};
use crate::op::Done;
use crate::paging::canonical;
use crate::segments::{Descriptor, null_segment};
use crate::state::{Cpu, Stop, gpr, seg};
use crate::system::GENERAL_DETECT;
use lockstep_vcpu::Exit;

/// What is delivered.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    vector: u8,
    code: Option<u32>,
    /// It comes from INT n, INT3 or INTO, which the gate's privilege must allow.
    software: bool,
    /// Its handler returns to an instruction that had begun: RF is set in the flags that are pushed.
    resumes: bool,
}

impl Delivery {
    /// The exception that says that the gate, or what it names, is wrong.
    fn fault_at(&self, vector: u8, code: u32) -> Exception {
        Exception::coded(vector, code | u32::from(!self.software))
    }

    fn gate_fault(&self, vector: u8) -> Exception {
        // Bit 1: the index is one of the IDT.
        self.fault_at(vector, u32::from(self.vector) << 3 | 2)
    }
}

/// A gate of the IDT.
struct Gate {
    target: u64,
    selector: u16,
    stack: u8,
    /// Interrupts are off in its handler.
    masks: bool,
}

impl Cpu {
    fn gate(&mut self, delivery: &Delivery) -> Done<Gate> {
        let (base, limit) = self.tables[1];
        let offset = 16 * u64::from(delivery.vector);
        if offset + 15 > u64::from(limit) {
            return self.except(delivery.gate_fault(vector::GP));
        }
        let address = base.wrapping_add(offset);
        let low = self.system_read_u64(address)?;
        let high = self.system_read_u64(address.wrapping_add(8))?;
        let kind = low >> 40 & 0x1f;
        let dpl = (low >> 45) as u8 & 3;
        if !matches!(kind, 14 | 15) || delivery.software && dpl < self.cpl {
            return self.except(delivery.gate_fault(vector::GP));
        }
        if low >> 47 & 1 == 0 {
            return self.except(delivery.gate_fault(vector::NP));
        }
        Ok(Gate {
            target: low & 0xffff | low >> 32 & 0xffff_0000 | high << 32,
            selector: (low >> 16) as u16,
            stack: (low >> 32) as u8 & 7,
            masks: kind == 14,
        })
    }

    fn handler_code(&mut self, delivery: &Delivery, selector: u16) -> Done<Descriptor> {
        if selector & !3 == 0 {
            return self.except(delivery.fault_at(vector::GP, 0));
        }
        let wrong = delivery.fault_at(vector::GP, u32::from(selector & !3));
        let Some(mut descriptor) = self.descriptor(selector)? else {
            return self.except(wrong);
        };
        let sound = descriptor.is_code() && descriptor.is_long() && !descriptor.is_32_bit();
        if !sound || descriptor.dpl() > self.cpl {
            return self.except(wrong);
        }
        if !descriptor.present() {
            let code = u32::from(selector & !3);
            return self.except(delivery.fault_at(vector::NP, code));
        }
        self.mark_descriptor(&mut descriptor, 1)?;
        Ok(descriptor)
    }

    /// Where the handler's stack begins.
    fn handler_stack(&mut self, delivery: &Delivery, gate: &Gate, cpl: u8) -> Done<u64> {
        let offset = match gate.stack {
            0 if cpl == self.cpl => return Ok(self.r[gpr::SP]),
            0 => 4 + 8 * u64::from(cpl),
            stack => 0x24 + 8 * u64::from(stack - 1),
        };
        let task = self.segments[usize::from(seg::TR)];
        if offset + 7 > u64::from(task.limit) {
            let code = u32::from(task.selector & !3);
            return self.except(delivery.fault_at(vector::TS, code));
        }
        self.system_read_u64(task.base.wrapping_add(offset))
    }

    /// Enters the handler. RIP is where it will return to. On an error nothing has changed.
    fn deliver(&mut self, delivery: &Delivery) -> Done {
        let gate = self.gate(delivery)?;
        let code = self.handler_code(delivery, gate.selector)?;
        let cpl = if code.conforms() {
            self.cpl
        } else {
            code.dpl()
        };
        let stack = self.handler_stack(delivery, &gate, cpl)?;
        if !canonical(gate.target) {
            return self.except(delivery.fault_at(vector::GP, 0));
        }
        let flags = self.rflags() & !RF | if delivery.resumes { RF } else { 0 };
        let selector = |register: u8| u64::from(self.segments[usize::from(register)].selector);
        let frame = [
            u64::from(delivery.code.unwrap_or(0)),
            self.rip,
            selector(seg::CS),
            flags,
            self.r[gpr::SP],
            selector(seg::SS),
        ];
        let mut bytes = [0; 48];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(frame) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let bytes = match delivery.code {
            Some(_) => &bytes[..],
            None => &bytes[8..],
        };
        let sp = (stack & !15).wrapping_sub(bytes.len() as u64);
        self.store_bytes_as(sp, bytes, cpl == 3)?;
        let mut segment = code.segment();
        segment.selector = segment.selector & !3 | u16::from(cpl);
        self.segments[usize::from(seg::CS)] = segment;
        if cpl != self.cpl {
            let mut null = null_segment(u16::from(cpl));
            null.attributes.dpl = cpl;
            self.segments[usize::from(seg::SS)] = null;
        }
        self.r[gpr::SP] = sp;
        self.rip = gate.target;
        self.system_flags &= !(TF | NT | RF | VM | if gate.masks { IF } else { 0 });
        self.set_cpl(cpl);
        self.set_mode()
    }
}

/// Do two exceptions in a row make a double fault?
fn doubles(first: u8, second: u8) -> bool {
    let contributory = |v: u8| matches!(v, 0 | 10..=13);
    contributory(first) && contributory(second)
        || first == vector::PF && (second == vector::PF || contributory(second))
}

impl Engine {
    /// Delivers an exception to the guest. It returns an event if the guest did not survive the delivery.
    pub fn deliver_exception(&mut self, exception: Exception) -> Option<Event> {
        self.note(exception);
        let delivery = Delivery {
            vector: exception.vector,
            code: exception.code,
            software: exception.kind == Kind::Software,
            resumes: matches!(exception.kind, Kind::Fault | Kind::Between),
        };
        self.deliver(delivery)
    }

    /// Delivers an interrupt.
    pub fn deliver_interrupt(&mut self, vector: u8) -> Option<Event> {
        self.deliver(Delivery {
            vector,
            code: None,
            software: false,
            resumes: false,
        })
    }

    /// What an exception leaves in CR2, DR6 or DR7.
    fn note(&mut self, exception: Exception) {
        match (exception.vector, exception.detail) {
            (vector::PF, Some(address)) => self.cpu.control.cr2 = address,
            (vector::DB, Some(reason)) => self.cpu.debug[4] |= reason,
            _ => {}
        }
        if exception.vector == vector::DB {
            self.cpu.debug[5] &= !GENERAL_DETECT;
        }
    }

    fn deliver(&mut self, first: Delivery) -> Option<Event> {
        let mut delivery = first;
        let event = loop {
            self.cpu.io.begin();
            if self.cpu.deliver(&delivery).is_ok() {
                break None;
            }
            let second = match std::mem::replace(&mut self.cpu.stop, Stop::None) {
                Stop::Exception(exception) => exception,
                Stop::NotCanonical => SS0,
                Stop::Unsupported(what) => break Some(Event::Unsupported(what)),
                Stop::Asks | Stop::Alone | Stop::None | Stop::Breakpoint => {
                    break Some(Event::Unsupported("an interrupt's frame at a device"));
                }
            };
            self.note(second);
            if delivery.software {
                // The instruction did not complete after all.
                self.cpu.rip = self.began;
                self.cpu.budget += 1;
            }
            if delivery.vector == vector::DF {
                break Some(Event::Exit(Exit::Shutdown));
            }
            delivery = match doubles(delivery.vector, second.vector) {
                true => Delivery {
                    vector: vector::DF,
                    code: Some(0),
                    software: false,
                    resumes: false,
                },
                false => Delivery {
                    vector: second.vector,
                    code: second.code,
                    software: false,
                    resumes: true,
                },
            };
        };
        self.cpu.io.begin();
        self.cpu.io.end();
        self.cpu.delivered();
        self.drop_written();
        event
    }
}
