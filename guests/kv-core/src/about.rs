//! Commands about the server and the connection: what clients ask when they connect.

use core::fmt::{self, Write};

use crate::commands::{COMMANDS, Context, bulk, text, wrong_number};
use crate::number;
use crate::reply::Reply;
use crate::resp::Command;

/// The version of Redis whose answers these are.
const REDIS_VERSION: &str = "7.2.0";
/// Longest name of a connection, bytes.
const MAX_NAME: usize = 64;
/// Longest text of INFO, bytes.
const MAX_INFO: usize = 1024;
/// Settings that CONFIG GET knows: nothing is written to a disk.
const SETTINGS: [(&str, &str); 2] = [("save", ""), ("appendonly", "no")];

fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

fn unknown_subcommand(of: &str, command: Command, context: &mut Context) {
    let text = text(command.arg(1));
    let text =
        format_args!("ERR unknown subcommand or wrong number of arguments for '{of} {text}'");
    context.reply.error(text);
}

/// CLIENT ID, GETNAME, SETNAME, SETINFO, INFO, NO-EVICT, NO-TOUCH.
pub fn client(command: Command, context: &mut Context) {
    match (command.arg(1), command.len()) {
        (it, 2) if is(it, "id") => context.reply.integer(context.id as i64),
        (it, 2) if is(it, "getname") && context.name.is_empty() => context.reply.null(),
        (it, 2) if is(it, "getname") => context.reply.bulk(context.name),
        (it, 3) if is(it, "setname") => {
            if set_name(command.arg(2), context) {
                context.reply.status("OK");
            }
        }
        (it, 4) if is(it, "setinfo") => context.reply.status("OK"),
        (it, 3) if is(it, "no-evict") || is(it, "no-touch") => context.reply.status("OK"),
        (it, 2) if is(it, "info") => {
            let id = context.id;
            let name = context.name.escape_ascii();
            Text::new()
                .with(format_args!("id={id} name={name} db=0 resp=2\r\n"))
                .send(&mut context.reply);
        }
        _ => unknown_subcommand("client", command, context),
    }
}

/// Names the connection; replies only if that is refused.
fn set_name(name: &[u8], context: &mut Context) -> bool {
    if name.len() > MAX_NAME || !name.iter().all(u8::is_ascii_graphic) {
        context.reply.error(format_args!(
            "ERR Client names cannot contain spaces, newlines or special characters, or exceed {MAX_NAME} bytes."
        ));
        return false;
    }
    context.name.clear();
    if context.name.try_reserve_exact(MAX_NAME).is_err() {
        context.reply.out_of_memory();
        return false;
    }
    context.name.extend_from_slice(name);
    true
}

/// COMMAND, COMMAND COUNT, COMMAND DOCS (of which there are none), COMMAND LIST.
pub fn command(command: Command, context: &mut Context) {
    let reply = &mut context.reply;
    if command.len() == 1 {
        reply.array(COMMANDS.len());
        for spec in COMMANDS {
            // Name, arity, flags, first key, last key, step.
            reply.array(6);
            reply.bulk(spec.name.as_bytes());
            reply.integer(spec.arity());
            reply.array(0);
            for _ in 0..3 {
                reply.integer(0);
            }
        }
        return;
    }
    match command.arg(1) {
        it if is(it, "count") && command.len() == 2 => reply.integer(COMMANDS.len() as i64),
        it if is(it, "docs") => reply.array(0),
        it if is(it, "list") && command.len() == 2 => {
            reply.array(COMMANDS.len());
            for spec in COMMANDS {
                reply.bulk(spec.name.as_bytes());
            }
        }
        _ => unknown_subcommand("command", command, context),
    }
}

/// CONFIG GET, RESETSTAT.
pub fn config(command: Command, context: &mut Context) {
    match command.arg(1) {
        it if is(it, "get") && command.len() < 3 => {
            wrong_number(context, format_args!("config|get"));
        }
        it if is(it, "get") => {
            let wanted = |name: &str| {
                command
                    .args_from(2)
                    .any(|pattern| pattern == b"*" || is(pattern, name))
            };
            let count = SETTINGS.iter().filter(|it| wanted(it.0)).count();
            context.reply.array(2 * count);
            for (name, value) in SETTINGS.iter().filter(|it| wanted(it.0)) {
                context.reply.bulk(name.as_bytes());
                context.reply.bulk(value.as_bytes());
            }
        }
        it if is(it, "resetstat") && command.len() == 2 => context.reply.status("OK"),
        _ => unknown_subcommand("config", command, context),
    }
}

/// HELLO [2 [SETNAME name]].
pub fn hello(command: Command, context: &mut Context) {
    if command.len() > 1 {
        match number::parse(command.arg(1)) {
            Some(2) => {}
            Some(_) => {
                context
                    .reply
                    .error(format_args!("NOPROTO unsupported protocol version"));
                return;
            }
            None => {
                context.reply.error(format_args!(
                    "ERR Protocol version is not an integer or out of range"
                ));
                return;
            }
        }
    }
    if command.len() > 2 {
        let option = command.arg(2);
        if command.len() != 4 || !is(option, "setname") {
            let option = text(option);
            context
                .reply
                .error(format_args!("ERR Syntax error in HELLO option '{option}'"));
            return;
        }
        if !set_name(command.arg(3), context) {
            return;
        }
    }
    let reply = &mut context.reply;
    reply.array(14);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    for (name, value) in [("proto", 2), ("id", context.id as i64)] {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    }
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}

/// INFO, all sections whichever are asked for.
pub fn info(_: Command, context: &mut Context) {
    let (used, limit) = context.db.memory();
    let stats = context.stats;
    let text = Text::new()
        .with(format_args!(
            "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\n"
        ))
        .with(format_args!(
            "\r\n# Clients\r\nconnected_clients:{}\r\n",
            stats.connected
        ))
        .with(format_args!(
            "\r\n# Memory\r\nused_memory:{used}\r\nmaxmemory:{limit}\r\n"
        ))
        .with(format_args!(
            "\r\n# Stats\r\ntotal_connections_received:{}\r\n",
            stats.connections
        ))
        .with(format_args!(
            "total_commands_processed:{}\r\n",
            stats.commands
        ))
        .with(format_args!("\r\n# Replication\r\nrole:master\r\n"))
        .with(format_args!(
            "\r\n# Keyspace\r\ndb0:keys={},expires=0,avg_ttl=0\r\n",
            context.db.len()
        ));
    bulk(context, text.as_bytes());
}

/// Text that needs no heap.
struct Text {
    bytes: [u8; MAX_INFO],
    length: usize,
}

impl Text {
    fn new() -> Self {
        Self {
            bytes: [0; MAX_INFO],
            length: 0,
        }
    }

    fn with(mut self, text: fmt::Arguments) -> Self {
        // What does not fit is cut.
        let _ = self.write_fmt(text);
        self
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn send(&self, reply: &mut Reply) {
        reply.bulk(self.as_bytes());
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.len().min(MAX_INFO - self.length);
        self.bytes[self.length..self.length + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.length += fits;
        if fits == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}
