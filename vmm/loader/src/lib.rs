//! Guest images, what may be in them, and the memory and CPU in which they start.

pub mod allowlist;
pub mod boot;
pub mod image;
pub mod tables;

pub use boot::{LoadError, default_mac, prepare, start_state};
pub use image::{Image, ImageError, NotAnImage};
