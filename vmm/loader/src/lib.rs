//! Guest images: their format, the instructions that they may contain, and the memory and CPU that they
//! start with.

pub mod allowlist;
pub mod boot;
pub mod image;
pub mod linux;
mod program;
pub mod tables;

pub use boot::{LoadError, default_mac, prepare, start_state};
pub use image::{Image, ImageError, NotAnImage};
pub use linux::Parts;
pub use program::{MAX_IMAGE_BYTES, Segment};
