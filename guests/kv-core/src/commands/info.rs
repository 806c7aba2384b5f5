//! INFO.

use core::fmt;

use super::connection::REDIS_VERSION;
use super::{ANY, Context, NO_KEY, Outcome, Spec, is, specs};
use crate::data::DATABASES;
use crate::resp::Command;

pub const SPECS: &[Spec] = specs! {
    "info" 1..=ANY None NO_KEY, info, "Tells about the server.";
};

/// Redis's port, which the guest serves.
const PORT: u16 = 6379;

/// Arguments that ask for all sections.
const ALL: [&str; 3] = ["default", "all", "everything"];

#[expect(clippy::too_many_lines, reason = "one list of sections")]
fn info(command: Command, on: &mut Context) -> Outcome {
    let wanted = |section: &str| {
        let asks = |it: &[u8]| is(it, section) || ALL.iter().any(|all| is(it, all));
        command.len() == 1 || command.args_from(1).any(asks)
    };
    let (commands, keys) = (on.commands, on.keys.keyspace());
    let (used, limit) = keys.memory();
    let (sessions, seconds) = (&*on.sessions, on.sessions.now_ns / 1_000_000_000);
    let (clients, connections, expired) = (sessions.len(), sessions.count(), keys.expired());
    let sections = [
        (
            "Server",
            format_args!(
                "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\ntcp_port:{PORT}\r\nuptime_in_seconds:{seconds}\r\nuptime_in_days:{}\r\n",
                seconds / 86400
            ),
        ),
        (
            "Clients",
            format_args!("connected_clients:{clients}\r\nblocked_clients:0\r\n"),
        ),
        (
            "Memory",
            format_args!(
                "used_memory:{used}\r\nused_memory_human:{:.2}M\r\nmaxmemory:{limit}\r\nmaxmemory_policy:noeviction\r\n",
                used as f64 / 1048576.0
            ),
        ),
        (
            "Persistence",
            format_args!(
                "loading:0\r\nrdb_bgsave_in_progress:0\r\naof_enabled:0\r\naof_rewrite_in_progress:0\r\n"
            ),
        ),
        (
            "Stats",
            format_args!(
                "total_connections_received:{connections}\r\ntotal_commands_processed:{commands}\r\nexpired_keys:{expired}\r\n"
            ),
        ),
        (
            "Replication",
            format_args!("role:master\r\nconnected_slaves:0\r\n"),
        ),
        ("Cluster", format_args!("cluster_enabled:0\r\n")),
    ];
    let all = fmt::from_fn(|f| {
        let mut before = "";
        for (section, text) in sections.iter().filter(|it| wanted(it.0)) {
            write!(f, "{before}# {section}\r\n{text}")?;
            before = "\r\n";
        }
        if wanted("Keyspace") {
            write!(f, "{before}# Keyspace\r\n")?;
            for db in 0..DATABASES {
                let (keys, expires) = keys.size(db);
                if keys > 0 {
                    write!(f, "db{db}:keys={keys},expires={expires},avg_ttl=0\r\n")?;
                }
            }
        }
        Ok(())
    });
    Ok(on.reply.text(format_args!("{all}"))?)
}
