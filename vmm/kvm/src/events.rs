//! Exceptions and interrupts that are under way.

use bincode::{Decode, Encode};
use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_PAYLOAD, KVM_VCPUEVENT_VALID_SHADOW,
    kvm_vcpu_events,
};

/// What is under way in the CPU (KVM_GET_VCPU_EVENTS), without system management mode, which no guest
/// here can enter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Events {
    /// Injected, pending, number, has an error code.
    pub(super) exception: [u8; 4],
    pub(super) error_code: u32,
    /// What a pending exception will do to CR2 or DR6 when it is delivered.
    pub(super) payload: Option<u64>,
    /// Injected, number, by software, shadow.
    pub(super) interrupt: [u8; 4],
    /// Injected, pending, masked.
    nmi: [u8; 3],
}

impl Events {
    pub(super) fn save(e: &kvm_vcpu_events) -> Events {
        let (x, i, n) = (&e.exception, &e.interrupt, &e.nmi);
        Events {
            exception: [x.injected, x.pending, x.nr, x.has_error_code],
            error_code: x.error_code,
            payload: (e.exception_has_payload != 0).then_some(e.exception_payload),
            interrupt: [i.injected, i.nr, i.soft, i.shadow],
            nmi: [n.injected, n.pending, n.masked],
        }
    }

    pub(super) fn restore(&self) -> kvm_vcpu_events {
        let mut e = kvm_vcpu_events {
            flags: KVM_VCPUEVENT_VALID_NMI_PENDING
                | KVM_VCPUEVENT_VALID_SHADOW
                | KVM_VCPUEVENT_VALID_PAYLOAD,
            exception_has_payload: u8::from(self.payload.is_some()),
            exception_payload: self.payload.unwrap_or(0),
            ..Default::default()
        };
        let x = &mut e.exception;
        [x.injected, x.pending, x.nr, x.has_error_code] = self.exception;
        x.error_code = self.error_code;
        let i = &mut e.interrupt;
        [i.injected, i.nr, i.soft, i.shadow] = self.interrupt;
        [e.nmi.injected, e.nmi.pending, e.nmi.masked] = self.nmi;
        e
    }

    /// The number of an event that is not under way is a leftover of whatever was before.
    pub(super) fn words(&self, words: &mut Vec<u64>) {
        let byte = u64::from;
        let [injected, pending, number, _] = self.exception;
        words.extend(match injected != 0 || pending != 0 {
            true => [
                byte(injected) << 16 | byte(pending) << 8 | byte(number),
                u64::from(self.error_code),
                self.payload.unwrap_or(0),
            ],
            false => [0; 3],
        });
        let [injected, number, _, shadow] = self.interrupt;
        let interrupt = match injected {
            0 => 0,
            injected => byte(injected) << 8 | byte(number),
        };
        words.push(interrupt << 8 | byte(shadow));
        let [injected, pending, masked] = self.nmi;
        words.push(byte(injected) << 16 | byte(pending) << 8 | byte(masked));
    }
}
