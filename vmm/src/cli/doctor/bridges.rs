//! Checks whether this host's bridges pass the guests' frames to its firewall (`br_netfilter`).

use super::Finding;
use std::fs;
use std::path::Path;

/// Where the kernel says so, for this network namespace. It is missing if `br_netfilter` is not loaded.
const SWITCHES: &str = "/proc/sys/net/bridge";
/// The firewalls that frames may pass, each with a switch.
const FIREWALLS: [&str; 3] = ["iptables", "ip6tables", "arptables"];

/// Reports it: a FORWARD policy of DROP, which container runtimes set, drops a guest's frames silently.
pub(super) fn bridges() -> Finding {
    Finding {
        name: "bridges",
        good: None,
        what: describe(Path::new(SWITCHES)),
    }
}

fn describe(switches: &Path) -> String {
    let on = |name: &&str| {
        let switch = switches.join(format!("bridge-nf-call-{name}"));
        fs::read_to_string(switch).is_ok_and(|text| text.trim() != "0")
    };
    let on: Vec<&str> = FIREWALLS.into_iter().filter(on).collect();
    match on.is_empty() {
        true => "frames that bridges forward do not pass this host's firewall".into(),
        false => format!(
            "frames that bridges forward pass this host's firewall ({}): where its FORWARD policy is \
             DROP, guests get nothing; accept them there, or set net.bridge.bridge-nf-call-{} to 0",
            on.join(", "),
            on.join(" and -")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_on_bridges_is_told_of_and_none_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let good = describe(dir.path());
        assert!(good.contains("do not pass"), "{good}");
        for (name, value) in FIREWALLS.into_iter().zip(["1\n", "0\n", "1\n"]) {
            fs::write(dir.path().join(format!("bridge-nf-call-{name}")), value).unwrap();
        }
        let noted = describe(dir.path());
        assert!(noted.contains("(iptables, arptables)"), "{noted}");
        assert!(noted.contains("FORWARD policy"), "{noted}");
        fs::write(dir.path().join("bridge-nf-call-iptables"), "0").unwrap();
        fs::write(dir.path().join("bridge-nf-call-arptables"), "0").unwrap();
        assert_eq!(describe(dir.path()), good);
    }
}
