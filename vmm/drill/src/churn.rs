//! Makes a guest write into its memory while something else is the subject: `kv` by a command of its own,
//! a real Redis by scripts that it is sent.

use std::net::SocketAddrV4;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::{Connection, RedisError};

use super::client::{Connected, connect};

/// Writes a value of one MiB, which the server makes itself.
const SCRIPT: &str = "redis.call('SET', KEYS[1], string.rep(ARGV[1], 1048576))";

/// Has `kv` write `rate` MiB a second into `pool` MiB of its memory, from now on.
pub(super) fn of_kv(guest: SocketAddrV4, rate: u32, pool: u32) -> Result<(), RedisError> {
    let Connected(mut connection) = connect(guest)?;
    let mut command = redis::cmd("DEBUG");
    command.arg("CHURN").arg(rate).arg(pool);
    command.exec(&mut connection)
}

/// A thread that has a Redis write, until this is dropped or the connection ends.
#[derive(Debug)]
pub(super) struct Churn {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    /// Has a Redis write `rate` values of one MiB a second, to `pool` keys one after the other.
    pub(super) fn of_redis(guest: SocketAddrV4, rate: u32, pool: u32) -> Result<Self, RedisError> {
        let Connected(mut connection) = connect(guest)?;
        // What the guest refuses at once is an error of the drill.
        write(&mut connection, 0)?;
        let (stop, stopped) = mpsc::channel();
        let work = move || {
            let rhythm = Duration::from_secs(1) / rate;
            for key in (0..pool).cycle() {
                if stopped.recv_timeout(rhythm) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                // The guest ends if both its members die, which is for others to judge.
                if let Err(e) = write(&mut connection, key) {
                    tracing::debug!("the guest is not made to write any more: {e}");
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("churn".into()).spawn(work)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

fn write(connection: &mut Connection, key: u32) -> Result<(), RedisError> {
    let mut command = redis::cmd("EVAL");
    let letter = ["a", "b", "c"][key as usize % 3];
    command
        .arg(SCRIPT)
        .arg(1)
        .arg(format!("lockstep:churn:{key}"));
    command.arg(letter).exec(connection)
}

impl Drop for Churn {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = ended {
            std::panic::resume_unwind(panic);
        }
    }
}
