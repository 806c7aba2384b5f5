//! The fault-tolerant runtime.
