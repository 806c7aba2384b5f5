//! The same with a real etcd as the arbiter, with a user and TLS like an operator configures them.

use super::*;
use crate::harness::lockstep;
use std::net::TcpListener;
use std::process::{Child, Stdio};

/// An etcd of one member. Dropping it kills it.
struct Etcd {
    process: Child,
    data: PathBuf,
    address: String,
}

fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

fn spawn(data: &Path, address: &str) -> Child {
    let peer = free();
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(data);
    for option in ["--listen-client-urls", "--advertise-client-urls"] {
        command.args([option, address]);
    }
    for option in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
        command.args([option, &peer]);
    }
    command.args(["--initial-cluster", &format!("default={peer}")]);
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.spawn().expect("etcd")
}

impl Etcd {
    fn start(scratch: &Scratch) -> Etcd {
        let (data, address) = (scratch.join("etcd-0"), free());
        let process = spawn(&data, &address);
        let etcd = Etcd {
            process,
            data,
            address,
        };
        etcd.await_answer();
        etcd
    }

    fn url(&self) -> String {
        format!("etcd:{}", self.address)
    }

    fn await_answer(&self) {
        let began = Instant::now();
        let show = ["arbiter", "show", "--vm", "vm", "--arbiter"];
        while run(show.iter().copied().chain([self.url().as_str()])).status != Some(0) {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Restarts it like a cluster that has lost its disks.
    fn restart_empty(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("a child");
        self.data.set_file_name("etcd-1");
        self.process = spawn(&self.data, &self.address);
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
#[cfg_attr(not(can_etcd_pair), ignore = "needs KVM and etcd")]
fn an_etcd_that_is_restarted_empty_costs_nobody_the_vm() {
    for dies_before in [true, false] {
        let (_stage, scratch) = (stage(), Scratch::new());
        let mut etcd = Etcd::start(&scratch);
        let told = Told {
            arbiter: etcd.url(),
            ..Told::new(&scratch)
        };
        let (mut primary, mut backup) = pair(&scratch, "echo", &told);
        echo(&mut primary, "together");
        if dies_before {
            primary.process.signal(Signal::STOP);
            backup.await_event("live");
            etcd.restart_empty();
            backup.await_event("record_back");
            // The primary, against which the backup had won, must not win now.
            primary.process.signal(Signal::CONT);
            primary.process.end().expect(4);
        } else {
            etcd.restart_empty();
            primary.await_event("record_back");
            primary.kill();
            backup.await_event("live");
        }
        echo_and_end(backup, "alone");
    }
}

#[test]
#[cfg_attr(not(can_etcd_pair), ignore = "needs KVM and etcd")]
fn a_user_has_its_password_from_a_file_or_the_environment_and_not_from_an_option() {
    let scratch = Scratch::new();
    let etcd = Etcd::start(&scratch);
    let auth = |what: &str, body: serde_json::Value| {
        let done = ureq::post(format!("{}/v3/auth/{what}", etcd.address)).send_json(&body);
        assert!(done.is_ok(), "{what}: {done:?}");
    };
    let root = serde_json::json!({"name": "root", "password": "a secret"});
    auth("user/add", root);
    auth("role/add", serde_json::json!({"name": "root"}));
    auth(
        "user/grant",
        serde_json::json!({"user": "root", "role": "root"}),
    );
    auth("enable", serde_json::json!({}));
    fs::write(scratch.join("password"), "a secret\n").expect("written");
    let show = |more: &[&str], password: Option<&str>| {
        let url = etcd.url();
        let args = ["arbiter", "show", "--vm", "vm", "--arbiter", &url];
        let mut command = lockstep(args.iter().chain(more));
        if let Some(password) = password {
            command.env("LOCKSTEP_ETCD_PASSWORD", password);
        }
        Process::start(&mut command).end()
    };
    let file = scratch.arg("password");
    let user = ["--etcd-user", "root"];
    show(
        &[&user[..], &["--etcd-password-file", &file]].concat(),
        None,
    )
    .expect(0);
    show(&user, Some("a secret")).expect(0);
    for (more, password, wanted) in [
        (&[][..], None, "user name is empty"),
        (&user, None, "LOCKSTEP_ETCD_PASSWORD"),
        (&user, Some("wrong"), "authentication failed"),
        (
            &[&user[..], &["--etcd-password-file", "/no/such"]].concat(),
            None,
            "/no/such",
        ),
        (&["--etcd-ca", &file], None, "https"),
        (&["--etcd-cert", &file], None, "--etcd-key"),
    ] {
        let sentence = show(more, password).refused();
        assert!(sentence.contains(wanted), "{sentence}");
        assert!(!sentence.contains("a secret"), "{sentence}");
    }
}
