//! Guest memory, sets of its pages, its digest, and pages on their way elsewhere.

pub mod page_set;
pub mod pages;
pub mod ram;

pub use page_set::PageSet;
pub use pages::{PageError, PageReceiver, PageSender, PageStats};
pub use ram::{Ram, RamDigest, RamError};
