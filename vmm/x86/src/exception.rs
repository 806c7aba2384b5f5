//! Exceptions: which there are, and how they are raised. `interrupt` delivers them.

/// An exception that an instruction raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its vector.
    pub vector: u8,
    /// Its error code, where it has one.
    pub code: Option<u32>,
    /// The address that a page fault puts into CR2, and what a debug exception adds to DR6.
    pub detail: Option<u64>,
    /// How it came.
    pub kind: Kind,
}

/// How an exception came: decides which RIP is pushed and what the descriptor must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The instruction did not complete and can be tried again.
    Fault,
    /// The instruction completed.
    Trap,
    /// An iteration of an instruction that repeats completed, and more follow.
    Between,
    /// INT n, INT3, INTO: a trap that the descriptor's privilege must allow.
    Software,
}

/// Vectors.
#[allow(missing_docs, reason = "the names are the manual's")]
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const XM: u8 = 19;
}

impl Exception {
    /// A fault without an error code.
    pub const fn fault(vector: u8) -> Exception {
        Exception {
            vector,
            code: None,
            detail: None,
            kind: Kind::Fault,
        }
    }

    /// A fault with one.
    pub const fn coded(vector: u8, code: u32) -> Exception {
        Exception {
            code: Some(code),
            ..Exception::fault(vector)
        }
    }

    /// #PF.
    pub const fn page_fault(address: u64, code: u32) -> Exception {
        Exception {
            detail: Some(address),
            ..Exception::coded(vector::PF, code)
        }
    }

    /// INT n and its like.
    pub const fn software(vector: u8) -> Exception {
        Exception {
            kind: Kind::Software,
            ..Exception::fault(vector)
        }
    }

    /// #DB after an instruction, for this reason in DR6.
    pub const fn debug_trap(reason: u64) -> Exception {
        Exception {
            kind: Kind::Trap,
            detail: Some(reason),
            ..Exception::fault(vector::DB)
        }
    }
}

/// #GP(0).
pub const GP0: Exception = Exception::coded(vector::GP, 0);
/// #SS(0).
pub const SS0: Exception = Exception::coded(vector::SS, 0);
/// #UD.
pub const UD: Exception = Exception::fault(vector::UD);
/// #DE.
pub const DE: Exception = Exception::fault(vector::DE);
/// #NM.
pub const NM: Exception = Exception::fault(vector::NM);
