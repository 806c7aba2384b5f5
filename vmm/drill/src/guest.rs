//! The guest that serves the client of a drill: one that ships, or a Linux with a Redis in it.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// The guest by default.
pub(super) const KV: &str = "kv";
/// The Linux that `guests/linux/make` makes, and where.
const LINUX: &str = "linux";
const MADE: [&str; 2] = ["target/linux/vmlinuz", "target/linux/initrd.img"];
/// What a Linux is told: where its console is, and that it is to serve Redis's protocol.
const APPEND: &str = "console=ttyS0 lockstep.redis";
/// Memory of a machine with Linux unless --mem is given, MiB.
const LINUX_MIB: u32 = 256;
/// How long a guest may take until it answers PING.
const KV_LIMIT: Duration = Duration::from_secs(30);
const LINUX_LIMIT: Duration = Duration::from_secs(300);

/// Why there is no such guest.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum GuestError {
    #[error("the guest's file {path} cannot be read ({source}): {advice}", path = path.display())]
    Unread {
        path: PathBuf,
        source: io::Error,
        advice: &'static str,
    },
    #[error(
        "the guest '{0}' needs its --initrd: a drill's guest is kv, linux, or a Linux kernel with an initrd whose Redis serves at port 6379"
    )]
    NoInitrd(String),
    #[error("--initrd is for a Linux kernel of one's own: '{0}' has none, or brings its own")]
    NeedlessInitrd(String),
}

/// Who serves the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// The guest `kv`.
    Kv,
    /// A Linux that starts a Redis when it is told to.
    Linux { kernel: PathBuf, initrd: PathBuf },
}

impl Server {
    /// The guest of this name or path.
    pub(super) fn told(guest: &str, initrd: Option<&Path>) -> Result<Self, GuestError> {
        let readable = |path: &Path, advice| {
            path.canonicalize().map_err(|source| GuestError::Unread {
                path: path.to_owned(),
                source,
                advice,
            })
        };
        let made = "run guests/linux/make, and the drill from the same directory";
        let told = "see to the path and its permissions";
        match (guest, initrd) {
            (KV, None) => Ok(Self::Kv),
            (LINUX, None) => Ok(Self::Linux {
                kernel: readable(Path::new(MADE[0]), made)?,
                initrd: readable(Path::new(MADE[1]), made)?,
            }),
            (KV | LINUX, Some(_)) => Err(GuestError::NeedlessInitrd(guest.to_owned())),
            (kernel, Some(initrd)) => Ok(Self::Linux {
                kernel: readable(Path::new(kernel), told)?,
                initrd: readable(initrd, told)?,
            }),
            (_, None) => Err(GuestError::NoInitrd(guest.to_owned())),
        }
    }

    /// GUEST and what belongs to it, as arguments of a member.
    pub(super) fn args(&self) -> Vec<OsString> {
        match self {
            Self::Kv => vec![KV.into()],
            Self::Linux { kernel, initrd } => vec![
                kernel.into(),
                "--initrd".into(),
                initrd.into(),
                "--append".into(),
                APPEND.into(),
            ],
        }
    }

    /// The machine's memory unless --mem is given, MiB; `None` for the default of members.
    pub(super) fn mem_mib(&self) -> Option<u32> {
        match self {
            Self::Kv => None,
            Self::Linux { .. } => Some(LINUX_MIB),
        }
    }

    /// How long it may take until it answers PING.
    pub(super) fn boot_limit(&self) -> Duration {
        match self {
            Self::Kv => KV_LIMIT,
            Self::Linux { .. } => LINUX_LIMIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_kernel_of_ones_own_needs_its_initrd_and_the_others_take_none() {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, initrd) = (dir.path().join("kernel"), dir.path().join("initrd"));
        let told = |guest: &str, initrd| Server::told(guest, initrd).unwrap_err().to_string();
        assert!(told("kv", Some(&initrd)).contains("brings its own"));
        assert!(told("linux", Some(&initrd)).contains("brings its own"));
        let path = kernel.to_str().unwrap();
        assert!(told(path, None).contains("needs its --initrd"));
        assert!(told(path, Some(&initrd)).contains("kernel cannot be read"));
        fs::write(&kernel, "").unwrap();
        assert!(told(path, Some(&initrd)).contains("initrd cannot be read"));
        fs::write(&initrd, "").unwrap();
        let server = Server::told(path, Some(&initrd)).unwrap();
        assert_eq!(server.args()[2], initrd.canonicalize().unwrap());
    }
}
