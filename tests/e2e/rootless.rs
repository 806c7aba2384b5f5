//! The drill of an ordinary user, in user and network namespaces that it makes itself.

use crate::harness::{LOCKSTEP, Process, Scratch};
use crate::member::stage;
use std::fs::{Permissions, copy, create_dir, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Runs in a private mount namespace. It mounts device nodes that an ordinary user may open over those
/// that only root may open, and then drops root. `$1` is the user, `$2` a directory of that user, `$3`
/// the drill.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mknod -m 0666 "$2/$3-kvm" c 10 232
mknod -m 0666 "$2/$3-tun" c 10 200
mount --bind "$2/$3-kvm" /dev/kvm
mount --bind "$2/$3-tun" /dev/net/tun
cd "$2/home"
exec setpriv --reuid "$1" --regid "$1" --clear-groups --no-new-privs --inh-caps=-all \
    "$2/lockstep" drill "$3" --report "$2/home/$3" --json
"#;
/// The user `nobody`.
const NOBODY: u32 = 65534;

#[test]
#[cfg_attr(not(can_unshare), ignore = "needs KVM, root and util-linux")]
fn a_drill_needs_no_root() {
    let (_stage, scratch) = (stage(), Scratch::new());
    set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("ours");
    copy(LOCKSTEP, scratch.join("lockstep")).expect("copied");
    set_permissions(scratch.join("lockstep"), Permissions::from_mode(0o755)).expect("ours");
    create_dir(scratch.join("home")).expect("made");
    std::os::unix::fs::chown(scratch.join("home"), Some(NOBODY), Some(NOBODY)).expect("root");
    // On one host, and on two with a wire between them.
    for drill in ["kill-primary", "partition"] {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh", &NOBODY.to_string()]);
        command.arg(scratch.path()).arg(drill);
        let verdict = Process::start(&mut command).end().expect(0).json();
        assert_eq!(verdict["failed_runs"], 0, "{verdict}");
        assert!(verdict["acked"].as_u64() > Some(100), "{verdict}");
    }
}

/// Where KVM is asked for and is not there, one sentence says so.
#[test]
#[cfg_attr(not(can_unshare), ignore = "needs KVM, root and util-linux")]
fn a_host_without_kvm_is_told_so_in_a_sentence() {
    let script = "mount -t tmpfs none /dev && exec \"$0\" \"$@\"";
    for args in [
        &["drill", "kill-primary", "--cpu", "kvm"][..],
        &["run", "hello", "--cpu", "kvm"],
    ] {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, LOCKSTEP])
            .args(args);
        let sentence = Process::start(&mut command).end().refused();
        assert!(sentence.contains("/dev/kvm"), "{sentence}");
    }
}
