//! Makes a guest write into its memory while something else is the subject: `kv` by a command of its own,
//! a real Redis by commands that it is sent.

use std::net::SocketAddrV4;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::{Connection, RedisError};

use super::client::{Connected, connect};

/// A value of one MiB, which the server inverts into others: few instructions for many bytes.
const SOURCE: &str = "lockstep:churn";
const LAST_BYTE: u32 = (1 << 20) - 1;

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
        let mut source = redis::cmd("SETRANGE");
        source.arg(SOURCE).arg(LAST_BYTE).arg("a");
        source.exec(&mut connection)?;
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
    let key = format!("{SOURCE}:{key}");
    let mut command = redis::cmd("BITOP");
    command.arg("NOT").arg(key).arg(SOURCE).exec(connection)
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
