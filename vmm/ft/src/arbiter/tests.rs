use super::*;
use ft_protocol::arbiter::{Members, Nonce};
use std::path::Path;
use std::sync::Barrier;

fn record(generation: u64) -> OpenRecord {
    OpenRecord {
        vm: "vm".into(),
        generation,
        members: Members {
            primary: MemberId(1),
            backup: Some(MemberId(2)),
        },
        nonce: Nonce(7),
        at: 0,
    }
}

#[test]
fn one_of_two_claimants_wins_and_stays_the_winner() {
    let dir = tempfile::tempdir().unwrap();
    one_wins(&FileArbiter::new(dir.path()));
}

fn one_wins(arbiter: &dyn Arbiter) {
    assert_eq!(open(arbiter, &record(1)), OpenAnswer::Opened);
    let together = Barrier::new(2);
    let answers = std::thread::scope(|scope| {
        let ask = |member| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                claim(arbiter, "vm", 1, MemberId(member))
            })
        };
        let (one, two) = (ask(1), ask(2));
        [one.join().unwrap(), two.join().unwrap()]
    });
    let won = |answer: &ClaimAnswer| *answer == ClaimAnswer::Won;
    assert_eq!(answers.iter().filter(|a| won(a)).count(), 1, "{answers:?}");
    let again = [1, 2].map(|member| claim(arbiter, "vm", 1, MemberId(member)));
    assert_eq!(again, answers, "asking again changes nothing");
    let names = arbiter.list("vm").unwrap();
    assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
}

#[test]
fn a_stranger_cannot_claim() {
    let dir = tempfile::tempdir().unwrap();
    refuses_strangers(&FileArbiter::new(dir.path()));
}

fn refuses_strangers(arbiter: &dyn Arbiter) {
    assert_eq!(open(arbiter, &record(1)), OpenAnswer::Opened);
    let answer = claim(arbiter, "vm", 1, MemberId(3));
    assert!(matches!(answer, ClaimAnswer::Refused(_)), "{answer:?}");
    assert_eq!(claim(arbiter, "vm", 1, MemberId(2)), ClaimAnswer::Won);
}

#[test]
fn two_directories_are_found_out() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let primary = FileArbiter::new(ours.path());
    assert_eq!(open(&primary, &record(1)), OpenAnswer::Opened);
    let backup = FileArbiter::new(theirs.path());
    assert_eq!(read_back(&backup, "vm", 1), ReadBackAnswer::Missing);
    assert_eq!(
        read_back(&primary, "vm", 1),
        ReadBackAnswer::Found(record(1))
    );
}

#[test]
fn storage_that_is_not_there_is_unreachable_not_empty() {
    let arbiter = FileArbiter::new(Path::new("/nonexistent/arbiter"));
    assert!(latest(&arbiter, "vm").is_err());
    assert!(matches!(
        read_back(&arbiter, "vm", 1),
        ReadBackAnswer::Unreachable(_)
    ));
    assert!(matches!(
        claim(&arbiter, "vm", 1, MemberId(1)),
        ClaimAnswer::Unreachable(_)
    ));
}

#[test]
fn the_latest_generation_is_found_with_its_claim_and_its_end() {
    let dir = tempfile::tempdir().unwrap();
    finds_the_latest(&FileArbiter::new(dir.path()));
}

fn finds_the_latest(arbiter: &dyn Arbiter) {
    assert_eq!(latest(arbiter, "vm").unwrap(), None);
    for generation in [1, 10] {
        open(arbiter, &record(generation));
    }
    let found = latest(arbiter, "vm").unwrap().unwrap();
    assert_eq!(found.record.generation, 10);
    assert!(!found.claimed && !found.closed);
    claim(arbiter, "vm", 10, MemberId(1));
    close(arbiter, "vm", 10, MemberId(1));
    let found = latest(arbiter, "vm").unwrap().unwrap();
    assert!(found.claimed && found.closed);
}

#[test]
fn a_vm_has_one_founder() {
    let dir = tempfile::tempdir().unwrap();
    one_founds(&FileArbiter::new(dir.path()));
}

fn one_founds(arbiter: &dyn Arbiter) {
    let together = Barrier::new(2);
    let founders = std::thread::scope(|scope| {
        let ask = |port| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                let listen = SocketAddr::from(([192, 168, 9, 1], port));
                found(arbiter, "vm", listen).unwrap()
            })
        };
        let (one, two) = (ask(7700), ask(7701));
        [one.join().unwrap(), two.join().unwrap()]
    });
    assert_eq!(founders[0], founders[1]);
    assert_eq!(latest(arbiter, "vm").unwrap(), None, "nothing ran yet");
    assert_eq!(open(arbiter, &record(1)), OpenAnswer::Opened);
    let found = latest(arbiter, "vm").unwrap().unwrap();
    assert_eq!(found.record.generation, 1);
}

mod on_etcd {
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
        _dir: tempfile::TempDir,
    }

    fn free_url() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    fn spawn(data: &Path, url: &str) -> Child {
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
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd")
    }

    impl Etcd {
        fn start() -> Etcd {
            let dir = tempfile::tempdir().unwrap();
            let (data, url) = (dir.path().join("etcd"), free_url());
            let etcd = Etcd {
                process: spawn(&data, &url),
                data,
                url,
                _dir: dir,
            };
            etcd.await_answer();
            etcd
        }

        fn arbiter(&self) -> Arc<dyn Arbiter> {
            let url: ArbiterUrl = format!("etcd:{}", self.url).parse().unwrap();
            url.connect()
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
            self.process = spawn(&self.data, &self.url);
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
    fn the_next_endpoint_is_asked_where_one_does_not_answer() {
        let etcd = Etcd::start();
        let url: ArbiterUrl = format!("etcd:{},{}", free_url(), etcd.url).parse().unwrap();
        assert_eq!(open(&*url.connect(), &record(1)), OpenAnswer::Opened);
    }

    #[test]
    fn endpoints_are_parsed_and_bad_ones_refused() {
        let url: ArbiterUrl = "etcd:http://a:2379/,http://b:2379".parse().unwrap();
        let both = vec!["http://a:2379".to_string(), "http://b:2379".to_string()];
        assert_eq!(url, ArbiterUrl::Etcd(both));
        for bad in [
            "etcd:",
            "etcd:a:2379",
            "etcd:https://a",
            "etcd:http://",
            "etcd:http://a,",
        ] {
            let refused = bad.parse::<ArbiterUrl>().unwrap_err();
            assert!(refused.contains("etcd:http://"), "{refused}");
        }
    }
}
