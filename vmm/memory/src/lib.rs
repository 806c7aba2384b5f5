//! Guest memory, the way of a software CPU to it (`direct`), sets of its pages, its digest, and pages on their way elsewhere.

pub mod direct;
pub mod page_set;
pub mod pages;
pub mod ram;
pub mod written;

pub use direct::{Direct, DirtyBytes};
pub use page_set::PageSet;
pub use pages::{PageError, PageReceiver, PageSender, PageStats};
pub use ram::{Ram, RamDigest, RamError};
