//! Connections: input in pieces, protocol errors, long replies, exhausted memory, and nonsense.

use kv_core::resp::{MAX_ARGS, MAX_BULK};
use kv_core::{Client, Limits, Server};

const ROOMY: Limits = Limits {
    data: 64 << 20,
    buffers: 64 << 20,
};

/// A command, encoded as clients send it.
fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Sends `input` in pieces of `piece` bytes, reads replies `sip` bytes at a time, and returns them.
fn converse(
    client: &mut Client,
    server: &mut Server,
    input: &[u8],
    piece: usize,
    sip: usize,
) -> Vec<u8> {
    let (mut replies, mut rest) = (Vec::new(), input);
    loop {
        let before = (rest.len(), replies.len());
        client.resume(server);
        if client.wants_input() && !rest.is_empty() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            client.input(now, server);
            rest = later;
        }
        let sent = client.output().len().min(sip);
        replies.extend_from_slice(&client.output()[..sent]);
        client.sent(sent, server);
        if (rest.len(), replies.len()) == before {
            return replies;
        }
    }
}

#[test]
fn cuts_between_bytes_change_nothing() {
    let mut input = Vec::new();
    for args in [
        &[&b"SET"[..], b"key", b"va\r\nlue"][..],
        &[b"GET", b"key"],
        &[b"INCR", b"n"],
        &[b"MGET", b"key", b"n", b"none"],
        &[b"ECHO", b""],
    ] {
        input.extend(command(args));
    }
    input.extend_from_slice(b"PING\n\r\n*0\r\n*-1\r\n  incr   n \r\n");
    let expected = "+OK\r\n$7\r\nva\r\nlue\r\n:1\r\n*3\r\n$7\r\nva\r\nlue\r\n$1\r\n1\r\n$-1\r\n$0\r\n\r\n+PONG\r\n:2\r\n";
    for piece in 1..=input.len() {
        let (mut server, mut client) = (Server::new(ROOMY, 1), Client::default());
        let replies = converse(&mut client, &mut server, &input, piece, usize::MAX);
        assert_eq!(
            String::from_utf8_lossy(&replies),
            expected,
            "pieces of {piece}"
        );
        assert!(client.finished() && !client.is_closing());
    }
}

#[test]
fn an_error_in_the_protocol_ends_the_connection() {
    for (input, what) in [
        (&b"*x\r\n"[..], "invalid multibulk length"),
        (b"*1\n", "invalid multibulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n\n", "expected '$', got '\\n'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$4\r\nPINGxx", "expected the end of a bulk string"),
        (
            b"*00000000000000000000000000000000000",
            "too big count string",
        ),
    ] {
        let (mut server, mut client) = (Server::new(ROOMY, 1), Client::default());
        client.input(b"PING\r\n", &mut server);
        client.input(input, &mut server);
        client.input(b"PING\r\n", &mut server);
        assert!(client.is_closing(), "{input:?}");
        let replies = String::from_utf8_lossy(client.output()).into_owned();
        let error = replies
            .strip_prefix("+PONG\r\n-ERR Protocol error: ")
            .expect(&replies);
        assert!(error.starts_with(what), "{error}");
        assert_eq!(error.matches("\r\n").count(), 1, "{error}");
    }
}

#[test]
fn limits_of_a_command() {
    let long = vec![b'x'; MAX_BULK];
    let longer = vec![b'x'; MAX_BULK + 1];
    let many = vec![&b"k"[..]; MAX_ARGS];
    let more = vec![&b"k"[..]; MAX_ARGS + 1];
    let huge = vec![&long[..]; 5];
    let endless = vec![b'x'; 100_000];
    let ends = |input: &[u8]| {
        let (mut server, mut client) = (Server::new(ROOMY, 1), Client::default());
        converse(&mut client, &mut server, input, 1460, usize::MAX);
        client.is_closing()
    };
    assert!(!ends(&command(&[b"SET", b"k", &long])));
    assert!(ends(&command(&[b"SET", b"k", &longer])));
    assert!(!ends(&command(&many)));
    assert!(ends(&command(&more)));
    assert!(ends(&command(&huge)));
    assert!(ends(&endless));
}

#[test]
fn values_do_not_grow_too_long() {
    let (mut server, mut client) = (Server::new(ROOMY, 1), Client::default());
    let half = vec![b'x'; MAX_BULK / 2];
    let mut input = Vec::new();
    for more in [&half[..], &half, b"!"] {
        input.extend(command(&[b"APPEND", b"k", more]));
    }
    input.extend(command(&[b"STRLEN", b"k"]));
    let replies = converse(&mut client, &mut server, &input, 16384, usize::MAX);
    assert_eq!(
        String::from_utf8_lossy(&replies),
        ":262144\r\n:524288\r\n-ERR string exceeds maximum allowed size (524288 bytes)\r\n:524288\r\n"
    );
}

#[test]
fn replies_wait_for_a_slow_reader() {
    let (mut server, mut client) = (Server::new(ROOMY, 1), Client::default());
    let value = vec![b'v'; 100_000];
    let mut input = command(&[b"SET", b"k", &value]);
    for _ in 0..50 {
        input.extend(command(&[b"GET", b"k"]));
    }
    input.extend(command(&[b"MGET", b"k", b"k", b"k"]));
    let replies = converse(&mut client, &mut server, &input, 7000, 1000);
    let one = [&b"$100000\r\n"[..], &value, b"\r\n"].concat();
    let expected = [&b"+OK\r\n"[..], &one.repeat(50), b"*3\r\n", &one.repeat(3)].concat();
    assert!(
        replies == expected,
        "{} bytes instead of {}",
        replies.len(),
        expected.len()
    );
}

#[test]
fn a_reply_that_is_too_long_is_refused() {
    let (mut server, mut client) = (Server::new(ROOMY, 1), Client::default());
    let value = vec![b'v'; MAX_BULK];
    converse(
        &mut client,
        &mut server,
        &command(&[b"SET", b"k", &value]),
        1460,
        usize::MAX,
    );
    let mut args = vec![&b"k"[..]; 9];
    args[0] = b"MGET";
    let replies = converse(&mut client, &mut server, &command(&args), 1460, usize::MAX);
    assert_eq!(
        String::from_utf8_lossy(&replies),
        "-ERR the reply would exceed 4194304 bytes\r\n"
    );
    assert!(!client.is_closing());
}

#[test]
fn data_beyond_the_limit_is_refused_and_room_comes_back() {
    let limits = Limits {
        data: 1 << 20,
        buffers: 1 << 20,
    };
    let (mut server, mut client) = (Server::new(limits, 1), Client::default());
    let value = [b'v'; 1000];
    let mut talk = |input: Vec<u8>| {
        let replies = converse(&mut client, &mut server, &input, 1460, usize::MAX);
        String::from_utf8(replies).expect("text")
    };
    for round in 0..3 {
        let mut stored = 0;
        while talk(command(&[b"SET", format!("k{stored}").as_bytes(), &value])) == "+OK\r\n" {
            stored += 1;
            assert!(stored < 1100, "round {round}: no end");
        }
        assert!(stored > 700, "round {round}: only {stored}");
        assert!(talk(command(&[b"APPEND", b"k0", &value])).starts_with("-OOM "));
        assert_eq!(talk(command(&[b"STRLEN", b"k0"])), ":1000\r\n");
        assert_eq!(talk(command(&[b"DEL", b"k0", b"k1"])), ":2\r\n");
        assert_eq!(talk(command(&[b"SET", b"k1", &value])), "+OK\r\n");
        if round == 1 {
            talk(command(&[b"FLUSHALL"]));
        } else {
            let keys: Vec<String> = (0..stored).map(|it| format!("k{it}")).collect();
            let mut args = vec![&b"DEL"[..]];
            args.extend(keys.iter().map(String::as_bytes));
            talk(command(&args));
        }
        assert!(
            talk(command(&[b"INFO"])).contains("\r\nused_memory:0\r\n"),
            "round {round}"
        );
    }
}

#[test]
fn connections_share_a_limit_for_what_they_keep() {
    let limits = Limits {
        data: 1 << 20,
        buffers: 1 << 20,
    };
    let mut server = Server::new(limits, 1);
    let part = &command(&[b"SET", b"k", &[b'v'; 400_000]])[..400_000];
    let mut clients: Vec<Client> = (0..8).map(|_| Client::default()).collect();
    for client in &mut clients {
        converse(client, &mut server, part, 1460, 0);
    }
    let refused = clients.iter().filter(|it| it.is_closing()).count();
    assert!((1..8).contains(&refused), "{refused} of 8 were refused");
    for client in &mut clients {
        client.end(&mut server);
    }
    // Nothing of them is left: one connection may use all memory again.
    let mut last = Client::default();
    let whole = command(&[b"SET", b"k", &[b'v'; 400_000]]);
    assert_eq!(
        converse(&mut last, &mut server, &whole, 1460, usize::MAX),
        b"+OK\r\n"
    );
}

#[test]
fn quit_is_the_last_command() {
    let (mut server, mut client) = (Server::new(ROOMY, 1), Client::default());
    client.input(b"INCR n\r\nQUIT\r\nINCR n\r\n", &mut server);
    assert_eq!(client.output(), b":1\r\n+OK\r\n");
    assert!(client.is_closing() && !client.wants_input());
}

/// Random bytes that look like the protocol never cause a panic.
#[test]
fn nonsense_is_survived() {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos() as u64;
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let words: [&[u8]; 22] = [
        b"*",
        b"$",
        b"\r\n",
        b"\n",
        b"-1",
        b"0",
        b"1",
        b"2",
        b"3",
        b"SET",
        b"GET",
        b"INCR",
        b"k",
        b"MSET",
        b"MGET",
        b"APPEND",
        b"CLIENT",
        b"HELLO",
        b"CONFIG",
        b"99999999",
        b" ",
        b"\xff\x00",
    ];
    let limits = Limits {
        data: 1 << 16,
        buffers: 1 << 18,
    };
    let mut server = Server::new(limits, seed);
    for _ in 0..20_000 {
        let mut client = Client::default();
        let mut input = Vec::new();
        for _ in 0..random(40) {
            if random(2) == 0 {
                input.extend_from_slice(words[random(words.len())]);
            } else {
                let args: Vec<&[u8]> = (0..random(5)).map(|_| words[random(words.len())]).collect();
                input.extend(command(&args));
            }
        }
        let (piece, sip) = (1 + random(50), 1 + random(500));
        converse(&mut client, &mut server, &input, piece, sip);
        client.end(&mut server);
    }
}
