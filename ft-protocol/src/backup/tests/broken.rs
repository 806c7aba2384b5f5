//! The primary breaks the protocol.

use super::*;

/// That this message breaks the channel of an armed backup, and nothing of it is acknowledged.
fn breaks(mut rig: Rig, message: Message) {
    let before = rig.backup.received();
    let actions = rig.say(message.clone());
    assert!(
        matches!(
            &actions[..],
            [A::Disconnect, A::Turn(T::Suspect(Loss::Broke(_))), ..]
        ),
        "{message:?}: {actions:?}"
    );
    assert_eq!(rig.backup.received(), before);
    // The channel is closed for good, so nothing that comes now withdraws the suspicion.
    assert_eq!(rig.say(Message::Heartbeat), []);
}

#[test]
fn a_primary_that_breaks_the_protocol_is_suspected() {
    for message in [
        welcome(5),
        Message::Ready,
        Message::Refuse {
            reason: "no".into(),
        },
    ] {
        breaks(Rig::behind(2), message);
    }
    breaks(
        Rig::behind(2),
        Message::Ack {
            received: 1,
            consumed: 1,
            executed: 0,
        },
    );
    breaks(Rig::behind(2), Message::Bye);
}

#[test]
fn a_log_that_is_damaged_reordered_lost_or_repeated_is_not_acknowledged() {
    let progress = |at| entry(at, Event::Progress);
    let log = |first: u64, entries: &[Entry], cut: usize, flip: Option<usize>| {
        let mut rig = Rig::behind(2);
        rig.next_seq = first;
        let mut frames = rig.frames(entries);
        frames.truncate(frames.len() - cut);
        if let Some(at) = flip {
            frames[at] ^= 1;
        }
        breaks(rig, Message::Log { frames });
    };
    log(4, &[progress(5)], 0, None);
    log(2, &[progress(5)], 0, None);
    log(3, &[progress(5), progress(6)], 1, None);
    log(3, &[progress(0)], 0, None);
    log(3, &[progress(5), progress(4)], 0, None);
    log(3, &[entries().pop().unwrap(), progress(u64::MAX)], 0, None);
    for at in 0..40 {
        log(3, &[progress(5), progress(6)], 0, Some(at));
    }
    let mut rig = Rig::behind(2);
    let mut frames = rig.frames(&[progress(5)]);
    codec::encode_frame(4, b"no entry", &mut frames);
    breaks(rig, Message::Log { frames });
    let mut rig = at_the_end();
    let frames = rig.frames(&[progress(u64::MAX)]);
    breaks(rig, Message::Log { frames });
}

#[test]
fn a_primary_that_sends_more_than_the_buffer_holds_is_suspected() {
    let mut rig = Rig::following();
    let big = entry(
        1,
        Event::Frame {
            data: vec![0; MAX_ENTRY_PAYLOAD / 2],
        },
    );
    let fits = BUFFER_BYTES as usize / (MAX_ENTRY_PAYLOAD / 2) - 1;
    for _ in 0..fits {
        assert!(matches!(
            rig.log(std::slice::from_ref(&big))[..],
            [A::Deliver(_), A::Send(_)]
        ));
    }
    let frames = rig.frames(&[big.clone(), big]);
    breaks(rig, Message::Log { frames });
}
