use super::*;
use ft_protocol::arbiter::MemberId;
use ft_protocol::log::HostPrint;
use ft_protocol::wire::PROTOCOL_VERSION;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// A backup's join may be delayed by so much.
const SOON: Duration = Duration::from_secs(1);

async fn lobby() -> (Option<Lobby>, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (Some(Lobby::open(listener)), address)
}

fn hello(member: u128) -> Message {
    Message::Hello {
        protocol: PROTOCOL_VERSION,
        vm: "vm".into(),
        member: MemberId(member),
        host: HostPrint {
            cpu: "a CPU".into(),
            exits: 1,
        },
    }
}

/// A connection that says this.
async fn says(address: SocketAddr, messages: &[Message]) -> Link {
    let mut link = Link::new(TcpStream::connect(address).await.unwrap()).unwrap();
    for message in messages {
        link.send(message);
    }
    link
}

/// A backup that tries to join, until the lobby has it.
async fn joins(lobby: &mut Option<Lobby>, address: SocketAddr, member: u128) -> Candidate {
    let _backup = says(address, &[hello(member), Message::Heartbeat]).await;
    let candidate = timeout(SOON, Lobby::next(lobby)).await;
    let candidate = candidate.expect("a candidate in time");
    assert_eq!(candidate.hello, hello(member));
    candidate
}

#[tokio::test]
async fn strangers_that_say_nothing_keep_nobody_waiting_however_many_they_are() {
    let (mut lobby, address) = lobby().await;
    let mut idle = Vec::new();
    for _ in 0..2 * STRANGERS {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    joins(&mut lobby, address, 1).await;
    // The oldest had to go.
    let mut nothing = [0];
    let read = timeout(SOON, idle[0].read(&mut nothing)).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    let newest = idle.last_mut().unwrap();
    assert!(timeout(SOON / 10, newest.read(&mut nothing)).await.is_err());
}

#[tokio::test]
async fn strangers_that_connect_again_and_again_keep_nobody_waiting() {
    let (mut lobby, address) = lobby().await;
    let mut busy = tokio::task::JoinSet::new();
    for words in ["", "GET / HTTP/1.1\r\n\r\n", "\0\0\0\0"] {
        busy.spawn(async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(address).await else {
                    continue;
                };
                let _gone = stream.write_all(words.as_bytes()).await;
                let _closed = timeout(SOON, stream.read(&mut [0])).await;
            }
        });
    }
    let began = Instant::now();
    for member in 0..5 {
        joins(&mut lobby, address, member).await;
    }
    assert!(began.elapsed() < SOON * 5);
}

#[tokio::test]
async fn a_backup_that_is_gone_or_says_nothing_more_is_no_candidate() {
    let (mut lobby, address) = lobby().await;
    drop(says(address, &[hello(1), Message::Heartbeat]).await);
    let _mute = says(address, &[hello(2)]).await;
    let _odd = says(address, &[hello(3), Message::Ready]).await;
    joins(&mut lobby, address, 4).await;
    // It is there, and the time of the mute one is over before it may come.
    let none = timeout(SILENT_CANDIDATE * 2, Lobby::next(&mut lobby)).await;
    assert!(none.is_err(), "{none:?}");
}

#[tokio::test]
async fn a_backup_that_went_after_it_was_called_is_passed_over() {
    let (mut lobby, address) = lobby().await;
    // Called, and not taken.
    assert!(timeout(SOON / 100, Lobby::next(&mut lobby)).await.is_err());
    let gone = says(address, &[hello(1), Message::Heartbeat]).await;
    while lobby.as_ref().is_some_and(|l| l.candidates.is_empty()) {
        tokio::task::yield_now().await;
    }
    drop(gone);
    joins(&mut lobby, address, 2).await;
}

#[tokio::test]
async fn a_first_message_that_goes_on_and_on_is_not_read_to_its_end() {
    let (mut lobby, address) = lobby().await;
    let pages = vec![7; 4 * MESSAGE_BYTES];
    let mut link = says(address, &[Message::Memory { pages }]).await;
    let closed = timeout(SOON, link.next()).await;
    assert!(matches!(closed, Ok(Err(_))), "{closed:?}");
    joins(&mut lobby, address, 1).await;
}

#[tokio::test]
async fn candidates_wait_until_they_are_called_one_by_one() {
    let (mut lobby, address) = lobby().await;
    let mut backups = Vec::new();
    for member in 0..3 {
        backups.push(says(address, &[hello(member), Message::Heartbeat]).await);
    }
    // Nobody calls, and they go on saying that they are there.
    let began = Instant::now();
    while began.elapsed() < SILENT_CANDIDATE * 2 {
        backups.iter_mut().for_each(|b| b.send(&Message::Heartbeat));
        tokio::time::sleep(SILENT_CANDIDATE / 10).await;
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        let next = timeout(SOON, Lobby::next(&mut lobby)).await;
        seen.push(next.expect("they are all there").hello);
    }
    for member in 0..3 {
        assert!(seen.contains(&hello(member)), "{seen:?}");
    }
}
