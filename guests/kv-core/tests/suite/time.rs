//! Keys that expire, by the server's time.

use crate::common::{ROOMY, Table};

/// 2026-01-01, nanoseconds since 1970: the time at which the machine booted.
const BOOT_NS: u64 = 1_767_225_600_000_000_000;
const MS: u64 = 1_000_000;

fn set_time(table: &mut Table, ms: u64) -> Option<u64> {
    table.server.set_time(ms * MS, BOOT_NS + ms * MS);
    table.server.run(ms * MS)
}

#[test]
fn a_key_expires_when_its_milliseconds_are_over() {
    let mut table = Table::new(ROOMY, 1);
    assert_eq!(set_time(&mut table, 1000), None);
    table.check(0, "SET a v PX 500", "+OK\r\n");
    table.check(0, "SET b v EX 10", "+OK\r\n");
    table.check(0, "SET c v", "+OK\r\n");
    table.check(0, "PEXPIRETIME a", ":1767225601500\r\n");
    // It must be called again when the first key has expired.
    assert_eq!(table.server.run(1000 * MS), Some(1501 * MS));
    assert_eq!(set_time(&mut table, 1500), Some(1501 * MS));
    table.check(0, "PTTL a", ":0\r\n");
    table.check(0, "GET a", "$1\r\nv\r\n");
    assert_eq!(set_time(&mut table, 1501), Some(11_001 * MS));
    table.check(0, "GET a", "$-1\r\n");
    table.check(0, "PTTL a", ":-2\r\n");
    table.check(0, "DBSIZE", ":2\r\n");
    table.check(0, "TTL b", ":9\r\n");
    table.check(0, "PERSIST b", ":1\r\n");
    assert_eq!(set_time(&mut table, 1_000_000), None);
    table.check(0, "DBSIZE", ":2\r\n");
    assert!(table.ask(0, "INFO stats").contains("expired_keys:1\r\n"));
    table.check(0, "TIME", "*2\r\n$10\r\n1767226600\r\n$1\r\n0\r\n");
}

#[test]
fn expired_keys_pay_back_what_they_took() {
    let mut table = Table::new(ROOMY, 1);
    set_time(&mut table, 0);
    for db in 0..16 {
        table.ask(0, &format!("SELECT {db}"));
        for key in 0..100 {
            table.ask(0, &format!("HSET k{key} field value"));
            table.ask(0, &format!("PEXPIRE k{key} {}", 1 + key % 10));
        }
    }
    assert!(table.used() > 16 * 100 * 100);
    assert_eq!(set_time(&mut table, 5), Some(6 * MS));
    table.check(0, "DBSIZE", ":60\r\n");
    assert_eq!(set_time(&mut table, 11), None);
    table.check(0, "DBSIZE", ":0\r\n");
    assert_eq!(table.used(), 0);
}

#[test]
fn an_expired_key_is_a_changed_one_for_those_who_watch_it() {
    let mut table = Table::new(ROOMY, 1);
    set_time(&mut table, 0);
    table.ask(0, "SET a v PX 10");
    table.check(0, "WATCH a", "+OK\r\n");
    set_time(&mut table, 11);
    table.ask(0, "MULTI");
    table.ask(0, "PING");
    table.check(0, "EXEC", "*-1\r\n");
}

#[test]
fn far_deadlines_overflow_nothing() {
    let mut table = Table::new(ROOMY, 1);
    set_time(&mut table, 0);
    table.ask(0, "SET a v PXAT 9223372036854775807");
    table.check(0, "PEXPIRETIME a", ":9223372036854775807\r\n");
    table.check(0, "EXPIRETIME a", ":9223372036854775\r\n");
    assert!(table.server.run(0) > Some(1 << 60));
    assert!(table.ask(0, "TTL a").starts_with(":9223370"));
    table.ask(0, "SET b v");
    table.check(0, "PEXPIREAT b -9223372036854775808", ":1\r\n");
    table.check(0, "EXISTS b", ":0\r\n");
}
