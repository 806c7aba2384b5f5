//! The CPU backends of this program, and which of them runs a guest.

use super::CliError;
use clap::ValueEnum;
use ft_protocol::log::{BootProtocol, Counts, CpuKind, Header, HostPrint};
use lockstep_kvm::Kvm;
use lockstep_loader::Image;
use lockstep_machine::host_print;
use lockstep_vcpu::{CpuBackend, Cpus};
use lockstep_x86::Soft;

/// `--cpu`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CpuChoice {
    /// The host's KVM: guests whose instructions it may execute, and that count their branch edges.
    Kvm,
    /// The CPU in software: any guest, on any host.
    Soft,
    /// KVM where it can be used and suits the guest, else the CPU in software.
    #[default]
    Auto,
}

impl CpuChoice {
    /// What is to run which machine on this host. A sentence says so if KVM was not told off and cannot be
    /// used.
    pub fn cpus(self) -> Cpus {
        let (branch_edges, instructions): (&'static dyn CpuBackend, _) = match self {
            CpuChoice::Kvm => (&Kvm, None),
            CpuChoice::Soft => (&Soft, Some(&Soft as _)),
            CpuChoice::Auto => match Kvm.available() {
                Ok(()) => (&Kvm, Some(&Soft as _)),
                Err(why) => {
                    tracing::info!("guests run on the software CPU: {why}");
                    (&Soft, Some(&Soft as _))
                }
            },
        };
        Cpus {
            branch_edges,
            instructions,
        }
    }

    /// What replays the log with this header, and the host on which it does: where nothing else was asked for
    /// and it can be, a CPU of the kind that recorded it.
    pub fn replaying(
        self,
        header: &Header,
    ) -> Result<(&'static dyn CpuBackend, HostPrint), CliError> {
        let choice = match (self, header.machine.cpu) {
            (CpuChoice::Auto, CpuKind::Soft { .. }) => CpuChoice::Soft,
            (choice, _) => choice,
        };
        let backend = choice.cpus().of(header.machine.counts);
        let backend = backend.map_err(CliError::refused)?;
        Ok((backend, host_print(backend)?))
    }
}

/// What the positions of a new machine with this guest count, and the CPU for it.
pub fn for_guest(cpus: Cpus, image: &Image) -> Result<(&'static dyn CpuBackend, Counts), CliError> {
    let refused = image.check_instructions();
    let Some(instructions) = cpus.instructions else {
        refused?;
        return Ok((cpus.branch_edges, Counts::BranchEdges));
    };
    let why = match &refused {
        Err(why) => why.to_string(),
        Ok(()) if image.counts_edges() => return Ok((cpus.branch_edges, Counts::BranchEdges)),
        Ok(()) => format!("{} does not count its branch edges", image.name()),
    };
    // There is no choice for Linux that its user would have to be told of.
    let chosen = image.boot() == BootProtocol::LockstepAbi;
    if chosen && cpus.branch_edges.kind() == CpuKind::Kvm {
        tracing::info!("the guest runs on the software CPU: {why}");
    }
    Ok((instructions, Counts::Instructions))
}
