//! Private networks, for drills and for tests.
//!
//! A private network is an unnamed network namespace. It ends with its last process, so that nothing is
//! left behind, however a drill ends. Without root, the drill first makes its own user namespace, in
//! which it has the rights that a network needs.

pub mod testing;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{BridgeStpState, InfoBridge, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::process::{getegid, geteuid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use thiserror::Error;

use lockstep_backends::tap;

/// The bridge that joins the drill's client and both members.
pub const BRIDGE: &str = "br0";
/// The client's address, which is the bridge's.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Length of the network prefix of [`HOST`], bits.
pub const PREFIX_LEN: u8 = 24;
/// The guest's address unless the machine has another.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// One TAP for each member.
pub const TAPS: [&str; 2] = ["tap-a", "tap-b"];

/// Why the private network cannot be made. In all cases the host refuses something.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what each variant is")]
pub enum NetworkError {
    #[error(
        "this host lets this user make no user namespace ({0}), so no private network: run the drill as root, or allow them (sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
    )]
    NoUserNamespace(io::Error),
    #[error(
        "this host lets the drill make no network namespace ({0}): run it as root outside a confined container, or raise the sysctl user.max_net_namespaces"
    )]
    NoNetworkNamespace(io::Error),
    #[error("the drill's network cannot be set up, as {step} failed ({reason}): {advice}")]
    Link {
        step: &'static str,
        reason: String,
        advice: &'static str,
    },
    #[error(
        "this host has no {device}: load the kernel module 'tun' (modprobe tun), or give the container that device",
        device = tap::TUN_DEVICE
    )]
    NoTunDevice,
    #[error(
        "{device} cannot be used by this user ({0}): run the drill as root, or give this user read and write access to it",
        device = tap::TUN_DEVICE
    )]
    TunDenied(io::Error),
}

/// Makes sure that this process may make network namespaces, either with the rights that it has, or as
/// the root of a new user namespace. The process must have a single thread.
pub fn gain_network_rights() -> Result<(), NetworkError> {
    match unshare(UnshareFlags::NEWNET) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            enter_user_namespace().map_err(NetworkError::NoUserNamespace)
        }
        Err(e) => Err(NetworkError::NoNetworkNamespace(e)),
    }
}

/// Becomes root of a new user namespace. Outside of it, the process keeps its user.
fn enter_user_namespace() -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER)?;
    // user_namespaces(7): without privilege, setgroups must be denied before a group may be mapped.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

fn unshare(what: UnshareFlags) -> io::Result<()> {
    // SAFETY: only the file table is unsafe to unshare (`UnshareFlags::FILES`); it stays shared.
    unsafe { unshare_unsafe(what) }.map_err(io::Error::from)
}

/// Moves this thread, and the processes and threads that it starts from now on, into a new private
/// network: the bridge `br0` with the client's address, and the two TAPs on it, all up.
///
/// The network that the thread leaves ends when no other process is in it.
pub fn enter_new_network() -> Result<(), NetworkError> {
    enter_empty_network()?;
    for name in TAPS {
        create_tap(name)?;
    }
    configure(async |links| {
        links.up("lo").await?;
        links.add_bridge().await?;
        links.give_address(BRIDGE, HOST, PREFIX_LEN).await?;
        for name in TAPS {
            links.add_port(name).await?;
        }
        Ok(())
    })
}

/// Moves this thread into a new network in which nothing is up.
pub fn enter_empty_network() -> Result<(), NetworkError> {
    unshare(UnshareFlags::NEWNET).map_err(NetworkError::NoNetworkNamespace)?;
    disable_ipv6();
    Ok(())
}

/// The network namespace of this thread.
pub fn current_network() -> Result<OwnedFd, NetworkError> {
    let opened = fs::File::open("/proc/thread-self/ns/net");
    opened
        .map(OwnedFd::from)
        .map_err(|e| link_error("finding this network again", e))
}

/// Moves this thread into a network namespace. Makes one system call and allocates nothing.
pub fn enter_network(network: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(
        network,
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Switches off IPv6, whose own traffic would add frames that the drill counts and replays. On a host
/// without IPv6 or with a read-only /proc/sys this fails, and the drill goes on.
fn disable_ipv6() {
    for scope in ["all", "default"] {
        let switch = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        if let Err(e) = fs::write(&switch, "1") {
            tracing::debug!("IPv6 stays on in the drill's network: {switch}: {e}");
        }
    }
}

/// Makes a TAP that stays after this descriptor is closed, and ends with the network namespace.
pub fn create_tap(name: &str) -> Result<(), NetworkError> {
    let device = tap::open_tun_device().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => NetworkError::NoTunDevice,
        _ => NetworkError::TunDenied(e),
    })?;
    tap::attach(&device, name).map_err(NetworkError::TunDenied)?;
    // SAFETY: TUNSETPERSIST takes an integer and no pointer; `device` is an open descriptor.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) };
    if done == 0 {
        Ok(())
    } else {
        Err(NetworkError::TunDenied(io::Error::last_os_error()))
    }
}

/// The network interfaces of this thread's network namespace.
pub struct Links(Handle);

/// Changes the network interfaces of this thread's network namespace.
pub fn configure(
    change: impl AsyncFnOnce(&Links) -> Result<(), NetworkError>,
) -> Result<(), NetworkError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|e| link_error("starting a netlink runtime", e))?;
    runtime.block_on(async {
        let (connection, netlink, _) =
            rtnetlink::new_connection().map_err(|e| link_error("opening a netlink socket", e))?;
        let serving = tokio::spawn(connection);
        let changed = change(&Links(netlink)).await;
        serving.abort();
        changed
    })
}

impl Links {
    /// Brings an interface up.
    pub async fn up(&self, name: &'static str) -> Result<(), NetworkError> {
        let index = self.index_of(name).await?;
        self.set(LinkUnspec::new_with_index(index).up(), "bringing up a link")
            .await
    }

    /// Takes an interface down: no frame passes it any more.
    pub async fn down(&self, name: &'static str) -> Result<(), NetworkError> {
        let index = self.index_of(name).await?;
        let down = LinkUnspec::new_with_index(index).down();
        self.set(down, "taking down a link").await
    }

    /// Removes an interface.
    pub async fn remove(&self, name: &'static str) -> Result<(), NetworkError> {
        let index = self.index_of(name).await?;
        let removed = self.0.link().del(index).execute().await;
        removed.map_err(|e| link_error("removing a link", e))
    }

    /// Makes the bridge and brings it up.
    pub async fn add_bridge(&self) -> Result<(), NetworkError> {
        let made = self.0.link().add(bridge()).execute().await;
        made.map_err(|e| link_error("making a bridge", e))?;
        self.up(BRIDGE).await
    }

    /// Makes a pair of veth interfaces: `end` in this network, and `other_end` in `there`.
    pub async fn add_cable(
        &self,
        end: &'static str,
        other_end: &'static str,
        there: BorrowedFd<'_>,
    ) -> Result<(), NetworkError> {
        let cable = LinkVeth::new(end, other_end).build();
        let made = self.0.link().add(cable).execute().await;
        made.map_err(|e| link_error("making a pair of veth links", e))?;
        let index = self.index_of(other_end).await?;
        let moved = LinkUnspec::new_with_index(index).setns_by_fd(there.as_raw_fd());
        self.set(moved, "moving a link to another network").await
    }

    /// Puts an interface on the bridge and brings it up.
    pub async fn add_port(&self, name: &'static str) -> Result<(), NetworkError> {
        let bridge = self.index_of(BRIDGE).await?;
        let port = self.index_of(name).await?;
        let attached = LinkUnspec::new_with_index(port).controller(bridge).up();
        self.set(attached, "putting a link on the bridge").await?;
        // For shadow receive: a bridge that does not learn where the guest is sends its frames to both
        // TAPs.
        let unlearned = LinkBridgePort::new(port).learning(false).build();
        let set = self.0.link().set_port(unlearned).execute().await;
        set.map_err(|e| link_error("keeping a bridge from learning", e))
    }

    /// Gives an interface an address.
    pub async fn give_address(
        &self,
        name: &'static str,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> Result<(), NetworkError> {
        let index = self.index_of(name).await?;
        let addresses = self.0.address();
        let added = addresses.add(index, address.into(), prefix_len).execute();
        let added = added.await;
        added.map_err(|e| link_error("giving an interface its address", e))
    }

    async fn set(
        &self,
        change: LinkMessageBuilder<LinkUnspec>,
        step: &'static str,
    ) -> Result<(), NetworkError> {
        let set = self.0.link().set(change.build()).execute().await;
        set.map_err(|e| link_error(step, e))
    }

    async fn index_of(&self, name: &'static str) -> Result<u32, NetworkError> {
        let found = self.0.link().get().match_name(name.to_owned()).execute();
        let link = std::pin::pin!(found)
            .try_next()
            .await
            .map_err(|e| link_error("looking up an interface", e))?;
        link.map(|l| l.header.index)
            .ok_or_else(|| link_error("looking up an interface", "it is gone"))
    }
}

/// A bridge that forwards frames from its first moment: no spanning tree, no listening delay, and no
/// snooping of multicast groups.
fn bridge() -> LinkMessage {
    LinkBridge::new(BRIDGE)
        .stp_state(BridgeStpState::Disabled)
        .forward_delay(0)
        .append_info_data(InfoBridge::MulticastSnooping(false))
        .build()
}

/// The error that this step failed, with general advice.
pub fn link_error(step: &'static str, error: impl ToString) -> NetworkError {
    NetworkError::Link {
        step,
        reason: error.to_string(),
        advice: "the kernel needs bridges (modprobe bridge), veth links (modprobe veth) and the drill CAP_NET_ADMIN in its network namespace; run it as root outside a confined container",
    }
}
