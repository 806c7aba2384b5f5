//! The answers, command by command.

use kv_core::{Client, Limits, Server};

const ROOMY: Limits = Limits {
    data: 64 << 20,
    buffers: 64 << 20,
};

/// All answers of a fresh server to `input`.
fn answers(input: &[u8]) -> String {
    let mut server = Server::new(ROOMY, 1);
    let mut client = Client::default();
    client.input(input, &mut server);
    let out = String::from_utf8(client.output().to_vec()).expect("text");
    client.end(&mut server);
    out
}

/// The answer to the last of several inline commands.
#[track_caller]
fn check(commands: &[&str], answer: &str) {
    let (last, before) = commands.split_last().expect("a command");
    let before: String = before.iter().map(|it| format!("{it}\r\n")).collect();
    let skipped = answers(before.as_bytes()).len();
    assert_eq!(
        answers(format!("{before}{last}\r\n").as_bytes())[skipped..],
        *answer,
        "{commands:?}"
    );
}

#[test]
fn churn() {
    check(&["DEBUG CHURN 20 1"], "+OK\r\n");
    check(&["DEBUG CHURN 0 0"], "+OK\r\n");
    let refused = answers(b"DEBUG CHURN 1 9000000000000\r\n");
    assert!(refused.starts_with("-OOM"), "{refused}");
    let mut server = Server::new(ROOMY, 1);
    let mut client = Client::default();
    assert_eq!(server.run(5), None);
    client.input(b"DEBUG CHURN 4 1\r\n", &mut server);
    // A second in steps of `DEBUG CHURN`: it writes 4 MiB, four times the pool.
    let mut now = 1000;
    while now < 1_000_001_000 {
        now = server.run(now).expect("it goes on");
    }
    server.run(now);
    assert_eq!(server.churned(), 1024);
    client.input(b"DEBUG CHURN 0 1\r\n", &mut server);
    assert_eq!(server.run(now), None);
    client.end(&mut server);
    for wrong in ["DEBUG CHURN -1 1", "DEBUG CHURN x 1", "DEBUG SLEEP 1 1"] {
        check(&[wrong], "-ERR syntax error\r\n");
    }
}

#[test]
fn strings() {
    check(&["GET a"], "$-1\r\n");
    check(&["SET a 1", "GET a"], "$1\r\n1\r\n");
    check(&["SET a long-value", "SET a v", "GET a"], "$1\r\nv\r\n");
    check(
        &["SET a v", "SET a long-value", "GET a"],
        "$10\r\nlong-value\r\n",
    );
    check(&["set a v never"], "-ERR syntax error\r\n");
    check(&["APPEND a xy"], ":2\r\n");
    check(&["APPEND a xy", "APPEND a z", "GET a"], "$3\r\nxyz\r\n");
    check(&["SET a xyz", "STRLEN a"], ":3\r\n");
    check(&["STRLEN a"], ":0\r\n");
    check(
        &["MSET a 1 b 2 a 3", "MGET a b c"],
        "*3\r\n$1\r\n3\r\n$1\r\n2\r\n$-1\r\n",
    );
    check(
        &["MSET a 1 b"],
        "-ERR wrong number of arguments for 'mset' command\r\n",
    );
}

#[test]
fn keys() {
    check(&["MSET a 1 b 2", "DEL a c b a"], ":2\r\n");
    check(&["MSET a 1 b 2", "EXISTS a a c"], ":2\r\n");
    check(&["MSET a 1 b 2", "DBSIZE"], ":2\r\n");
    check(&["MSET a 1 b 2", "FLUSHALL", "DBSIZE"], ":0\r\n");
    check(&["FLUSHALL ASYNC"], "+OK\r\n");
    check(&["FLUSHALL NEVER"], "-ERR syntax error\r\n");
}

#[test]
fn numbers() {
    check(&["INCR a"], ":1\r\n");
    check(
        &["INCR a", "INCRBY a 40", "DECR a", "GET a"],
        "$2\r\n40\r\n",
    );
    check(&["DECRBY a 7"], ":-7\r\n");
    check(
        &["SET a 9223372036854775806", "INCR a"],
        ":9223372036854775807\r\n",
    );
    let overflow = "-ERR increment or decrement would overflow\r\n";
    check(&["SET a 9223372036854775807", "INCR a"], overflow);
    check(
        &["SET a 9223372036854775807", "INCR a", "GET a"],
        "$19\r\n9223372036854775807\r\n",
    );
    check(&["SET a -9223372036854775808", "DECR a"], overflow);
    check(
        &["DECRBY a -9223372036854775808"],
        "-ERR decrement would overflow\r\n",
    );
    check(
        &["SET a -9223372036854775808", "INCR a"],
        ":-9223372036854775807\r\n",
    );
    let no_integer = "-ERR value is not an integer or out of range\r\n";
    for text in [
        "x",
        "01",
        "+1",
        "-0",
        "-",
        "1.0",
        "9223372036854775808",
        "1e3",
    ] {
        check(&[&format!("SET a {text}"), "INCR a"], no_integer);
        check(&[&format!("INCRBY a {text}")], no_integer);
    }
}

/// Sums have the 64 bits of significand of C's `long double`, like a real Redis's.
#[test]
fn floating_point_numbers() {
    let sums: [(&[&str], &str); 9] = [
        (&["2.51", "-1"], "1.51"),
        (&["0.1", "0.2"], "0.3"),
        (&["1", "1e-17"], "1.00000000000000001"),
        (&["1", "4e-18"], "1"),
        (&["0.999999999999999999"], "1"),
        (&["-0.000000000000000004"], "0"),
        (&["1e18", "0.5"], "1000000000000000000.5"),
        (&["18446744073709551615", "1"], "18446744073709551616"),
        (&["1e25"], "10000000000000000000000000"),
    ];
    for (amounts, sum) in sums {
        let commands: Vec<_> = amounts
            .iter()
            .map(|amount| format!("INCRBYFLOAT a {amount}"))
            .collect();
        let commands: Vec<_> = commands.iter().map(String::as_str).collect();
        check(&commands, &format!("${}\r\n{sum}\r\n", sum.len()));
    }
    for text in ["x", "1e", "1e+", "nan", "1e4933", "1e-4960", "--1", "1 "] {
        let command = format!("INCRBYFLOAT a \"{text}\"");
        check(&[&command], "-ERR value is not a valid float\r\n");
    }
    let endless = "-ERR increment would produce NaN or Infinity\r\n";
    check(&["INCRBYFLOAT a inf"], endless);
    check(&["INCRBYFLOAT a 1e4932", "INCRBYFLOAT a 1e4932"], endless);
    let huge = "INCRBYFLOAT a 1e4900";
    check(&[huge, "INCRBYFLOAT a -1e4900"], "$1\r\n0\r\n");
}

#[test]
fn about_the_server() {
    check(&["PING"], "+PONG\r\n");
    check(&["ping hi"], "$2\r\nhi\r\n");
    check(&["ECHO hi"], "$2\r\nhi\r\n");
    check(&["SELECT 0"], "+OK\r\n");
    check(&["SELECT 15"], "+OK\r\n");
    check(&["SELECT 16"], "-ERR DB index is out of range\r\n");
    check(&["CONFIG GET save"], "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
    check(&["CONFIG GET nothing"], "*0\r\n");
    check(&["COMMAND DOCS nothing"], "*0\r\n");
    check(&["CLIENT GETNAME"], "$-1\r\n");
    check(&["CLIENT SETNAME me", "CLIENT GETNAME"], "$2\r\nme\r\n");
    check(&["CLIENT SETINFO LIB-NAME x"], "+OK\r\n");
    check(&["CLIENT ID"], ":1\r\n");
    check(
        &["CLIENT KILL"],
        "-ERR unknown subcommand or wrong number of arguments for 'client KILL'\r\n",
    );
    check(&["HELLO 4"], "-NOPROTO unsupported protocol version\r\n");
    check(
        &["HELLO x"],
        "-ERR Protocol version is not an integer or out of range\r\n",
    );
    check(&["HELLO 2 SETNAME me", "CLIENT GETNAME"], "$2\r\nme\r\n");
    check(
        &["HELLO 2 AUTH a b"],
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    );
    assert!(answers(b"HELLO 2\r\n").starts_with("*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n"));
    let count: usize = answers(b"COMMAND COUNT\r\n")[1..]
        .trim_end()
        .parse()
        .expect("a number");
    assert!(answers(b"COMMAND\r\n").starts_with(&format!("*{count}\r\n*10\r\n")));
    assert!(answers(b"SET a 1\r\nINFO\r\n").contains("db0:keys=1,"));
}

#[test]
fn errors_are_one_line() {
    check(
        &["GET"],
        "-ERR wrong number of arguments for 'get' command\r\n",
    );
    check(
        &["GET a b"],
        "-ERR wrong number of arguments for 'get' command\r\n",
    );
    check(
        &["NONSENSE a b"],
        "-ERR unknown command 'NONSENSE', with args beginning with: 'a' 'b' \r\n",
    );
    let tricky = answers(b"*2\r\n$4\r\nA\r\nB\r\n$3\r\n\xff\r\n\r\nPING\r\n");
    assert_eq!(
        tricky,
        "-ERR unknown command 'A\\r\\nB', with args beginning with: '\\xff\\r\\n' \r\n+PONG\r\n"
    );
    let long = format!("{} {}\r\n", "x".repeat(5000), "y ".repeat(3000));
    assert!(answers(long.as_bytes()).len() < 600);
}
