//! `--arbiter` and its options, the same for every command that asks the arbiter.

use super::CliError;
use clap::Args;
use ft_protocol::arbiter::{Latest, MemberId};
use lockstep_ft::arbiter::{Asker, EtcdAccess, latest};
use lockstep_ft::{Arbiter, ArbiterUrl};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The variable with the password of `--etcd-user`, if it is not in a file: an option would show in the
/// list of processes.
const PASSWORD_VARIABLE: &str = "LOCKSTEP_ETCD_PASSWORD";

/// The storage that decides who goes on alone.
#[derive(Args, Clone, Debug)]
pub(super) struct ArbiterArgs {
    /// The storage that decides who goes on alone: file:/DIR, a directory that both
    /// hosts share, or etcd:http://HOST:PORT or etcd:https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    arbiter: ArbiterUrl,
    /// etcd: this user's rights; the password is in a file or in LOCKSTEP_ETCD_PASSWORD.
    #[arg(long, value_name = "NAME")]
    etcd_user: Option<String>,
    /// etcd: the file with the user's password, one line.
    #[arg(long, value_name = "PATH", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
    /// etcd: the cluster's certificate authorities (PEM), for https.
    #[arg(long, value_name = "PATH")]
    etcd_ca: Option<PathBuf>,
    /// etcd: this client's certificate (PEM).
    #[arg(long, value_name = "PATH", requires = "etcd_key")]
    etcd_cert: Option<PathBuf>,
    /// etcd: the key of that certificate (PEM).
    #[arg(long, value_name = "PATH", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, CliError> {
    fs::read(path)
        .map_err(|e| CliError::refused(format!("cannot read {option} {} ({e})", path.display())))
}

impl ArbiterArgs {
    /// The arbiter at this URL. Nothing is asked yet.
    pub(super) fn connect(&self) -> Result<Arc<dyn Arbiter>, CliError> {
        let access = EtcdAccess {
            user: self.user()?,
            ca: match &self.etcd_ca {
                Some(path) => Some(read("--etcd-ca", path)?),
                None => None,
            },
            identity: match (&self.etcd_cert, &self.etcd_key) {
                (Some(cert), Some(key)) => {
                    Some((read("--etcd-cert", cert)?, read("--etcd-key", key)?))
                }
                _ => None,
            },
        };
        Ok(self.arbiter.connect(access)?)
    }

    fn user(&self) -> Result<Option<(String, String)>, CliError> {
        let Some(name) = &self.etcd_user else {
            return Ok(None);
        };
        let password = match &self.etcd_password_file {
            Some(path) => {
                let text = String::from_utf8(read("--etcd-password-file", path)?);
                let text = text.map_err(|_| {
                    CliError::refused("--etcd-password-file holds no text: give one line")
                })?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            None => std::env::var(PASSWORD_VARIABLE).map_err(|_| {
                CliError::refused(format!(
                    "--etcd-user {name} has no password: give --etcd-password-file or set \
                     {PASSWORD_VARIABLE}"
                ))
            })?,
        };
        Ok(Some((name.clone(), password)))
    }

    /// The arbiter, after a check that this process can write, link and remove there. Otherwise a
    /// member would notice it too late.
    pub(super) fn proved(&self, vm: &str) -> Result<Asker<()>, CliError> {
        let asker = self.asker(vm)?;
        asker.ask_now(|arbiter, vm, _| arbiter.prove(vm))?;
        Ok(asker)
    }

    /// The arbiter, for a command that only asks.
    pub(super) fn asker(&self, vm: &str) -> Result<Asker<()>, CliError> {
        // This id never claims.
        Ok(Asker::new(self.connect()?, vm, MemberId(0)))
    }
}

/// The latest generation of the VM.
pub(super) fn latest_of(asker: &Asker<()>) -> Result<Option<Latest>, CliError> {
    Ok(asker.ask_now(|arbiter, vm, _| latest(arbiter, vm))?)
}
