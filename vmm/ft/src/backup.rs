//! The backup's runtime.

mod copy;
mod serve;
mod shadow;
mod vcpu;

pub use serve::{Served, serve};

use super::cuts::Cuts;
use super::link::Port;
use super::{Arbiter, EventLog};
use ft_protocol::backup::Expectations;
use ft_protocol::log::HostPrint;
use lockstep_backends::live::Direct;
use lockstep_backends::{Live, Tap};
use lockstep_vcpu::Cpus;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The parts of a backup.
pub struct BackupParts {
    /// The VM it protects.
    pub vm: String,
    /// This host.
    pub host: HostPrint,
    /// The CPU backends.
    pub cpus: Cpus,
    /// What the operator said about the machine.
    pub expect: Expectations,
    /// Where the primary listens.
    pub channel: SocketAddr,
    /// Where the next backup may connect when this side is live; `None` if no address was given.
    pub listen: Option<Port>,
    /// The arbiter.
    pub arbiter: Arc<dyn Arbiter>,
    /// The TAP, silent until this side goes live.
    pub tap: Option<Arc<Tap>>,
    /// Inputs for the live machine.
    pub live: Live,
    /// Where outputs go when this side is live.
    pub direct: Direct,
    /// Record into this new directory.
    pub record: Option<PathBuf>,
    /// Where events go.
    pub events: EventLog,
    /// Keep the frames that the TAP gets, for going live.
    pub shadow: bool,
    /// The fence: run after a won test-and-set, before going live.
    pub fence: Option<String>,
    /// What is planted.
    pub cuts: Cuts,
}
