//! Several connections: transactions, databases, and what they see of each other.

use crate::common::{ROOMY, Table};
use kv_core::Limits;

#[test]
fn a_transaction_fails_if_another_connection_changed_what_it_watches() {
    for (change, fails) in [
        ("SET a 2", true),
        ("DEL a", true),
        ("EXPIRE a 100", true),
        ("FLUSHALL", true),
        ("RENAME a b", true),
        ("RENAME other a", true),
        ("SET b 2", false),
        ("GET a", false),
        ("SELECT 1\r\nSET a 2", false),
        ("PERSIST a", false),
    ] {
        let mut table = Table::new(ROOMY, 2);
        table.ask(0, "MSET a 1 other 1");
        table.check(0, "WATCH a", "+OK\r\n");
        table.ask(1, change);
        table.ask(0, "MULTI");
        table.check(0, "PING", "+QUEUED\r\n");
        let answer = if fails { "*-1\r\n" } else { "*1\r\n+PONG\r\n" };
        table.check(0, "EXEC", answer);
        // EXEC also ends the watches.
        table.ask(1, "SET a 9");
        table.ask(0, "MULTI");
        table.check(0, "EXEC", "*0\r\n");
    }
}

#[test]
fn what_a_connection_held_goes_with_it() {
    let mut table = Table::new(ROOMY, 2);
    for number in 0..1024 {
        table.check(0, &format!("WATCH key{number}"), "+OK\r\n");
    }
    assert!(table.ask(1, "WATCH more").starts_with("-OOM"));
    assert!(table.used() > 0);
    table.ask(0, "MULTI");
    table.ask(0, &format!("SET k {}", "v".repeat(1000)));
    let Table { server, clients } = &mut table;
    clients[0].end(server);
    table.check(1, "WATCH more", "+OK\r\n");
    table.check(1, "UNWATCH", "+OK\r\n");
    // The place is used by another connection, which has no transaction.
    table.check(0, "PING", "+PONG\r\n");
    assert_eq!(table.used(), 0);
}

#[test]
fn commands_that_wait_count_against_the_limit() {
    let limits = Limits {
        data: 1 << 20,
        buffers: 1 << 17,
    };
    let mut table = Table::new(limits, 2);
    table.ask(0, "MULTI");
    let queue = format!("SET k {}", "v".repeat(2000));
    let mut queued = 0;
    while table.ask(0, &queue) == "+QUEUED\r\n" {
        queued += 1;
        assert!(queued < 100, "no end");
    }
    assert!(queued > 10, "{queued}");
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    table.check(0, "EXEC", aborted);
    table.check(0, "EXISTS k", ":0\r\n");
    // The same is possible again, so the memory was given back.
    table.ask(0, "MULTI");
    for _ in 0..10 {
        table.check(0, &queue, "+QUEUED\r\n");
    }
    assert_eq!(table.ask(0, "EXEC").matches("+OK").count(), 10);
}

#[test]
fn replies_of_a_transaction_that_do_not_fit_end_its_connection() {
    let limits = Limits {
        data: 1 << 20,
        buffers: 1 << 17,
    };
    let mut table = Table::new(limits, 2);
    table.ask(0, &format!("SET k {}", "v".repeat(10_000)));
    table.ask(0, "MULTI");
    for _ in 0..50 {
        table.check(0, "GET k", "+QUEUED\r\n");
    }
    let answer = table.ask(0, "EXEC");
    assert!(answer.starts_with("*50\r\n$10000\r\n"));
    assert!(answer.contains("-OOM"));
    let Table { server, clients } = &mut table;
    clients[0].end(server);
    table.check(1, "PING", "+PONG\r\n");
    table.check(0, "STRLEN k", ":10000\r\n");
}

#[test]
fn client_list_tells_of_all() {
    let mut table = Table::new(ROOMY, 3);
    table.clients[1].set_peer("10.77.0.1:5000".parse().expect("an address"));
    table.server.set_time(5_000_000_000, 5_000_000_000);
    table.ask(0, "PING");
    table.ask(1, "HELLO 3 SETNAME second");
    table.ask(1, "CLIENT SETINFO LIB-NAME some-lib");
    table.ask(1, "SELECT 4");
    table.server.set_time(12_000_000_000, 12_000_000_000);
    table.ask(2, "MULTI");
    table.ask(2, "PING");
    let list = table.ask(0, "CLIENT LIST");
    let lines: Vec<_> = list.lines().filter(|it| it.starts_with("id=")).collect();
    assert_eq!(
        lines,
        [
            "id=1 addr=0.0.0.0:0 name= age=7 idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 cmd=client user=default resp=2 lib-name= lib-ver=",
            "id=2 addr=10.77.0.1:5000 name=second age=7 idle=7 flags=N db=4 sub=0 psub=0 ssub=0 multi=-1 cmd=select user=default resp=3 lib-name=some-lib lib-ver=",
            "id=3 addr=0.0.0.0:0 name= age=0 idle=0 flags=x db=0 sub=0 psub=0 ssub=0 multi=1 cmd=multi user=default resp=2 lib-name= lib-ver=",
        ]
    );
    let one = table.ask(0, "CLIENT LIST ID 2 99");
    assert_eq!(one.matches("id=").count(), 1, "{one}");
    assert!(one.contains("name=second"), "{one}");
    table.check(0, "CLIENT LIST TYPE pubsub", "$0\r\n\r\n");
    table.check(0, "CLIENT LIST NONSENSE 1", "-ERR syntax error\r\n");
    assert!(table.ask(1, "CLIENT INFO").starts_with("=1"));
    let Table { server, clients } = &mut table;
    clients[1].end(server);
    assert!(!table.ask(0, "CLIENT LIST").contains("id=2 "));
}

#[test]
fn resp3_has_its_own_types() {
    let mut table = Table::new(ROOMY, 1);
    let hello = table.ask(0, "HELLO 3 AUTH default any SETNAME me");
    assert!(hello.starts_with("%7\r\n$6\r\nserver\r\n"), "{hello}");
    table.check(0, "CLIENT GETNAME", "$2\r\nme\r\n");
    table.check(0, "GET none", "_\r\n");
    table.check(0, "LPOP none 2", "_\r\n");
    table.ask(0, "HSET h f v");
    table.check(0, "HGETALL h", "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    table.ask(0, "SADD s m");
    table.check(0, "SMEMBERS s", "~1\r\n$1\r\nm\r\n");
    table.ask(0, "ZADD z 1.5 m");
    table.check(0, "ZSCORE z m", ",1.5\r\n");
    table.check(
        0,
        "ZRANGE z 0 -1 WITHSCORES",
        "*1\r\n*2\r\n$1\r\nm\r\n,1.5\r\n",
    );
    assert!(table.ask(0, "INFO server").starts_with("="));
    assert!(
        table
            .ask(0, "COMMAND DOCS get set")
            .starts_with("%2\r\n$3\r\nget\r\n%2\r\n")
    );
    table.check(0, "RESET", "+RESET\r\n");
    table.check(0, "GET none", "$-1\r\n");
    table.check(0, "CLIENT GETNAME", "$-1\r\n");
}
