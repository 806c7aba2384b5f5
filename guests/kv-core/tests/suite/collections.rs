//! Stored data: its memory, its order, and scans while it changes.

use std::collections::HashSet;

use crate::common::{ROOMY, Random, Table, command, encoded};
use kv_core::Limits;

/// Memory for every kind of value is paid for, and given back by the command that removes the last of
/// it, whichever command that is.
#[test]
fn memory_comes_back_to_the_last_byte() {
    for (fill, empty) in [
        ("SET k some-value", "DEL k"),
        ("APPEND k some-value", "GETDEL k"),
        ("RPUSH k a bb ccc", "LPOP k 3"),
        ("RPUSH k a bb ccc", "LTRIM k 5 9"),
        ("LPUSH k a bb ccc", "UNLINK k"),
        ("HSET k f v gg ww", "HDEL k f gg"),
        ("HSET k f v f longer", "DEL k"),
        ("SADD k a bb ccc", "SREM k ccc a bb"),
        ("SADD k a bb ccc", "SPOP k 9"),
        ("ZADD k 1 a 2 bb 1 ccc", "ZREM k bb a ccc"),
        ("ZADD k 1 a 2 bb 1 ccc", "ZPOPMAX k 9"),
        ("SET k v EX 100", "DEL k"),
        ("SET k v EX 100", "FLUSHDB"),
        ("HSET k f v", "RENAME k j\r\nDEL j"),
        ("SET k v EX 100", "RENAME k other\r\nFLUSHALL"),
        ("ZADD k 1 a", "SET k v\r\nDEL k"),
        ("SELECT 3\r\nLPUSH k v", "FLUSHALL"),
    ] {
        let mut table = Table::new(ROOMY, 1);
        for _ in 0..3 {
            table.ask(0, fill);
            assert!(table.used() > 0, "{fill}");
            table.ask(0, empty);
            assert_eq!(table.used(), 0, "{fill}, {empty}");
        }
    }
}

/// Every kind of collection refuses with an error what exceeds the limit, and keeps what it had.
#[test]
fn collections_end_at_the_limit() {
    let limits = Limits {
        data: 1 << 20,
        buffers: 1 << 20,
    };
    for (add, count) in [
        ("RPUSH k member#", "LLEN k"),
        ("HSET k member# value", "HLEN k"),
        ("SADD k member#", "SCARD k"),
        ("ZADD k # member#", "ZCARD k"),
        ("SET member# v EX 1000", "DBSIZE"),
    ] {
        let mut table = Table::new(limits, 1);
        let mut added = 0;
        let refused = loop {
            let answer = table.ask(0, &add.replace('#', &added.to_string()));
            if answer.starts_with('-') {
                break answer;
            }
            added += 1;
            assert!(added < 100_000, "{add}: no end");
        };
        assert!(refused.starts_with("-OOM "), "{add}: {refused}");
        assert!(added > 1000, "{add}: only {added}");
        let there = table.ask(0, count);
        let there: i64 = there[1..].trim_end().parse().expect("a number");
        // After SET the key may exist without its deadline, if there was no memory for the deadline.
        assert!((added..=added + 1).contains(&there), "{add}: {there}");
        table.check(0, "FLUSHALL", "+OK\r\n");
        assert_eq!(table.used(), 0, "{add}");
    }
}

/// A scan misses nothing that stays in the table, whatever else is added or removed.
#[test]
fn a_scan_misses_nothing_that_stays() {
    let mut random = Random::new();
    for (add, remove, scan) in [
        ("SET #", "DEL #", "SCAN"),
        ("SADD k #", "SREM k #", "SSCAN k"),
        ("HSET k #", "HDEL k #", "HSCAN k"),
        ("ZADD k 1 #", "ZREM k #", "ZSCAN k"),
    ] {
        let mut table = Table::new(ROOMY, 1);
        let change = |table: &mut Table, template: &str, name: &str| {
            let value = if template.starts_with("SET")
                || template.starts_with('H') && template.contains("SET")
            {
                " v"
            } else {
                ""
            };
            table.ask(0, &(template.replace('#', name) + value))
        };
        for number in 0..200 {
            change(&mut table, add, &format!("stays{number}"));
            change(&mut table, add, &format!("goes{number}"));
        }
        let (mut cursor, mut found) = ("0".to_owned(), HashSet::new());
        let mut rounds = 0;
        loop {
            let answer = table.ask(0, &format!("{scan} {cursor} COUNT 7"));
            let mut words = answer
                .split("\r\n")
                .filter(|it| !it.starts_with(['*', '$']));
            cursor = words.next().expect("a cursor").to_owned();
            found.extend(words.map(str::to_owned));
            rounds += 1;
            if cursor == "0" {
                break;
            }
            for _ in 0..5 {
                let name = format!("goes{}", random.below(200));
                change(&mut table, remove, &name);
                let name = format!("comes{}", random.below(200));
                change(&mut table, add, &name);
            }
        }
        assert!(rounds > 30, "{scan}: {rounds} rounds");
        for number in 0..200 {
            assert!(
                found.contains(&format!("stays{number}")),
                "{scan}: {number}"
            );
        }
    }
}

/// Random commands in little memory cause no panic and lose no byte, and twice have the same result.
#[test]
fn random_commands_in_little_memory() {
    let mut random = Random::new();
    let commands: Vec<_> = (0..60_000)
        .map(|_| encoded(&command(&mut random)))
        .collect();
    let limits = Limits {
        data: 2500,
        buffers: 1 << 16,
    };
    let run = || {
        let mut table = Table::new(limits, 1);
        let mut all = String::new();
        for command in &commands {
            table.clients[0].input(command, &mut table.server);
            all += &table.ask(0, "INFO memory");
            all += &table.ask(0, "SRANDMEMBER a -2");
            all += &table.ask(0, "RANDOMKEY");
        }
        table.check(0, "FLUSHALL", "+OK\r\n");
        assert_eq!(table.used(), 0);
        all
    };
    let first = run();
    assert!(first.contains("-OOM"), "the limit was reached");
    assert!(first == run(), "the same commands, other answers");
}

/// What a command has written before memory ran out is removed: one command, one reply.
#[test]
fn an_error_is_the_only_reply() {
    let limits = Limits {
        data: 1000,
        buffers: 1 << 16,
    };
    let mut table = Table::new(limits, 1);
    table.check(0, "SET k old", "+OK\r\n");
    let long = "v".repeat(2000);
    for command in [format!("SET k {long} GET"), format!("GETSET k {long}")] {
        let answer = table.ask(0, &command);
        assert!(answer.starts_with("-OOM "), "{answer}");
        assert_eq!(answer.matches("\r\n").count(), 1, "{answer}");
        table.check(0, "GET k", "$3\r\nold\r\n");
    }
}
