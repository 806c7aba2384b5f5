//! Commands about the connection, which clients send when they connect.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};

use super::{
    ANY, Context, NO_KEY, Outcome, Spec, Then, is, specs, text, transactions, unknown_subcommand,
};
use crate::data::DATABASES;
use crate::error::Error;
use crate::number;
use crate::reply::Protocol;
use crate::resp::Command;
use crate::session::{Label, MAX_LABEL, Session};

pub const SPECS: &[Spec] = specs! {
    "ping" 1..=2 None NO_KEY, ping, "Returns PONG, or what it is given.";
    "echo" 2..=2 None NO_KEY, |it, on| Ok(on.reply.long(it.arg(1))?), "Returns what it is given.";
    "hello" 1..=ANY None NO_KEY, hello, "Chooses the protocol and tells about the server.";
    "auth" 2..=ANY None NO_KEY, auth, "Authenticates; this server has no passwords.";
    "select" 2..=2 None NO_KEY, select, "Selects a database.";
    "client" 2..=ANY None NO_KEY, client, "Tells about connections.";
    "quit" 1..=ANY None NO_KEY, quit, "Ends the connection.";
    "reset" 1..=1 None NO_KEY, reset, "Makes the connection as it was at its beginning.";
};

/// The version of Redis whose answers are given here.
pub const REDIS_VERSION: &str = "7.2.0";

fn ping(command: Command, on: &mut Context) -> Outcome {
    match command.len() {
        2 => on.reply.long(command.arg(1))?,
        _ => on.reply.status("PONG"),
    }
    Ok(())
}

/// Checks user and password: there is one user, who needs no password.
fn right_user(name: &[u8]) -> Outcome {
    match name {
        b"default" => Ok(()),
        _ => Err(Error::Said(
            "WRONGPASS invalid username-password pair or user is disabled.",
        )),
    }
}

fn auth(command: Command, on: &mut Context) -> Outcome {
    if command.len() == 2 {
        return Err(Error::Said(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        ));
    }
    if command.len() > 3 {
        return Err(Error::Syntax);
    }
    right_user(command.arg(1))?;
    on.reply.status("OK");
    Ok(())
}

/// Checks a name for the connection; `None` if an error was answered.
fn label(name: &[u8], on: &mut Context) -> Option<Label> {
    if name.len() > MAX_LABEL {
        on.reply.error(format_args!(
            "ERR Client names cannot have more than {MAX_LABEL} bytes."
        ));
        return None;
    }
    let label = Label::new(name);
    if label.is_none() {
        on.reply.error(format_args!(
            "ERR Client names cannot contain spaces, newlines or special characters."
        ));
    }
    label
}

/// `HELLO [2|3 [AUTH user password] [SETNAME name]]`.
fn hello(command: Command, on: &mut Context) -> Outcome {
    let mut protocol = on.session().protocol;
    if command.len() > 1 {
        protocol = match number::parse(command.arg(1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(Error::Said("NOPROTO unsupported protocol version")),
            None => {
                return Err(Error::Said(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        };
    }
    let (mut at, mut name) = (2, None);
    while at < command.len() {
        let (option, left) = (command.arg(at), command.len() - at - 1);
        if is(option, "auth") && left >= 2 {
            right_user(command.arg(at + 1))?;
            at += 3;
        } else if is(option, "setname") && left >= 1 {
            name = label(command.arg(at + 1), on);
            if name.is_none() {
                return Ok(());
            }
            at += 2;
        } else {
            let option = text(option);
            on.reply
                .error(format_args!("ERR Syntax error in HELLO option '{option}'"));
            return Ok(());
        }
    }
    let session = on.session();
    session.protocol = protocol;
    if let Some(name) = name {
        session.name = name;
    }
    on.reply.speak(protocol);
    tell_hello(on, protocol);
    Ok(())
}

fn tell_hello(on: &mut Context, protocol: Protocol) {
    let id = on.id as i64;
    let reply = &mut on.reply;
    reply.map(7);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    for (name, value) in [("proto", protocol.version()), ("id", id)] {
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

fn select(command: Command, on: &mut Context) -> Outcome {
    let index = number::parse(command.arg(1)).ok_or(Error::NoInteger)?;
    let index = usize::try_from(index).ok().filter(|it| *it < DATABASES);
    on.session().db = index.ok_or(Error::Said("ERR DB index is out of range"))?;
    on.reply.status("OK");
    Ok(())
}

fn quit(_: Command, on: &mut Context) -> Outcome {
    on.reply.status("OK");
    on.then = Then::Quit;
    Ok(())
}

fn reset(_: Command, on: &mut Context) -> Outcome {
    transactions::forget(on);
    let session = on.session();
    session.db = 0;
    session.name = Label::EMPTY;
    session.protocol = Protocol::Resp2;
    on.reply.speak(Protocol::Resp2);
    on.reply.status("RESET");
    Ok(())
}

/// CLIENT ID, INFO, LIST, GETNAME, SETNAME, SETINFO, NO-EVICT, NO-TOUCH.
fn client(command: Command, on: &mut Context) -> Outcome {
    match (command.arg(1), command.len()) {
        (it, 2) if is(it, "id") => on.reply.integer(on.id as i64),
        (it, 2) if is(it, "getname") => match on.sessions.get(on.id).name.as_bytes() {
            [] => on.reply.null(),
            name => on.reply.bulk(name),
        },
        (it, 3) if is(it, "setname") => {
            if let Some(name) = label(command.arg(2), on) {
                on.session().name = name;
                on.reply.status("OK");
            }
        }
        (it, 4) if is(it, "setinfo") => set_info(command, on)?,
        (it, 3) if is(it, "no-evict") || is(it, "no-touch") => on.reply.status("OK"),
        (it, 2) if is(it, "info") => {
            let now_ns = on.sessions.now_ns;
            let line = Line(on.sessions.get(on.id), now_ns);
            on.reply.text(format_args!("{line}"))?;
        }
        (it, _) if is(it, "list") => list(command, on)?,
        _ => unknown_subcommand("client", command, on),
    }
    Ok(())
}

fn set_info(command: Command, on: &mut Context) -> Outcome {
    let index = match command.arg(2) {
        it if is(it, "lib-name") => 0,
        it if is(it, "lib-ver") => 1,
        other => {
            let other = text(other);
            on.reply
                .error(format_args!("ERR Unrecognized option '{other}'"));
            return Ok(());
        }
    };
    let label = Label::new(command.arg(3)).ok_or(Error::Said(
        "ERR lib-name and lib-ver cannot contain spaces, newlines or special characters, or exceed 64 bytes.",
    ))?;
    on.session().library[index] = label;
    on.reply.status("OK");
    Ok(())
}

/// `CLIENT LIST [TYPE type] [ID id…]`: all connections are of the type "normal".
fn list(command: Command, on: &mut Context) -> Outcome {
    let wanted = |session: &Session| match command.len() {
        2 => true,
        4 if is(command.arg(2), "type") => is(command.arg(3), "normal"),
        _ => {
            let id = session.id as i64;
            command.args_from(3).any(|it| number::parse(it) == Some(id))
        }
    };
    let known = match command.len() {
        2 => true,
        4 if is(command.arg(2), "type") => true,
        3 => false,
        _ => is(command.arg(2), "id"),
    };
    if !known {
        return Err(Error::Syntax);
    }
    let sessions = &*on.sessions;
    let lines = fmt::from_fn(|f| {
        let mut chosen = sessions.iter().filter(|session| wanted(session));
        chosen.try_for_each(|session| write!(f, "{}", Line(session, sessions.now_ns)))
    });
    Ok(on.reply.text(format_args!("{lines}"))?)
}

/// A line of CLIENT LIST, and the time for it.
struct Line<'a>(&'a Session, u64);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const NS_PER_S: u64 = 1_000_000_000;
        let Self(session, now_ns) = self;
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let multi = session.queued.map_or(-1, |count| count as i64);
        write!(
            f,
            "id={} addr={} name={} age={} idle={} flags={} db={} sub=0 psub=0 ssub=0 multi={multi} ",
            session.id,
            session.peer.unwrap_or(nowhere),
            session.name,
            now_ns.saturating_sub(session.since_ns) / NS_PER_S,
            now_ns.saturating_sub(session.heard_ns) / NS_PER_S,
            if session.queued.is_some() { 'x' } else { 'N' },
            session.db,
        )?;
        let [name, version] = session.library;
        writeln!(
            f,
            "cmd={} user=default resp={} lib-name={name} lib-ver={version}",
            session.last,
            session.protocol.version(),
        )
    }
}
