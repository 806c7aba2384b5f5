//! The drill's client: a real Redis client with one connection, which counts with INCR as fast as
//! answers come and never reconnects.

use std::net::SocketAddrV4;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::io::tcp::TcpSettings;
use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisError};

use super::clock::mono_ns;

/// How long an answer may take: longer than any failover, with a reserve for TCP's retransmissions.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
const ATTEMPT_LIMIT: Duration = Duration::from_millis(500);
/// Most answers that one run may record, at 24 bytes each.
const ANSWERS_LIMIT: usize = 5_000_000;
/// The key that is counted up.
const KEY: &str = "lockstep:drill";

/// One request and its answer. Times are CLOCK_MONOTONIC, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) sent_ns: u64,
    pub(super) answered_ns: u64,
    /// The number in the guest's answer.
    pub(super) value: i64,
}

/// Why a client ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to stop.
    Told,
    /// Its connection broke, or an answer did not come in time.
    Broken(String),
    /// It got an answer that is not a number.
    Unexpected(String),
}

/// All that a client saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) answers: Vec<Answer>,
    pub(super) end: End,
}

/// A connection on which the guest has answered PING.
pub(super) struct Connected(pub(super) Connection);

/// Tries once to connect to the guest and have its PING answered.
pub(super) fn connect(guest: SocketAddrV4) -> Result<Connected, RedisError> {
    let address = ConnectionAddr::Tcp(guest.ip().to_string(), guest.port());
    let info = address
        .into_connection_info()?
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let mut connection = redis::Client::open(info)?.get_connection_with_timeout(ATTEMPT_LIMIT)?;
    connection.set_read_timeout(Some(ANSWER_LIMIT))?;
    connection.set_write_timeout(Some(ANSWER_LIMIT))?;
    redis::cmd("PING").exec(&mut connection)?;
    Ok(Connected(connection))
}

/// A client that works on its own thread.
#[derive(Debug)]
pub(super) struct Client {
    shared: Arc<Shared>,
    thread: JoinHandle<Record>,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    answers: u64,
    /// The number of answers at which a waiting thread must be woken.
    awaited: u64,
    ended: bool,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Starts counting.
    pub(super) fn start(connection: Connected) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let work = move || {
            let record = count(connection.0, &theirs);
            theirs.lock().ended = true;
            theirs.changed.notify_all();
            record
        };
        let thread = thread::Builder::new().name("client".into()).spawn(work)?;
        Ok(Self { shared, thread })
    }

    /// The number of answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.shared.lock().answers
    }

    /// Waits until `answers` have come. Returns false if the client ended before that, or `limit`
    /// passed.
    pub(super) fn wait_for(&self, answers: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut progress = self.shared.lock();
        progress.awaited = answers;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if progress.answers >= answers || progress.ended || left.is_zero() {
                return progress.answers >= answers;
            }
            let waited = self.shared.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets the client stop after the answer that it waits for, and returns its record.
    pub(super) fn finish(self) -> Record {
        self.shared.lock().stop = true;
        match self.thread.join() {
            Ok(record) => record,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Counts until it is asked to stop or something breaks.
fn count(mut connection: Connection, shared: &Shared) -> Record {
    let increment = redis::cmd("INCR").arg(KEY).to_owned();
    let mut answers = Vec::new();
    let end = loop {
        if answers.len() == ANSWERS_LIMIT {
            break End::Unexpected(format!("more than {ANSWERS_LIMIT} answers in one run"));
        }
        let sent_ns = mono_ns();
        let value = match increment.query::<i64>(&mut connection) {
            Ok(value) => value,
            Err(e) => break ending(&e),
        };
        answers.push(Answer {
            sent_ns,
            answered_ns: mono_ns(),
            value,
        });
        let mut progress = shared.lock();
        progress.answers += 1;
        if progress.answers == progress.awaited {
            shared.changed.notify_all();
        }
        if progress.stop {
            break End::Told;
        }
    };
    Record { answers, end }
}

fn ending(error: &RedisError) -> End {
    if error.is_timeout() {
        let seconds = ANSWER_LIMIT.as_secs();
        End::Broken(format!("no answer within {seconds} s"))
    } else if error.is_io_error() || error.is_connection_dropped() {
        End::Broken(error.to_string())
    } else {
        End::Unexpected(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use super::super::fake::converse;
    use super::*;

    /// Serves one client, see [`converse`].
    fn serve(answer: impl Fn(u64) -> String + Send + 'static) -> SocketAddrV4 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            unreachable!("the listener is on IPv4");
        };
        thread::spawn(move || converse(listener.accept().unwrap().0, answer));
        address
    }

    fn counting(n: u64) -> String {
        format!(":{n}\r\n")
    }

    #[test]
    fn a_client_counts_until_it_is_told_to_stop() {
        let client = Client::start(connect(serve(counting)).unwrap()).unwrap();
        assert!(client.wait_for(100, ANSWER_LIMIT));
        let record = client.finish();
        assert_eq!(record.end, End::Told);
        assert!(record.answers.len() >= 100);
        for (answer, expected) in record.answers.iter().zip(1..) {
            assert_eq!(answer.value, expected);
            assert!(answer.sent_ns < answer.answered_ns);
        }
    }

    #[test]
    fn a_broken_connection_ends_the_client_and_is_never_renewed() {
        let until_five = |n| {
            if n <= 5 { counting(n) } else { String::new() }
        };
        let client = Client::start(connect(serve(until_five)).unwrap()).unwrap();
        assert!(!client.wait_for(6, ANSWER_LIMIT), "the sixth never comes");
        let record = client.finish();
        assert_eq!(record.answers.len(), 5);
        assert!(matches!(record.end, End::Broken(_)), "{:?}", record.end);
    }

    #[test]
    fn an_answer_that_is_no_number_is_quoted() {
        for (reply, quoted) in [("-ERR out of luck\r\n", "out of luck"), ("+yes\r\n", "yes")] {
            let odd = move |n| {
                if n == 3 {
                    reply.to_owned()
                } else {
                    counting(n)
                }
            };
            let client = Client::start(connect(serve(odd)).unwrap()).unwrap();
            assert!(!client.wait_for(3, ANSWER_LIMIT));
            let record = client.finish();
            assert_eq!(record.answers.len(), 2);
            let End::Unexpected(text) = record.end else {
                panic!("{:?} for {reply:?}", record.end);
            };
            assert!(text.contains(quoted), "{text}");
        }
    }

    #[test]
    fn nobody_listening_is_an_error_at_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            unreachable!("the listener is on IPv4");
        };
        drop(listener);
        assert!(connect(address).is_err());
    }
}
