//! `run --from`: a recording's machine goes on live.

use super::Started;
use crate::cli::CliError;
use crate::cli::options::{MachineArgs, NetArg};
use crate::cli::replay::{self, Opened};
use ft_protocol::log::{Header, MachineConfig};
use lockstep_ft::unix_ns;
use lockstep_machine::host_print;
use lockstep_replay::{LogDir, follow_to};
use std::path::PathBuf;
use std::str::FromStr;

/// `DIR@EXIT`.
#[derive(Clone, Debug)]
pub struct From {
    dir: PathBuf,
    exit: u64,
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        let (dir, exit) = text
            .rsplit_once('@')
            .ok_or_else(|| format!("`{text}` is no DIR@EXIT, like /var/tmp/log@1200"))?;
        Ok(From {
            dir: dir.into(),
            exit: exit
                .parse()
                .map_err(|_| format!("`{exit}` is no number of an exit"))?,
        })
    }
}

/// The recording's machine where the guest runs on after that exit. What follows is a log of its own.
pub fn fork(from: &From, args: &MachineArgs) -> Result<Started, CliError> {
    let NetArg {
        mac, ip, gateway, ..
    } = &args.net;
    if mac.is_some() || ip.is_some() || gateway.is_some() {
        return Err(CliError::refused(
            "the guest of a recording has its addresses already: give --net its tap= alone",
        ));
    }
    let Opened {
        log,
        backend,
        mut machine,
        ..
    } = replay::open(&from.dir, args.cpu, Some(from.exit))?;
    let header = log.header().clone();
    if args.net.tap.is_some() && header.machine.net().is_none() {
        return Err(CliError::refused(
            "the machine of this recording has no network: leave --net out",
        ));
    }
    let image = LogDir::open(&from.dir).image(&header)?;
    let fork = follow_to(&mut machine, log, from.exit)?;
    let on = MachineConfig::on;
    let header = Header {
        machine: on(
            header.machine.clone(),
            backend.kind(),
            header.machine.counts,
        ),
        host: host_print(backend)?,
        started_ns: unix_ns(),
        ..header
    };
    Ok(Started {
        machine,
        header,
        image,
        fork: Some(fork),
    })
}
