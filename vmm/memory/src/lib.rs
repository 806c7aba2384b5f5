//! Guest RAM: the memory itself, the guest image that is loaded into it, and the page tables the
//! guest starts on.

pub mod allowlist;
pub mod image;
pub mod page_set;
pub mod pages;
pub mod ram;
pub mod tables;

pub use image::{Image, ImageError};
pub use page_set::PageSet;
pub use pages::{PageError, PageReceiver, PageSender, PageStats};
pub use ram::{Ram, RamDigest, RamError};
