//! SSE and SSE2.
//!
//! Floating point runs on the host's own instructions (`host.rs`), under the guest's rounding mode, FTZ and
//! DAZ; packed integers on intrinsics, which are exact. The host's MXCSR plays no part, and is the same
//! afterwards.
//!
//! What differs from one real processor to the next, and what this one does:
//!
//! - RCPPS, RCPSS, RSQRTPS and RSQRTSS: the exact value, rounded to 12 bits after the point
//!   (`approximate.rs`).
//! - MXCSR: all 16 bits exist, DAZ too. A higher bit is #GP.
//! - FXSAVE and FXRSTOR while CR4.OSFXSR is clear leave XMM registers and MXCSR alone. FCS and FDS are zero.
//!   Bytes from 416 on are neither read nor written.
//! - MASKMOVDQU and MASKMOVQ fault as if they wrote all bytes, also if they write none, and FXSAVE and
//!   FXRSTOR at the last byte first: as Intel's processors do.
//! - CVTPI2PS from memory leaves x87 registers alone, as on Intel's processors.

mod approximate;
mod control;
mod convert;
mod exceptions;
pub mod float;
pub mod forms;
pub mod host;
pub mod moves;
pub mod operand;
mod packed;
mod quick;
mod shuffle;
mod unbounded;
