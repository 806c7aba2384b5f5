//! An etcd with users, and one that speaks TLS to those who have a certificate.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::fs;

/// Something about users that must succeed.
fn auth(etcd: &Etcd, what: &str, body: &serde_json::Value) {
    let done = ureq::post(format!("{}/v3/auth/{what}", etcd.url)).send_json(body);
    assert!(done.is_ok(), "{what} {body}: {done:?}");
}

fn user(name: &str, password: &str) -> EtcdAccess {
    EtcdAccess {
        user: Some((name.into(), password.into())),
        ..EtcdAccess::default()
    }
}

/// An etcd whose user `lockstep` may write below `lockstep/`, and `reader` may not.
fn with_users() -> Etcd {
    let mut etcd = Etcd::start();
    for name in ["root", "lockstep", "reader"] {
        let new = json!({"name": name, "password": format!("pass-{name}")});
        auth(&etcd, "user/add", &new);
    }
    auth(&etcd, "role/add", &json!({"name": "root"}));
    let [from, to] = ["lockstep/", "lockstep0"].map(|key| STANDARD.encode(key));
    for (role, right) in [("writes", "READWRITE"), ("reads", "READ")] {
        auth(&etcd, "role/add", &json!({"name": role}));
        let below = json!({"permType": right, "key": from, "range_end": to});
        auth(&etcd, "role/grant", &json!({"name": role, "perm": below}));
    }
    for (user, role) in [
        ("root", "root"),
        ("lockstep", "writes"),
        ("reader", "reads"),
    ] {
        auth(&etcd, "user/grant", &json!({"user": user, "role": role}));
    }
    auth(&etcd, "enable", &json!({}));
    etcd.access = user("lockstep", "pass-lockstep");
    etcd
}

#[test]
#[cfg_attr(not(has_etcd), ignore = "there is no etcd here")]
fn a_user_with_its_password_is_let_in_and_says_it_again_when_it_has_to() {
    let mut etcd = with_users();
    let arbiter = etcd.arbiter();
    one_wins(&*arbiter);
    arbiter.prove("other").unwrap();
    // Who sets a password ends what was let in by the one before.
    let root = json!({"name": "root", "password": "pass-root"});
    let told = ureq::post(format!("{}/v3/auth/authenticate", etcd.url)).send_json(&root);
    let told: serde_json::Value = told.unwrap().body_mut().read_json().unwrap();
    let same = json!({"name": "lockstep", "password": "pass-lockstep"});
    let set = ureq::post(format!("{}/v3/auth/user/changepw", etcd.url));
    let set = set.header("Authorization", told["token"].as_str().unwrap());
    assert!(set.send_json(&same).is_ok());
    assert!(latest(&*arbiter, "vm").unwrap().unwrap().claimed);
    etcd.kill();
    etcd.restart();
    assert!(latest(&*arbiter, "vm").unwrap().unwrap().claimed);
    for (access, wanted) in [
        (EtcdAccess::default(), "user name is empty"),
        (user("lockstep", "wrong"), "authentication failed"),
    ] {
        let arbiter = etcd.arbiter_with(access).unwrap();
        let why = arbiter.list("vm").unwrap_err().to_string();
        assert!(why.contains(wanted), "{why}");
    }
    // Who may only read finds out before it counts.
    let reader = etcd.arbiter_with(user("reader", "pass-reader")).unwrap();
    assert!(latest(&*reader, "vm").unwrap().is_some());
    let why = reader.prove("vm").unwrap_err().to_string();
    assert!(why.contains("permission denied"), "{why}");
    assert!(!why.contains("pass-"), "{why}");
}

/// Certificates: of an authority, and by it for the server and for a client.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn make() -> Certificates {
        let these = Certificates(tempfile::tempdir().unwrap());
        for name in ["ca", "other"] {
            let (cert, private) = (these.path(name, "crt"), these.path(name, "key"));
            let subject = format!("/CN={name}");
            let made = [
                "req", "-x509", "-subj", &subject, "-newkey", "rsa:2048", "-nodes",
            ];
            let files = ["-days", "2", "-keyout", &private, "-out", &cert];
            these.openssl(&[&made[..], &files].concat());
        }
        let names = these.path("names", "ext");
        fs::write(&names, "subjectAltName=IP:127.0.0.1\n").unwrap();
        for name in ["server", "client"] {
            let [cert, private, wish] = ["crt", "key", "csr"].map(|kind| these.path(name, kind));
            let subject = format!("/CN={name}");
            let made = ["req", "-subj", &subject, "-newkey", "rsa:2048", "-nodes"];
            these.openssl(&[&made[..], &["-keyout", &private, "-out", &wish]].concat());
            let (ca, ca_key) = (these.path("ca", "crt"), these.path("ca", "key"));
            let signed = ["x509", "-req", "-days", "2", "-in", &wish, "-out", &cert];
            let by = [
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-CAcreateserial",
                "-extfile",
                &names,
            ];
            these.openssl(&[&signed[..], &by].concat());
        }
        these
    }

    fn path(&self, name: &str, kind: &str) -> String {
        let path = self.0.path().join(format!("{name}.{kind}"));
        path.to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str, kind: &str) -> Vec<u8> {
        fs::read(self.path(name, kind)).unwrap()
    }

    fn openssl(&self, args: &[&str]) {
        let done = Command::new("openssl")
            .args(args)
            .output()
            .expect("openssl");
        assert!(done.status.success(), "{args:?}: {done:?}");
    }

    fn access(&self, ca: &str, client: Option<&str>) -> EtcdAccess {
        EtcdAccess {
            ca: Some(self.read(ca, "crt")),
            identity: client.map(|name| (self.read(name, "crt"), self.read(name, "key"))),
            ..EtcdAccess::default()
        }
    }
}

#[test]
#[cfg_attr(
    not(all(has_etcd, has_openssl)),
    ignore = "there is no etcd or openssl here"
)]
fn over_tls_both_sides_show_who_they_are() {
    let these = Certificates::make();
    let url = free_url().replace("http:", "https:");
    let flags = [
        ("--cert-file", these.path("server", "crt")),
        ("--key-file", these.path("server", "key")),
        ("--trusted-ca-file", these.path("ca", "crt")),
    ];
    let flags = flags.map(|(flag, path)| format!("{flag}={path}"));
    let flags = [&flags[..], &["--client-cert-auth".to_owned()]].concat();
    let etcd = Etcd::spawned(url, flags, these.access("ca", Some("client")));
    etcd.await_answer();
    one_wins(&*etcd.arbiter());
    for (access, wanted) in [
        // Another authority's server might be anybody's.
        (these.access("other", Some("client")), "certificate"),
        (these.access("ca", None), "--etcd-cert"),
        // It hangs up, at once or with an alert.
        (these.access("ca", Some("other")), "cannot be reached"),
    ] {
        let arbiter = etcd.arbiter_with(access).unwrap();
        let why = arbiter.list("vm").unwrap_err().to_string();
        assert!(why.contains(wanted), "{why}");
    }
    for (access, wanted) in [
        (EtcdAccess::default(), "--etcd-ca"),
        (
            EtcdAccess {
                ca: Some(b"no certificate".to_vec()),
                ..EtcdAccess::default()
            },
            "--etcd-ca",
        ),
        (
            EtcdAccess {
                identity: Some((these.read("client", "crt"), b"no key".to_vec())),
                ..these.access("ca", None)
            },
            "--etcd-key",
        ),
    ] {
        let why = etcd
            .arbiter_with(access)
            .err()
            .expect("refused")
            .to_string();
        assert!(why.contains(wanted), "{why}");
    }
}

#[test]
fn what_is_of_no_use_there_is_refused() {
    let ca = || EtcdAccess {
        ca: Some(Vec::new()),
        ..EtcdAccess::default()
    };
    for (url, access, wanted) in [
        ("file:/tmp", ca(), "directory"),
        ("file:/tmp", user("a", "b"), "directory"),
        ("etcd:http://a", ca(), "https"),
    ] {
        let url: ArbiterUrl = url.parse().unwrap();
        let why = url.connect(access).err().expect("refused").to_string();
        assert!(why.contains(wanted), "{why}");
    }
}
