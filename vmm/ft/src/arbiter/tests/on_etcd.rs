//! The same on a real etcd, with users and with TLS.

mod secured;

use super::*;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A real etcd of one member. Dropping it kills it.
struct Etcd {
    process: Child,
    data: PathBuf,
    url: String,
    more: Vec<String>,
    access: EtcdAccess,
    _dir: tempfile::TempDir,
}

fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn spawn(data: &Path, url: &str, more: &[String]) -> Child {
    let peer = free_url();
    Command::new("etcd")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd")
}

impl Etcd {
    fn start() -> Etcd {
        let etcd = Etcd::spawned(free_url(), Vec::new(), EtcdAccess::default());
        etcd.await_answer();
        etcd
    }

    fn spawned(url: String, more: Vec<String>, access: EtcdAccess) -> Etcd {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("etcd");
        Etcd {
            process: spawn(&data, &url, &more),
            data,
            url,
            more,
            access,
            _dir: dir,
        }
    }

    fn arbiter(&self) -> Arc<dyn Arbiter> {
        self.arbiter_with(self.access.clone()).unwrap()
    }

    fn arbiter_with(&self, access: EtcdAccess) -> Result<Arc<dyn Arbiter>, AccessError> {
        let url: ArbiterUrl = format!("etcd:{}", self.url).parse().unwrap();
        url.connect(access)
    }

    fn await_answer(&self) {
        let began = Instant::now();
        while let Err(e) = self.arbiter().list("nobody") {
            assert!(began.elapsed() < Duration::from_secs(30), "{e}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = spawn(&self.data, &self.url, &self.more);
        self.await_answer();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _reaped = self.process.wait();
    }
}

#[test]
#[cfg_attr(not(has_etcd), ignore = "there is no etcd here")]
fn the_test_and_set_is_the_same_as_on_files() {
    one_wins(&*Etcd::start().arbiter());
    refuses_strangers(&*Etcd::start().arbiter());
    finds_the_latest(&*Etcd::start().arbiter());
    one_founds(&*Etcd::start().arbiter());
    vanishing::vanishes(&*Etcd::start().arbiter());
    vanishing::guards(&*Etcd::start().arbiter());
    vanishing::operator(&*Etcd::start().arbiter());
}

#[test]
#[cfg_attr(not(has_etcd), ignore = "there is no etcd here")]
fn a_claim_outlives_etcd_and_while_it_is_away_nobody_knows() {
    let mut etcd = Etcd::start();
    let arbiter = etcd.arbiter();
    assert_eq!(open(&*arbiter, &record(1)), OpenAnswer::Opened);
    // Its answer may have been lost: asking again is a win again.
    for _ in 0..2 {
        assert_eq!(claim(&*arbiter, "vm", 1, MemberId(2)), ClaimAnswer::Won);
    }
    etcd.kill();
    let away = claim(&*arbiter, "vm", 1, MemberId(1));
    let ClaimAnswer::Unreachable(why) = away else {
        panic!("{away:?}");
    };
    assert!(
        why.contains("etcd:http://") && why.contains("cannot be reached"),
        "{why}"
    );
    assert!(latest(&*arbiter, "vm").is_err());
    etcd.restart();
    let lost = ClaimAnswer::Lost { by: MemberId(2) };
    assert_eq!(claim(&*arbiter, "vm", 1, MemberId(1)), lost);
    assert_eq!(
        read_back(&*arbiter, "vm", 1),
        ReadBackAnswer::Found(record(1))
    );
    assert_eq!(read_back(&*arbiter, "other", 1), ReadBackAnswer::Missing);
}

#[test]
#[cfg_attr(not(has_etcd), ignore = "there is no etcd here")]
fn the_next_endpoint_is_asked_where_one_does_not_answer_and_remembered() {
    let etcd = Etcd::start();
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let url = format!("etcd:{},{silent},{}", free_url(), etcd.url);
    let url: ArbiterUrl = url.parse().unwrap();
    let arbiter = url.connect(EtcdAccess::default()).unwrap();
    assert_eq!(open(&*arbiter, &record(1)), OpenAnswer::Opened);
    let began = Instant::now();
    for _ in 0..20 {
        arbiter.list("vm").unwrap();
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

/// A stand-in for an etcd that refuses, as a busy or a leaderless one does.
fn refusing(status: &'static str, body: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _request = stream.read(&mut [0; 4096]);
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all((head + body).as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn the_reason_that_etcd_gives_is_told() {
    for (status, body, wanted) in [
        (
            "429 Too Many Requests",
            r#"{"error":"etcdserver: mvcc: database space exceeded","message":"etcdserver: mvcc: database space exceeded","code":8}"#,
            "database space exceeded, http status 429",
        ),
        (
            "503 Service Unavailable",
            r#"{"error":"etcdserver: no leader"}"#,
            "no leader",
        ),
        ("502 Bad Gateway", "<html>", "http status 502"),
        ("200 OK", "<html>", "not etcd's"),
    ] {
        let url: ArbiterUrl = format!("etcd:{}", refusing(status, body)).parse().unwrap();
        let arbiter = url.connect(EtcdAccess::default()).unwrap();
        let why = arbiter.list("vm").unwrap_err().to_string();
        assert!(why.contains(wanted), "{why}");
    }
}

#[test]
fn endpoints_are_parsed_and_bad_ones_refused() {
    let url: ArbiterUrl = "etcd:http://a:2379/,https://b:2379".parse().unwrap();
    let both = vec!["http://a:2379".to_string(), "https://b:2379".to_string()];
    assert_eq!(url, ArbiterUrl::Etcd(both));
    for bad in [
        "etcd:",
        "etcd:a:2379",
        "etcd:ftp://a",
        "etcd:http://",
        "etcd:http://a,",
        "etcd:http://user:secret@a",
    ] {
        let refused = bad.parse::<ArbiterUrl>().unwrap_err().to_string();
        assert!(refused.contains("etcd:http://"), "{refused}");
    }
}
