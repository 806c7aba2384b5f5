//! For the tests: a server with several clients.

use kv_core::{Client, Limits, Server};

/// More memory than any test needs.
pub const ROOMY: Limits = Limits {
    data: 64 << 20,
    buffers: 64 << 20,
};

/// A server, and clients that use it in turn.
pub struct Table {
    pub server: Server,
    pub clients: Vec<Client>,
}

impl Table {
    /// A new server with this many clients.
    pub fn new(limits: Limits, clients: usize) -> Self {
        Self {
            server: Server::new(limits, 1),
            clients: (0..clients).map(|_| Client::default()).collect(),
        }
    }

    /// The answer to an inline command of client `who`.
    pub fn ask(&mut self, who: usize, line: &str) -> String {
        let client = &mut self.clients[who];
        client.input(format!("{line}\r\n").as_bytes(), &mut self.server);
        let mut said = Vec::new();
        while !client.output().is_empty() {
            said.extend_from_slice(client.output());
            client.sent(client.output().len(), &mut self.server);
            client.resume(&mut self.server);
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Compares the answer.
    #[track_caller]
    pub fn check(&mut self, who: usize, line: &str, answer: &str) {
        assert_eq!(self.ask(who, line), answer, "client {who}: {line}");
    }

    /// Bytes of data, as INFO reports them.
    pub fn used(&mut self) -> usize {
        let info = self.ask(0, "INFO memory");
        let line = info.lines().find_map(|it| it.strip_prefix("used_memory:"));
        line.expect("a line").parse().expect("a number")
    }
}

/// Random numbers from a seed (xorshift). The seed is printed, so that a failure can be repeated.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let told = std::env::var("LOCKSTEP_TEST_SEED").ok();
        let fresh = || {
            let now = std::time::SystemTime::now();
            let since = now.duration_since(std::time::UNIX_EPOCH);
            since.expect("after 1970").as_nanos() as u64
        };
        let seed = told.map_or_else(fresh, |seed| seed.parse().expect("a number"));
        println!("LOCKSTEP_TEST_SEED={seed}");
        Self(seed | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Words for [`command`].
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const MEMBERS: [&str; 8] = [
    "",
    "m",
    "n",
    "o",
    "1",
    "2",
    "30",
    "a-longer-member-than-others",
];
const NUMBERS: [&str; 9] = ["0", "1", "-1", "2", "-3", "5", "x", "100", "1.5"];

/// Templates of commands: K stands for a key, M for a member or value, N for a number.
const COMMANDS: [&str; 66] = [
    "SET K M",
    "SET K M NX",
    "SET K M XX GET",
    "SET K N",
    "GET K",
    "GETSET K M",
    "GETDEL K",
    "SETNX K M",
    "APPEND K M",
    "STRLEN K",
    "SETRANGE K N M",
    "GETRANGE K N N",
    "INCR K",
    "INCRBY K N",
    "DECRBY K N",
    "INCRBYFLOAT K N",
    "MSET K M K M",
    "MGET K K K",
    "MSETNX K M K M",
    "DEL K",
    "UNLINK K K",
    "EXISTS K K",
    "TYPE K",
    "RENAME K K",
    "RENAMENX K K",
    "DBSIZE",
    "EXPIREAT K 4102444800",
    "PEXPIREAT K 4102444800123 NX",
    "PEXPIREAT K 4102444801123 GT",
    "PEXPIRETIME K",
    "PERSIST K",
    "EXPIREAT K N LT",
    "LPUSH K M M",
    "RPUSH K M M M",
    "LPOP K",
    "RPOP K",
    "LPOP K N",
    "RPOP K N",
    "LRANGE K N N",
    "LLEN K",
    "LINDEX K N",
    "LSET K N M",
    "LTRIM K N N",
    "RPUSHX K M",
    "HSET K M M M M",
    "HGET K M",
    "HDEL K M M",
    "HLEN K",
    "HINCRBY K M N",
    "HSETNX K M M",
    "HMGET K M M",
    "SADD K M M M",
    "SREM K M M",
    "SCARD K",
    "SISMEMBER K M",
    "ZADD K N M N M",
    "ZADD K CH GT N M",
    "ZADD K XX INCR N M",
    "ZINCRBY K N M",
    "ZRANGE K N N WITHSCORES",
    "ZREVRANGE K N N",
    "ZRANK K M",
    "ZPOPMIN K",
    "ZPOPMAX K N",
    "ZREM K M M",
    "SELECT 0",
];

/// A random command.
pub fn command(random: &mut Random) -> Vec<Vec<u8>> {
    let word = |word: &str, random: &mut Random| match word {
        "K" => random.one_of(&KEYS).into(),
        "M" => random.one_of(&MEMBERS).into(),
        "N" => random.one_of(&NUMBERS).into(),
        itself => itself.as_bytes().to_vec(),
    };
    let template = random.one_of(&COMMANDS);
    template.split(' ').map(|it| word(it, random)).collect()
}

/// A command, encoded as clients send it.
pub fn encoded(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
