use super::*;

const P: MemberId = MemberId(1);
const B: MemberId = MemberId(u128::MAX);
const OTHER: MemberId = MemberId(3);

fn record() -> OpenRecord {
    let members = Members {
        primary: P,
        backup: Some(B),
    };
    OpenRecord {
        vm: "demo".into(),
        generation: 7,
        members,
        nonce: Nonce(0xabc),
        at: 1 << 60,
    }
}

#[test]
fn records_are_readable_and_come_back() {
    let text = record().encode();
    let wanted = "lockstep-open: 1\nvm: demo\ngeneration: 7\n\
        primary: 00000000000000000000000000000001\nbackup: ffffffffffffffffffffffffffffffff\n\
        nonce: 00000000000000000000000000000abc\nat-ns: 1152921504606846976\n";
    assert_eq!(text, wanted);
    assert_eq!(OpenRecord::decode(&text, "demo", 7), Ok(record()));
    let alone = OpenRecord {
        members: Members {
            primary: P,
            backup: None,
        },
        ..record()
    };
    assert_eq!(OpenRecord::decode(&alone.encode(), "demo", 7), Ok(alone));
    let claim = Claim { claimant: B, at: 5 };
    assert_eq!(
        Claim::decode(&claim.encode("demo", 7), "demo", 7),
        Ok(claim)
    );
    let close = Close { member: P, at: 5 };
    assert_eq!(
        Close::decode(&close.encode("demo", 7), "demo", 7),
        Ok(close)
    );
}

#[test]
fn a_record_for_something_else_is_refused() {
    let text = record().encode();
    for (vm, generation) in [("demo", 8), ("other", 7)] {
        let error = OpenRecord::decode(&text, vm, generation).unwrap_err();
        assert!(matches!(error, ArbiterError::WrongRecord { .. }), "{error}");
    }
    assert!(Claim::decode(&text, "demo", 7).is_err());
}

#[test]
fn a_record_with_any_byte_changed_cut_or_added_is_refused_or_says_something_else() {
    let text = record().encode();
    for cut in 0..text.len() {
        assert!(
            OpenRecord::decode(&text[..cut], "demo", 7).is_err(),
            "cut at {cut}"
        );
    }
    for at in 0..text.len() {
        for byte in [b'x', b'0', b'\n', b' '] {
            let mut bytes = text.clone().into_bytes();
            if bytes[at] == byte {
                continue;
            }
            bytes[at] = byte;
            let bad = String::from_utf8(bytes).unwrap();
            assert_ne!(
                OpenRecord::decode(&bad, "demo", 7),
                Ok(record()),
                "byte {at}"
            );
        }
    }
    for more in ["x", "\n\n", "at-ns: 3\n"] {
        assert!(OpenRecord::decode(&format!("{text}{more}"), "demo", 7).is_err());
    }
    let newer = text.replace("open: 1", "open: 2");
    let error = OpenRecord::decode(&newer, "demo", 7).unwrap_err();
    assert!(error.to_string().contains("version 1"), "{error}");
}

#[test]
fn names_that_could_leave_a_directory_or_a_line_are_refused() {
    for name in ["demo", "a", "VM-1_b.c", &"x".repeat(MAX_VM_NAME)] {
        assert_eq!(check_vm_name(name), Ok(()));
    }
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a\nb",
        "-x",
        "é",
        "a b",
        &"x".repeat(MAX_VM_NAME + 1),
    ] {
        assert!(check_vm_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn record_names_come_back_and_no_other_is_one() {
    for (kind, name) in [
        (RecordKind::Open, "7.open"),
        (RecordKind::Claim, "7.claim"),
        (RecordKind::Close, "7.close"),
        (RecordKind::Start, "7.start"),
    ] {
        let parsed = RecordName {
            generation: 7,
            kind,
        };
        assert_eq!(parsed.to_string(), name);
        assert_eq!(name.parse(), Ok(parsed));
    }
    for name in [
        "",
        "7",
        ".open",
        "07.open",
        "+7.open",
        "7.opened",
        "7.open.tmp",
        "-1.claim",
    ] {
        assert!(name.parse::<RecordName>().is_err(), "{name:?}");
    }
}

#[test]
fn an_own_record_is_opened_however_often_it_is_asked_for() {
    let earlier = OpenRecord { at: 3, ..record() };
    assert_eq!(judge_open(&record(), earlier), OpenAnswer::Opened);
    for found in [
        OpenRecord {
            nonce: Nonce(1),
            ..record()
        },
        OpenRecord {
            members: Members {
                primary: OTHER,
                backup: None,
            },
            ..record()
        },
    ] {
        let wanted = OpenAnswer::AlreadyOpen {
            record: found.clone(),
        };
        assert_eq!(judge_open(&record(), found), wanted);
    }
}

#[test]
fn the_first_claimant_wins_and_goes_on_winning() {
    let claim = Claim { claimant: B, at: 0 };
    assert_eq!(judge_claim(B, &claim), ClaimAnswer::Won);
    assert_eq!(judge_claim(P, &claim), ClaimAnswer::Lost { by: B });
}

#[test]
fn only_the_two_members_may_ask() {
    let may = |record: Option<&OpenRecord>, member| may_claim("demo", 7, record, None, member);
    assert_eq!(may(Some(&record()), P), Ok(()));
    assert_eq!(may(Some(&record()), B), Ok(()));
    assert!(matches!(
        may(Some(&record()), OTHER),
        Err(ClaimAnswer::Refused(_))
    ));
    let alone = OpenRecord {
        members: Members {
            primary: P,
            backup: None,
        },
        ..record()
    };
    assert!(matches!(may(Some(&alone), B), Err(ClaimAnswer::Refused(_))));
}

#[test]
fn a_generation_whose_record_is_gone_is_nobodys() {
    let may = |claim, member| may_claim("demo", 7, None, claim, member);
    let claim = Claim { claimant: B, at: 0 };
    assert_eq!(may(Some(&claim), P), Err(ClaimAnswer::Lost { by: B }));
    // One's own claim proves nothing: who won may have been lost with the record.
    for (claim, member) in [(None, P), (None, OTHER), (Some(&claim), B)] {
        let Err(ClaimAnswer::Missing(why)) = may(claim, member) else {
            panic!("{claim:?}, {member}");
        };
        assert!(why.contains("7.open") && why.contains("VM demo"), "{why}");
    }
}

#[test]
fn a_look_tells_what_is_gone_and_what_is_others() {
    let record = record();
    let right = crate::transfer::Right {
        generation: 7,
        members: record.members,
        nonce: record.nonce,
    };
    let look = |won, open, claim| {
        let standing = Standing { right, won };
        judge_look("demo", &standing, P, open, claim)
    };
    let [ours, theirs] = [P, B].map(|claimant| Claim { claimant, at: 0 });
    assert_eq!(look(false, Some(&record), None), Look::Sound);
    assert_eq!(look(true, Some(&record), Some(&ours)), Look::Sound);
    for (won, open, claim, gone) in [
        (false, None, None, "7.open"),
        (true, None, Some(&ours), "7.open"),
        (true, None, None, "7.open"),
        (true, Some(&record), None, "7.claim"),
    ] {
        let Look::Missing(why) = look(won, open, claim) else {
            panic!("{won} {open:?} {claim:?}");
        };
        assert!(why.contains(gone), "{why}");
    }
    let forced = OpenRecord {
        nonce: Nonce(1),
        ..record.clone()
    };
    for (won, open, claim) in [
        (false, Some(&forced), None),
        (false, Some(&record), Some(&theirs)),
        (false, None, Some(&theirs)),
        (true, Some(&record), Some(&theirs)),
    ] {
        let found = look(won, open, claim);
        assert!(matches!(found, Look::Others(_)), "{found:?}");
    }
}

#[test]
fn a_generation_that_no_vm_reaches_is_refused() {
    let latest = |generation| Latest {
        generation,
        record: Some(OpenRecord {
            generation,
            ..record()
        }),
        claimed: false,
        closed: true,
    };
    let last = latest(MAX_GENERATION);
    assert_eq!(
        next_generation("demo", Some(&last), false),
        Ok(MAX_GENERATION + 1)
    );
    for generation in [MAX_GENERATION + 1, u64::MAX] {
        let refused = next_generation("demo", Some(&latest(generation)), true).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&format!("{generation}.open")), "{text}");
    }
}

#[test]
fn a_cold_start_opens_the_next_generation_unless_the_last_is_open() {
    let latest = |claimed, closed| Latest {
        generation: 7,
        record: Some(record()),
        claimed,
        closed,
    };
    let next = |latest: &Latest, force| next_generation("demo", Some(latest), force);
    assert_eq!(next_generation("demo", None, false), Ok(1));
    assert_eq!(next(&latest(false, true), false), Ok(8));
    assert_eq!(next(&latest(true, true), false), Ok(8));
    assert_eq!(next(&latest(true, false), true), Ok(8));
    for (closed, force, wanted) in [
        (true, false, Some(8)),
        (false, true, Some(8)),
        (false, false, None),
    ] {
        let vanished = Latest {
            record: None,
            ..latest(true, closed)
        };
        let found = next(&vanished, force);
        assert_eq!(found.as_ref().ok().copied(), wanted, "{found:?}");
        let told = found.map_or_else(|e| e.to_string(), |_| "7.open".into());
        assert!(told.contains("7.open"), "{told}");
    }
    for claimed in [false, true] {
        let error = next(&latest(claimed, false), false).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("generation 7") && text.contains("--force"),
            "{text}"
        );
        assert_eq!(text.contains("runs alone"), claimed, "{text}");
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_start_record_is_readable_and_comes_back() {
    for listen in ["192.168.9.1:7700", "[fd00::1]:7700"] {
        let record = StartRecord {
            listen: address(listen),
            at: 5,
        };
        let text = record.encode("demo");
        let wanted =
            format!("lockstep-start: 1\nvm: demo\ngeneration: 1\nlisten: {listen}\nat-ns: 5\n");
        assert_eq!(text, wanted);
        assert_eq!(StartRecord::decode(&text, "demo"), Ok(record));
        assert!(StartRecord::decode(&text, "other").is_err());
        for cut in 0..text.len() {
            let cut = StartRecord::decode(&text[..cut], "demo");
            assert!(cut.is_err(), "{cut:?}");
        }
        for bad in ["192.168.9.1", "host:7700", "192.168.09.1:7700", ""] {
            let bad = StartRecord::decode(&text.replace(listen, bad), "demo").unwrap_err();
            assert!(bad.to_string().starts_with("line 4"), "{bad}");
        }
    }
}

#[test]
fn a_vm_that_ever_had_a_generation_is_nobodys_to_boot() {
    let latest = |claimed, closed| Latest {
        generation: 7,
        record: Some(record()),
        claimed,
        closed,
    };
    for claimed in [false, true] {
        assert_eq!(judge_latest(&latest(claimed, false)), Role::Backup);
        let ended = Role::Ended { generation: 7 };
        assert_eq!(judge_latest(&latest(claimed, true)), ended);
    }
}

#[test]
fn the_founder_is_who_listens_where_the_start_record_says() {
    let (one, two) = (address("192.168.9.1:7700"), address("192.168.9.2:7700"));
    let start = |listen| StartRecord { listen, at: 0 };
    assert_eq!(
        judge_start("demo", one, two, &start(one)),
        Ok(Role::Founder)
    );
    assert_eq!(judge_start("demo", two, one, &start(one)), Ok(Role::Backup));
    let elsewhere = start(address("192.168.9.1:7701"));
    let refused = judge_start("demo", one, two, &elsewhere).unwrap_err();
    assert!(
        refused.to_string().contains("192.168.9.1:7701"),
        "{refused}"
    );
}
