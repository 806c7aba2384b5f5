//! Compares the answers of the guest `kv`'s server with those of a real Redis, byte for byte.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::common::{ROOMY, Random, command, encoded};
use kv_core::resp::{Arguments, parse};
use kv_core::{Client, Server};

/// An answer must come within this time.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Random commands per connection, and number of connections.
const COMMANDS: usize = 400;
const ROUNDS: usize = 60;

/// A Redis behind a socket in a directory of its own. Dropping it ends it.
struct Redis {
    child: Child,
    dir: PathBuf,
}

impl Redis {
    /// Debian's redis-tools contain the server too: it is the same program as redis-check-rdb, and the
    /// name under which it is started (argv[0]) decides which of the two it is.
    fn start(name: &str) -> Self {
        let name = format!("kv-oracle-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("made");
        let mut command = Command::new("redis-check-rdb");
        command.arg0("redis-server").current_dir(&dir);
        command.args(["--port", "0", "--unixsocket", "socket", "--save", ""]);
        // With an empty `save` it writes nothing to the disk; it has its own directory all the same.
        command.args(["--appendonly", "no"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("redis-check-rdb is there");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        // A thread reads its output to the end, so that it never waits for this test.
        let mut lines = out.lines().map_while(Result::ok);
        let ready = lines.any(|line| line.contains("ready to accept connections"));
        assert!(ready, "the server ended before it was ready");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, dir }
    }

    fn connect(&self) -> Remote {
        let stream = UnixStream::connect(self.dir.join("socket")).expect("it listens");
        stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("set");
        Remote(BufReader::new(stream))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

/// A connection to it.
struct Remote(BufReader<UnixStream>);

impl Remote {
    fn ask(&mut self, command: &[Vec<u8>]) -> Vec<u8> {
        self.0.get_mut().write_all(&encoded(command)).expect("sent");
        let mut answer = Vec::new();
        self.read_reply(&mut answer);
        answer
    }

    /// Reads one reply, with all replies in it.
    fn read_reply(&mut self, into: &mut Vec<u8>) {
        let start = into.len();
        self.0.read_until(b'\n', into).expect("an answer");
        let line = String::from_utf8_lossy(&into[start..]).into_owned();
        let (kind, count) = line.split_at_checked(1).expect("an answer");
        let count: i64 = count.trim_end().parse().unwrap_or(0);
        let inside = match kind {
            "*" | "~" | ">" => count,
            "%" => 2 * count,
            "$" | "=" if count >= 0 => {
                let start = into.len();
                into.resize(start + count as usize + 2, 0);
                self.0.read_exact(&mut into[start..]).expect("a string");
                0
            }
            _ => 0,
        };
        (0..inside).for_each(|_| self.read_reply(into));
    }
}

/// The guest's server, with one client.
struct Ours(Server, Client);

impl Ours {
    fn new() -> Self {
        Self(Server::new(ROOMY, 1), Client::default())
    }

    fn ask(&mut self, command: &[Vec<u8>]) -> Vec<u8> {
        let Self(server, client) = self;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let wall_ns = wall.expect("after 1970").as_nanos() as u64;
        server.set_time(0, wall_ns);
        client.input(&encoded(command), server);
        let answer = client.output().to_vec();
        client.sent(answer.len(), server);
        answer
    }
}

/// The scripts, which are lists of commands.
fn scripts() -> Vec<Vec<(String, Vec<Vec<u8>>)>> {
    let text = include_str!("scripts.txt");
    let mut arguments = Arguments::default();
    let blocks = text.split("\n\n").map(|block| {
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        let mut words = |line: &str| {
            let input = format!("{line}\n");
            let parsed = parse(input.as_bytes(), &mut arguments);
            let (command, _) = parsed.expect("words").expect("a line");
            let words = command.args_from(0).map(<[u8]>::to_vec).collect();
            (line.to_owned(), words)
        };
        lines.map(&mut words).collect()
    });
    blocks.filter(|block: &Vec<_>| !block.is_empty()).collect()
}

/// The answer to raw bytes, until the connection ends or `+done` has come.
fn raw(remote: &mut Remote, line: &[u8]) -> Vec<u8> {
    // In one write: if Redis closes after the first line, a second write would fail.
    let lines = [line, b"ECHO done\n"].concat();
    remote.0.get_mut().write_all(&lines).expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(b"$4\r\ndone\r\n") {
        match remote.0.read_until(b'\n', &mut answer) {
            Ok(1..) => {}
            // A Redis that closes while bytes of ours are unread resets the connection.
            Ok(0) | Err(_) => break,
        }
    }
    answer
}

/// Lines as people type them, one connection each.
const LINES: [&[u8]; 28] = [
    b"ECHO hello\r\n",
    b"  ECHO \t hello \r\n",
    b"ECHO \"hello there\"\n",
    b"ECHO 'hello there'\n",
    b"ECHO \"a\\n\\r\\t\\b\\a\\\\\\\"\\q\"\n",
    b"ECHO \"\\x41\\x6g\\xFf\\x\"\n",
    b"ECHO 'it\\'s \\n'\n",
    b"ECHO \"\"\n",
    b"ECHO ''\n",
    b"ECHO a\"b c\"\n",
    b"ECHO a'b c'\n",
    b"ECHO \"a'b\"\n",
    b"ECHO 'a\"b'\n",
    b"\"ECHO\" x\n",
    b"ECHO \"a\"b\n",
    b"ECHO 'a'b\n",
    b"ECHO \"a\"\"b\"\n",
    b"ECHO \"a\n",
    b"ECHO 'a\n",
    b"ECHO a\"\n",
    b"ECHO \"a\\\n",
    b"ECHO a\\nb\n",
    b"ECHO \"a\"\x0b\n",
    b"\x0bECHO a\x0bb\n",
    b"\r\n",
    b"   \n",
    b"ECHO \"a\"\r\n",
    b"ECHO \xff\xfe\n",
];

#[test]
#[cfg_attr(
    not(has_redis_tools),
    ignore = "needs redis-check-rdb (package redis-tools)"
)]
fn inline_commands_are_split_as_redis_splits_them() {
    let redis = Redis::start("inline");
    for line in LINES {
        let right = raw(&mut redis.connect(), line);
        let Ours(mut server, mut client) = Ours::new();
        client.input(&[line, b"ECHO done\n"].concat(), &mut server);
        assert_eq!(
            String::from_utf8_lossy(client.output()),
            String::from_utf8_lossy(&right),
            "{}",
            line.escape_ascii()
        );
        let ends = !right.ends_with(b"$4\r\ndone\r\n");
        assert_eq!(client.is_closing(), ends, "{}", line.escape_ascii());
    }
}

#[test]
#[cfg_attr(
    not(has_redis_tools),
    ignore = "needs redis-check-rdb (package redis-tools)"
)]
fn answers_are_those_of_a_real_redis() {
    let redis = Redis::start("answers");
    let words = |line: &str| -> Vec<Vec<u8>> {
        line.split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    };
    let (mut compared, mut different) = (0, Vec::new());
    for protocol in ["HELLO 2", "HELLO 3"] {
        for script in scripts() {
            let (mut theirs, mut ours) = (redis.connect(), Ours::new());
            theirs.ask(&words("FLUSHALL"));
            theirs.ask(&words(protocol));
            ours.ask(&words(protocol));
            for (line, command) in &script {
                let (right, said) = (theirs.ask(command), ours.ask(command));
                compared += 1;
                if right != said {
                    different.push(format!(
                        "{protocol}, {line}: {:?}, not {:?}",
                        String::from_utf8_lossy(&said),
                        String::from_utf8_lossy(&right)
                    ));
                }
            }
        }
    }
    assert!(compared > 800, "only {compared} commands");
    assert!(
        different.is_empty(),
        "{} of {compared}:\n{}",
        different.len(),
        different.join("\n")
    );
}

#[test]
#[cfg_attr(
    not(has_redis_tools),
    ignore = "needs redis-check-rdb (package redis-tools)"
)]
fn random_commands_are_answered_as_by_a_real_redis() {
    let redis = Redis::start("random");
    let mut random = Random::new();
    let words =
        |line: &str| -> Vec<Vec<u8>> { line.split(' ').map(|it| it.as_bytes().to_vec()).collect() };
    for round in 0..ROUNDS {
        let protocol = words(random.one_of(&["HELLO 2", "HELLO 3"]));
        let (mut theirs, mut ours) = (redis.connect(), Ours::new());
        theirs.ask(&words("FLUSHALL"));
        theirs.ask(&protocol);
        ours.ask(&protocol);
        let mut story = Vec::new();
        for _ in 0..COMMANDS {
            let command = command(&mut random);
            story.push(String::from_utf8_lossy(&command.join(&b' ')).into_owned());
            let (right, said) = (theirs.ask(&command), ours.ask(&command));
            assert_eq!(
                String::from_utf8_lossy(&said),
                String::from_utf8_lossy(&right),
                "round {round}, at the end of: {}",
                story.join("; ")
            );
        }
    }
}
