//! An example of each event, and the line that members have written for it since there are events.

use crate::{CopyProgress, Event, LinkState};
use ft_protocol::arbiter::MemberId;
use std::collections::BTreeMap;

/// When the events of the lines happened.
pub const MONO_NS: u64 = 7_798_509_494_453;

pub fn progress() -> CopyProgress {
    CopyProgress {
        round: 2,
        pages: 300,
        pages_sent: 65_836,
        zero_pages: 60_000,
        bytes_sent: 10_276_045,
        rate_mib_s: 412.5,
        dirty_mib_s: 20.0,
        estimated_pause_ms: 1.75,
    }
}

/// Each event, with its line.
#[rustfmt::skip]
pub fn golden() -> Vec<(Event, &'static str)> {
    let member = MemberId(0x6ff0_0000_0000_0000_0000_0000_0000_00ab);
    let generation = 3;
    let reason = || "it was silent for 251 ms".to_owned();
    let why = || "the record 3.open of VM shop is gone from the arbiter".to_owned();
    let tap = || "tap0".to_owned();
    let parts = BTreeMap::from([("memory".to_owned(), "00000000000000ff".to_owned())]);
    vec![
        (Event::Waiting { member }, r#"{"event":"waiting","member":"6ff000000000000000000000000000ab","mono_ns":7798509494453}"#),
        (Event::Started { generation }, r#"{"event":"started","generation":3,"mono_ns":7798509494453}"#),
        (Event::Lag { lag_ms: 26.5, throttle_percent: 40 }, r#"{"event":"lag","lag_ms":26.5,"mono_ns":7798509494453,"throttle_percent":40}"#),
        (Event::HandedOver { generation }, r#"{"event":"handed_over","generation":3,"mono_ns":7798509494453}"#),
        (Event::BackupLost { reason: reason() }, r#"{"event":"backup_lost","mono_ns":7798509494453,"reason":"it was silent for 251 ms"}"#),
        (Event::Solo { generation }, r#"{"event":"solo","generation":3,"mono_ns":7798509494453}"#),
        (Event::ClaimLost { generation }, r#"{"event":"claim_lost","generation":3,"mono_ns":7798509494453}"#),
        (Event::Connecting { member }, r#"{"event":"connecting","member":"6ff000000000000000000000000000ab","mono_ns":7798509494453}"#),
        (Event::Joined { generation }, r#"{"event":"joined","generation":3,"mono_ns":7798509494453}"#),
        (Event::Joining { generation }, r#"{"event":"joining","generation":3,"mono_ns":7798509494453}"#),
        (Event::Copying(progress()), r#"{"bytes_sent":10276045,"dirty_mib_s":20.0,"estimated_pause_ms":1.75,"event":"copying","mono_ns":7798509494453,"pages":300,"pages_sent":65836,"rate_mib_s":412.5,"round":2,"zero_pages":60000}"#),
        (Event::Copied { pause_ms: 3.5, progress: progress() }, r#"{"event":"copied","mono_ns":7798509494453,"pause_ms":3.5,"progress":{"bytes_sent":10276045,"dirty_mib_s":20.0,"estimated_pause_ms":1.75,"pages":300,"pages_sent":65836,"rate_mib_s":412.5,"round":2,"zero_pages":60000}}"#),
        (Event::Protected { generation }, r#"{"event":"protected","generation":3,"mono_ns":7798509494453}"#),
        (Event::CopyEnded {}, r#"{"event":"copy_ended","mono_ns":7798509494453}"#),
        (Event::Suspect { reason: reason() }, r#"{"event":"suspect","mono_ns":7798509494453,"reason":"it was silent for 251 ms"}"#),
        (Event::Withdraw {}, r#"{"event":"withdraw","mono_ns":7798509494453}"#),
        (Event::CaughtUp { position: 334, edges: 0 }, r#"{"edges":0,"event":"caught_up","mono_ns":7798509494453,"position":334}"#),
        (Event::TakesOver {}, r#"{"event":"takes_over","mono_ns":7798509494453}"#),
        (Event::ClaimWon { generation }, r#"{"event":"claim_won","generation":3,"mono_ns":7798509494453}"#),
        (Event::Silence { longest_ms: 41.25 }, r#"{"event":"silence","longest_ms":41.25,"mono_ns":7798509494453}"#),
        (Event::Unreachable { why: why() }, r#"{"event":"unreachable","mono_ns":7798509494453,"why":"the record 3.open of VM shop is gone from the arbiter"}"#),
        (Event::RecordMissing { why: why() }, r#"{"event":"record_missing","mono_ns":7798509494453,"why":"the record 3.open of VM shop is gone from the arbiter"}"#),
        (Event::RecordBack {}, r#"{"event":"record_back","mono_ns":7798509494453}"#),
        (Event::FenceFailed { why: why() }, r#"{"event":"fence_failed","mono_ns":7798509494453,"why":"the record 3.open of VM shop is gone from the arbiter"}"#),
        (Event::Left {}, r#"{"event":"left","mono_ns":7798509494453}"#),
        (Event::Live { generation, reemitted: 1, shadowed: 2 }, r#"{"event":"live","generation":3,"mono_ns":7798509494453,"reemitted":1,"shadowed":2}"#),
        (Event::Network { tap: tap(), link: LinkState::Down, why: None }, r#"{"event":"network","link":"down","mono_ns":7798509494453,"tap":"tap0"}"#),
        (Event::Network { tap: tap(), link: LinkState::Up, why: None }, r#"{"event":"network","link":"up","mono_ns":7798509494453,"tap":"tap0"}"#),
        (Event::Network { tap: tap(), link: LinkState::Gone, why: Some("it was removed".into()) }, r#"{"event":"network","link":"gone","mono_ns":7798509494453,"tap":"tap0","why":"it was removed"}"#),
        (Event::Diverged { position: 9, edges: 77, what: "RIP differs".into(), parts: Some(parts) }, r#"{"edges":77,"event":"diverged","mono_ns":7798509494453,"parts":{"memory":"00000000000000ff"},"position":9,"what":"RIP differs"}"#),
        (Event::Diverged { position: 9, edges: 77, what: "RIP differs".into(), parts: None }, r#"{"edges":77,"event":"diverged","mono_ns":7798509494453,"parts":null,"position":9,"what":"RIP differs"}"#),
        (Event::EventsLost { count: 4, why: "File too large (os error 27)".into() }, r#"{"count":4,"event":"events_lost","mono_ns":7798509494453,"why":"File too large (os error 27)"}"#),
        (Event::Ended { status: 0 }, r#"{"event":"ended","mono_ns":7798509494453,"status":0}"#),
    ]
}
