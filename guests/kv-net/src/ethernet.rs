//! Which frames are for the server, and what they carry.

use core::ops::Range;

use smoltcp::wire::{EthernetAddress, EthernetFrame, EthernetProtocol};

/// Bytes of an Ethernet header.
pub const HEADER: usize = EthernetFrame::<&[u8]>::header_len();
/// IEEE 802.1Q: the type of a frame with a VLAN tag.
const TAGGED: u16 = 0x8100;
/// Bytes of a VLAN tag's two fields: priority with VLAN, and the type of what follows.
const TAG: usize = 4;
/// The bits of a tag that name the VLAN. VLAN 0 means no VLAN: such a tag only has a priority.
const VLAN: u16 = 0x0fff;

/// A frame that is for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The sender's address.
    pub source: EthernetAddress,
    /// Was it a broadcast?
    pub broadcast: bool,
    /// The protocol of its payload.
    pub protocol: EthernetProtocol,
    /// The payload's place in the frame.
    pub payload: Range<usize>,
}

/// Opens a frame; `None` if it is not for `own` or belongs to a VLAN. Frames from `own` are the
/// server's own frames, which have come back: they are not opened either.
pub fn open(bytes: &[u8], own: EthernetAddress) -> Option<Opened> {
    let frame = EthernetFrame::new_checked(bytes).ok()?;
    let (source, destination) = (frame.src_addr(), frame.dst_addr());
    let broadcast = destination.is_broadcast();
    if !source.is_unicast() || source == own || !(broadcast || destination == own) {
        return None;
    }
    let (protocol, start) = match u16::from(frame.ethertype()) {
        TAGGED => untag(frame.payload())?,
        untagged => (untagged, HEADER),
    };
    Some(Opened {
        source,
        broadcast,
        protocol: protocol.into(),
        payload: start..bytes.len(),
    })
}

/// The payload's type and place in a tagged frame, if its tag has a priority only.
fn untag(tag: &[u8]) -> Option<(u16, usize)> {
    let [vlan, protocol] =
        [tag.get(..2)?, tag.get(2..TAG)?].map(|field| u16::from_be_bytes([field[0], field[1]]));
    (vlan & VLAN == 0).then_some((protocol, HEADER + TAG))
}

/// The header of a frame.
pub fn header(
    source: EthernetAddress,
    destination: EthernetAddress,
    protocol: EthernetProtocol,
) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(source);
    frame.set_dst_addr(destination);
    frame.set_ethertype(protocol);
    bytes
}
