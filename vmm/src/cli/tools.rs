//! Resources of a member and the address on which it listens. They are opened and checked before the
//! arbiter hears of the member.

use super::CliError;
use super::member::MemberArgs;
use super::options::{Backends, new_header};
use ft_protocol::log::Header;
use lockstep_ft::EventLog;
use lockstep_ft::link::Port;
use lockstep_loader::Image;
use lockstep_machine::Machine;
use lockstep_replay::LogDirWriter;
use std::net::SocketAddr;

/// An address, with the option that gave it.
pub(super) type Given = (&'static str, SocketAddr);

/// What every member needs of its host.
pub(super) struct Tools {
    pub(super) backends: Backends,
    pub(super) events: EventLog,
    /// The port on which it listens, if it does.
    pub(super) port: Option<Port>,
}

impl Tools {
    /// Opens everything.
    pub(super) fn open(member: &MemberArgs, listen: Option<Given>) -> Result<Tools, CliError> {
        Ok(Tools {
            port: listen.map(reserve).transpose()?,
            backends: Backends::open(&member.machine)?,
            events: EventLog::open(member.events.as_deref()).map_err(|e| {
                CliError::refused(format!(
                    "cannot write the events ({e}); give --events another path"
                ))
            })?,
        })
    }
}

/// A machine that only needs to be started.
pub(super) struct Ready {
    pub(super) header: Header,
    pub(super) image: Image,
    pub(super) machine: Machine,
    /// Its recording, if it has one.
    pub(super) writer: Option<LogDirWriter>,
}

impl Ready {
    /// Builds the machine, which shows that this host can do so.
    pub(super) fn make(
        member: &MemberArgs,
        tools: &Tools,
        image: Image,
    ) -> Result<Ready, CliError> {
        let (header, backend) = new_header(&member.vm, &member.machine, &image)?;
        tools.backends.filter_for(header.machine.net());
        let machine = Machine::new(backend, &header.machine, &image)?;
        let writer = match &member.record {
            Some(dir) => Some(LogDirWriter::create(dir, &header, &image)?),
            None => None,
        };
        Ok(Ready {
            header,
            image,
            machine,
            writer,
        })
    }

    /// Drops a machine that is not needed because the other side founded the VM. Its recording would be
    /// empty.
    pub(super) fn discard(self) -> Result<(), CliError> {
        match self.writer {
            Some(writer) => Ok(writer.discard()?),
            None => Ok(()),
        }
    }
}

fn reserve((option, address): Given) -> Result<Port, CliError> {
    check((option, address))?;
    Port::reserve(address).map_err(|e| {
        CliError::refused(format!(
            "cannot listen on {option} {address} ({e}); give it an address of this host and a port that \
             nobody else has there, by TCP and by UDP"
        ))
    })
}

/// Both sides must use the same address, so it cannot be chosen by the system.
pub(super) fn check((option, address): Given) -> Result<(), CliError> {
    match address.port() {
        0 => Err(CliError::refused(format!(
            "{option} {address} has no port; give the one that the other side is told"
        ))),
        _ => Ok(()),
    }
}
