//! Which guest: one that ships, an ELF file, or a Linux kernel with what goes with it.

use super::CliError;
use clap::Args;
use lockstep_loader::linux::{MAX_LINUX_BYTES, is_linux};
use lockstep_loader::{Image, Parts};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// The guest.
#[derive(Args, Clone, Debug)]
pub struct GuestArgs {
    /// A guest that ships with Lockstep, or the path of an ELF file or of a Linux kernel.
    pub guest: String,
    #[command(flatten)]
    linux: LinuxArgs,
}

/// What goes with a Linux kernel.
#[derive(Args, Clone, Debug, Default)]
pub struct LinuxArgs {
    /// The initial RAM disk of a Linux kernel.
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// The command line of a Linux kernel.
    #[arg(long, value_name = "TEXT")]
    pub append: Option<String>,
}

impl GuestArgs {
    /// Loads it.
    pub fn load(&self) -> Result<Image, CliError> {
        self.linux.load(&self.guest)
    }

    /// The arguments that name it.
    pub fn args(&self) -> Vec<OsString> {
        let mut args = vec![self.guest.clone().into()];
        if let Some(initrd) = &self.linux.initrd {
            args.extend(["--initrd".into(), initrd.into()]);
        }
        if let Some(append) = &self.linux.append {
            // A command line may begin with a dash.
            args.push(format!("--append={append}").into());
        }
        args
    }
}

impl LinuxArgs {
    /// Loads this guest with what goes with it.
    pub fn load(&self, guest: &str) -> Result<Image, CliError> {
        if let Some(image) = lockstep_images::find(guest) {
            self.only_for_linux(guest)?;
            return Ok(Image::parse(guest, image.to_vec())?);
        }
        let bytes = read(guest).map_err(|e| {
            let names: Vec<&str> = lockstep_images::ALL.iter().map(|(name, _, _)| *name).collect();
            CliError::refused(format!(
                "there is no guest {guest} ({e}); give the path of an ELF file, of a Linux kernel, or one of {}",
                names.join(", ")
            ))
        })?;
        if !is_linux(&bytes) {
            self.only_for_linux(guest)?;
            return Ok(Image::parse(guest, bytes)?);
        }
        let initrd = match &self.initrd {
            None => Vec::new(),
            Some(path) => read(path).map_err(|e| {
                let path = path.display();
                CliError::refused(format!("cannot read {path} ({e}); give --initrd a file"))
            })?,
        };
        let parts = Parts {
            kernel: &bytes,
            initrd: &initrd,
            command_line: self.append.as_deref().unwrap_or_default().as_bytes(),
        };
        Ok(Image::linux(guest, &parts)?)
    }

    fn only_for_linux(&self, guest: &str) -> Result<(), CliError> {
        match (&self.initrd, &self.append) {
            (None, None) => Ok(()),
            _ => Err(CliError::refused(format!(
                "--initrd and --append are for a Linux kernel, and {guest} is none; leave them out"
            ))),
        }
    }
}

/// Reads the file, but stops when it is known to be too long.
fn read(path: impl AsRef<std::path::Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_LINUX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
