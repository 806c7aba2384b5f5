//! Starts members on a stage, with their options.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::super::hosts::ADDRESSES;
use super::super::members::MemberId;
use super::{
    BACKUP, CHANNEL_PORT, Cpu, Guest, PRIMARY, Pair, RESTART, RESTARTS, RunError, START_LIMIT,
    Stage,
};
use lockstep_events::Event;
use lockstep_netns::TAPS;

impl Stage {
    /// Starts a primary with this guest and its backup, and waits until the guest executes.
    pub(crate) fn start_pair(&mut self, guest: Guest) -> Result<Pair, RunError> {
        self.start_pair_with(guest, &[])
    }

    /// The same, with additional arguments for the primary.
    pub(crate) fn start_pair_with(
        &mut self,
        guest: Guest,
        more: &[&str],
    ) -> Result<Pair, RunError> {
        let (guest, taps) = match guest {
            Guest::Server => (self.server.args(), [Some(TAPS[0]), Some(TAPS[1])]),
            // Where the CPU counts instructions the guest need not.
            Guest::Threads if self.cpu == Cpu::Soft => (vec!["threads-plain".into()], [None, None]),
            Guest::Threads => (vec!["threads".into()], [None, None]),
        };
        let mut args: Vec<OsString> = vec!["primary".into()];
        args.extend(guest);
        args.extend(self.member_args(PRIMARY, taps[0], 0));
        if let Some(mib) = self.mem_mib {
            args.extend(["--mem".into(), mib.to_string().into()]);
        }
        args.extend(more.iter().map(OsString::from));
        let primary = self.start(PRIMARY, args, 0)?;
        let mut args: Vec<OsString> = vec!["backup".into()];
        args.extend(self.member_args(BACKUP, taps[1], 0));
        args.extend(self.backup_args(1));
        let backup = self.start(BACKUP, args, 1)?;
        let started = |e: &Event| matches!(e, Event::Started { .. });
        self.wait_for(primary, "the pair started", START_LIMIT, started)?;
        let joined = |e: &Event| matches!(e, Event::Joined { .. });
        self.wait_for(backup, "the backup joined", START_LIMIT, joined)?;
        Ok(Pair { primary, backup })
    }

    /// Starts a primary with the guest that serves and this much memory, MiB, that runs alone, on host 0.
    pub(crate) fn start_alone(&mut self, mem_mib: u32) -> Result<MemberId, RunError> {
        let mut args: Vec<OsString> = vec!["primary".into(), "--solo".into()];
        args.extend(self.server.args());
        args.extend(self.member_args(PRIMARY, Some(TAPS[0]), 0));
        args.extend(["--mem".into(), mem_mib.to_string().into()]);
        let primary = self.start(PRIMARY, args, 0)?;
        let started = |e: &Event| matches!(e, Event::Started { .. });
        self.wait_for(primary, "the guest started", START_LIMIT, started)?;
        Ok(primary)
    }

    /// Starts a backup on `host` that joins the member on the other host. Does not wait for anything.
    pub(crate) fn join(&mut self, name: &'static str, host: usize) -> Result<MemberId, RunError> {
        let mut args: Vec<OsString> = vec!["backup".into()];
        args.extend(self.member_args(name, Some(TAPS[host]), 1 - host));
        args.extend(self.backup_args(host));
        self.start(name, args, host)
    }

    /// Further options of a backup on `host`.
    fn backup_args(&self, host: usize) -> [OsString; 4] {
        let shadow = if self.shadow { "on" } else { "off" };
        let listen = self.channel(host).to_string();
        [
            "--shadow".into(),
            shadow.into(),
            "--listen".into(),
            listen.into(),
        ]
    }

    /// Tries to start a second primary of the same VM, without `--force`, and notes its status as that
    /// of `restart`.
    pub(crate) fn restart(&mut self) -> Result<(), RunError> {
        let mut args: Vec<OsString> = vec!["primary".into()];
        args.extend(self.server.args());
        args.extend(self.member_args(RESTART, Some(TAPS[0]), 0));
        let id = self.start(RESTART, args, 0)?;
        self.await_end(RESTART, id)
    }

    /// Starts a member on each host, which learns its role from the arbiter.
    pub(crate) fn start_members(&mut self) -> Result<[MemberId; 2], RunError> {
        let mut start = |host: usize| {
            let mut args: Vec<OsString> = vec!["member".into()];
            args.extend(self.server.args());
            args.extend(self.member_args(RESTARTS[host], Some(TAPS[host]), 1 - host));
            args.extend(["--listen".into(), self.channel(host).to_string().into()]);
            self.start(RESTARTS[host], args, host)
        };
        Ok([start(0)?, start(1)?])
    }

    /// Starts a member, on `host` if each has its own.
    fn start(
        &mut self,
        name: &'static str,
        args: Vec<OsString>,
        host: usize,
    ) -> Result<MemberId, RunError> {
        let network = self.hosts.as_ref().map(|hosts| hosts.network(host));
        Ok(self.members.start(name, args, network)?)
    }

    /// The address on which `host` listens for the logging channel.
    fn channel(&self, host: usize) -> SocketAddrV4 {
        let address = match self.hosts {
            Some(_) => ADDRESSES[host],
            None => Ipv4Addr::LOCALHOST,
        };
        let port = match self.hosts {
            Some(_) => CHANNEL_PORT,
            None => CHANNEL_PORT + host as u16,
        };
        SocketAddrV4::new(address, port)
    }

    /// The options of a member whose channel is the one on which `listener` listens.
    fn member_args(&self, name: &str, tap: Option<&str>, listener: usize) -> Vec<OsString> {
        let mut arbiter = OsString::from("file:");
        arbiter.push(self.dir.join("arbiter"));
        vec![
            "--vm".into(),
            "drill".into(),
            "--arbiter".into(),
            arbiter,
            "--channel".into(),
            self.channel(listener).to_string().into(),
            "--net".into(),
            tap.map_or("none".into(), |tap| format!("tap={tap}").into()),
            "--record".into(),
            self.dir.join(name).into(),
            "--cpu".into(),
            self.cpu.argument().into(),
        ]
    }
}
