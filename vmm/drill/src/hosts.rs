//! A host for each member: a network that is joined to the client's network by a cable, and to the
//! other host by a wire that can be cut.
//!
//! ```text
//!           client, br0
//!      up-a │         │ up-b
//!      eth0 │         │ eth0
//!     ┌─ br0, tap-a ┐ ┌─ br0, tap-b ┐
//!     │   primary   │ │   backup    │
//!     └──── wire ───┘ └──── wire ───┘
//!             └── the drill's ──┘
//!                   thread
//! ```

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::lane::{Counts, Quality};
use super::wire::Wire;
use lockstep_backends::Tap;
use lockstep_netns::{
    BRIDGE, HOST, NetworkError, PREFIX_LEN, TAPS, configure, create_tap, current_network,
    enter_empty_network, enter_network, link_error,
};

/// Each host's address on the wire, and the length of the wire's network prefix in bits.
pub(super) const ADDRESSES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2)];
const WIRE_PREFIX_LEN: u8 = 24;
/// Each host's end of the wire, and of its cable; and the cables' ends at the client.
const WIRE: &str = "wire";
const CABLE: &str = "eth0";
const UPLINKS: [&str; 2] = ["up-a", "up-b"];

/// The two hosts: 0 is the primary's, 1 the backup's.
#[derive(Debug)]
pub(super) struct Hosts {
    networks: [OwnedFd; 2],
    wire: Wire,
}

impl Hosts {
    /// Moves this thread into a new private network with the client's address, and makes the hosts.
    pub(super) fn enter() -> Result<Self, NetworkError> {
        enter_empty_network()?;
        configure(async |links| {
            links.up("lo").await?;
            links.add_bridge().await?;
            links.give_address(BRIDGE, HOST, PREFIX_LEN).await
        })?;
        let clients = current_network()?;
        let (one, first) = make_host(0, clients.as_fd())?;
        let (two, second) = make_host(1, clients.as_fd())?;
        let wire = Wire::between([first, second]);
        let wire = wire.map_err(|e| link_error("starting the wire's thread", e))?;
        Ok(Self {
            networks: [one, two],
            wire,
        })
    }

    /// The network of a host.
    pub(super) fn network(&self, host: usize) -> BorrowedFd<'_> {
        self.networks[host].as_fd()
    }

    /// After this returns, the frames that `host` sends to the other host are treated like this.
    pub(super) fn set_wire(&self, host: usize, quality: Quality) {
        self.wire.set(host, quality);
    }

    /// Takes all links of a host down: no frame leaves it or reaches it any more.
    pub(super) fn unplug(&self, host: usize) -> Result<(), NetworkError> {
        for from in 0..2 {
            self.wire.set(from, Quality::CUT);
        }
        configure(async |links| links.down(UPLINKS[host]).await)
    }

    /// Counts of the frames on the wire, by the host that sent them.
    pub(super) fn counts(&self) -> [Counts; 2] {
        self.wire.counts()
    }
}

/// Makes a host. Returns its network and its end of the wire. Before and after, this thread is in the
/// network of the clients.
fn make_host(host: usize, clients: BorrowedFd<'_>) -> Result<(OwnedFd, Tap), NetworkError> {
    enter_empty_network()?;
    let network = current_network()?;
    create_tap(TAPS[host])?;
    create_tap(WIRE)?;
    let end = Tap::open(WIRE).map_err(|e| link_error("opening the wire", e))?;
    configure(async |links| {
        links.up("lo").await?;
        links.add_bridge().await?;
        links.add_cable(CABLE, UPLINKS[host], clients).await?;
        for port in [TAPS[host], CABLE] {
            links.add_port(port).await?;
        }
        links
            .give_address(WIRE, ADDRESSES[host], WIRE_PREFIX_LEN)
            .await?;
        links.up(WIRE).await
    })?;
    enter_network(clients).map_err(|e| link_error("returning to the client's network", e))?;
    configure(async |links| links.add_port(UPLINKS[host]).await)?;
    Ok((network, end))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddrV4, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use lockstep_netns::testing::in_own_network;

    const PORT: u16 = 7700;
    const LIMIT: Duration = Duration::from_secs(10);

    /// A connection from the second host to the first, over the wire.
    fn connection(hosts: &Hosts) -> (TcpStream, TcpStream) {
        let clients = current_network().unwrap();
        enter_network(hosts.network(0)).unwrap();
        let listener = TcpListener::bind((ADDRESSES[0], PORT)).unwrap();
        enter_network(hosts.network(1)).unwrap();
        let address = SocketAddrV4::new(ADDRESSES[0], PORT).into();
        let second = TcpStream::connect_timeout(&address, LIMIT).unwrap();
        let (first, _) = listener.accept().unwrap();
        enter_network(clients.as_fd()).unwrap();
        for end in [&first, &second] {
            end.set_nodelay(true).unwrap();
        }
        (first, second)
    }

    fn crosses(mut from: &TcpStream, mut to: &TcpStream, limit: Duration) -> bool {
        from.write_all(b"x").unwrap();
        to.set_read_timeout(Some(limit)).unwrap();
        to.read_exact(&mut [0]).is_ok()
    }

    #[test]
    fn hosts_speak_over_the_wire_and_each_direction_is_cut_alone() {
        let path = concat!(
            module_path!(),
            "::hosts_speak_over_the_wire_and_each_direction_is_cut_alone"
        );
        in_own_network(path, || {
            let hosts = Hosts::enter().unwrap();
            let (first, second) = connection(&hosts);
            assert!(crosses(&first, &second, LIMIT) && crosses(&second, &first, LIMIT));
            assert_eq!(hosts.counts().map(|c| c.cut), [0, 0]);
            hosts.set_wire(0, Quality::CUT);
            assert!(!crosses(&first, &second, Duration::from_millis(100)));
            assert!(crosses(&second, &first, LIMIT), "the other way is open");
            assert!(hosts.counts()[0].cut > 0 && hosts.counts()[1].cut == 0);
            hosts.set_wire(0, Quality::default());
            second.set_read_timeout(Some(LIMIT)).unwrap();
            (&second).read_exact(&mut [0]).expect("TCP repeats it");
        });
    }

    #[test]
    fn nothing_leaves_an_unplugged_host_not_even_the_end_of_a_connection() {
        let path = concat!(
            module_path!(),
            "::nothing_leaves_an_unplugged_host_not_even_the_end_of_a_connection"
        );
        in_own_network(path, || {
            let hosts = Hosts::enter().unwrap();
            let (first, second) = connection(&hosts);
            hosts.unplug(0).unwrap();
            drop(first);
            second
                .set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            let end = (&second).read(&mut [0]);
            assert!(end.is_err(), "it hears nothing, no end either: {end:?}");
            assert!(hosts.counts()[0].cut > 0, "it was said");
        });
    }
}
