//! The text of a status, as members have answered since there is one.

use super::golden::progress;
use crate::{
    BackupStatus, LinkState, MemberStatus, NetworkStatus, PrimaryStatus, RecordStatus, RoleStatus,
};
use ft_protocol::arbiter::{MemberId, Nonce};

fn record() -> RecordStatus {
    RecordStatus {
        generation: 3,
        primary: MemberId(1),
        backup: Some(MemberId(2)),
        nonce: Nonce(0xabc),
        won: true,
        holds: false,
    }
}

fn primary() -> MemberStatus {
    MemberStatus {
        vm: "shop".into(),
        member: MemberId(1),
        state: "alone, copying".into(),
        generation: 3,
        longest_silence_ms: 21.5,
        network: Some(NetworkStatus {
            tap: "tap0".into(),
            link: LinkState::Up,
            dropped: 1,
            foreign: 2,
            over_rate: 3,
        }),
        records: Some("the record 3.open of VM shop is gone from the arbiter".into()),
        record: Some(record()),
        role: RoleStatus::Primary(PrimaryStatus {
            lag_ms: 0.0,
            throttle_percent: 5,
            held_outputs: 6,
            window_stalls: 7,
            gate_stalls: 8,
            copy: Some(progress()),
        }),
    }
}

fn backup() -> MemberStatus {
    MemberStatus {
        vm: "shop".into(),
        member: MemberId(2),
        state: "connecting".into(),
        generation: 0,
        longest_silence_ms: 0.0,
        network: None,
        records: None,
        record: None,
        role: RoleStatus::Backup(BackupStatus {
            received: 9,
            copied_bytes: 10,
        }),
    }
}

const PRIMARY: &str = r#"{"copy":{"bytes_sent":10276045,"dirty_mib_s":20.0,"estimated_pause_ms":1.75,"pages":300,"pages_sent":65836,"rate_mib_s":412.5,"round":2,"zero_pages":60000},"gate_stalls":8,"generation":3,"held_outputs":6,"lag_ms":0.0,"longest_silence_ms":21.5,"member":"00000000000000000000000000000001","network":{"dropped":1,"foreign":2,"link":"up","over_rate":3,"tap":"tap0"},"record":{"backup":"00000000000000000000000000000002","generation":3,"holds":false,"nonce":"00000000000000000000000000000abc","primary":"00000000000000000000000000000001","won":true},"records":"the record 3.open of VM shop is gone from the arbiter","state":"alone, copying","throttle_percent":5,"vm":"shop","window_stalls":7}"#;
const BACKUP: &str = r#"{"copied_bytes":10,"generation":0,"longest_silence_ms":0.0,"member":"00000000000000000000000000000002","network":null,"received":9,"record":null,"records":null,"state":"connecting","vm":"shop"}"#;

#[test]
fn a_status_is_the_text_that_it_was_and_reads_back_as_itself() {
    for (status, text) in [(primary(), PRIMARY), (backup(), BACKUP)] {
        assert_eq!(status.to_string(), text);
        assert_eq!(MemberStatus::read(text.as_bytes()).unwrap(), status);
    }
    let mut still = primary();
    let RoleStatus::Primary(PrimaryStatus { copy, .. }) = &mut still.role else {
        unreachable!("it is a primary");
    };
    *copy = None;
    let text = still.to_string();
    assert!(text.starts_with(r#"{"copy":null,"gate_stalls""#), "{text}");
    assert_eq!(MemberStatus::read(text.as_bytes()).unwrap(), still);
}

#[test]
fn a_primary_that_ran_alone_from_the_start_has_no_backup_in_its_record() {
    let mut solo = primary();
    let alone = RecordStatus {
        backup: None,
        ..record()
    };
    solo.record = Some(alone);
    let text = solo.to_string();
    assert!(text.contains(r#""record":{"backup":null,"#), "{text}");
    assert_eq!(MemberStatus::read(text.as_bytes()).unwrap(), solo);
}

#[test]
fn a_record_is_the_standing_that_it_was_made_from() {
    let standing = record().standing();
    assert_eq!(RecordStatus::new(&standing, false), record());
    assert!(standing.won && standing.right.members.contains(MemberId(2)));
}

/// A member of a later version is seen by an operator with this one.
#[test]
fn more_in_a_status_is_left_out_and_less_is_refused() {
    let more = PRIMARY.replace(r#"{"copy""#, r#"{"colour":"red","copy""#);
    assert_eq!(MemberStatus::read(more.as_bytes()).unwrap(), primary());
    for (all, gone) in [
        (PRIMARY, r#""generation":3,"held"#),
        (BACKUP, r#""received":9,"#),
        (BACKUP, r#""state":"connecting","#),
    ] {
        let less = all.replace(
            gone,
            if gone.ends_with("held") {
                r#""held"#
            } else {
                ""
            },
        );
        assert_ne!(less, all);
        let refusal = MemberStatus::read(less.as_bytes()).unwrap_err().to_string();
        assert!(
            refusal.starts_with("a member's status cannot be read: "),
            "{refusal}"
        );
    }
    assert!(MemberStatus::read(b"error there is no such request\n").is_err());
}
