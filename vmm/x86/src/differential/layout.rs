//! Where things lie, for both processors.

use super::native::Area;

/// Code.
pub const CODE: Area = Area {
    at: 0x1000_0000,
    len: 0x2000,
    writable: true,
};
/// Data, with nothing before it.
pub const DATA: Area = Area {
    at: 0x1100_0000,
    len: 0x2000,
    writable: true,
};
/// Data that may only be read, with nothing after it.
pub const CONSTANT: Area = Area {
    at: 0x1100_2000,
    len: 0x1000,
    writable: false,
};
/// The stack.
pub const STACK: Area = Area {
    at: 0x1200_0000,
    len: 0x2000,
    writable: true,
};
/// All of them, by the numbers that [`super::native::Native::bytes_mut`] takes.
pub const AREAS: [Area; 4] = [CODE, DATA, CONSTANT, STACK];
/// Those that code writes to.
pub const WRITTEN: [usize; 2] = [1, 3];
/// Where the address lies that native code jumps to at its end.
pub const WAY_OUT: u64 = CODE.at + CODE.len as u64 - 8;
/// 64-bit code that does so: where compatible code jumps at its end.
pub const WAY_OUT_CODE: u64 = WAY_OUT - 6;
