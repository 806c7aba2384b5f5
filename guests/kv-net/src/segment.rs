//! Cuts a TCP segment into several that fit a path.
//!
//! The stack chooses a connection's segment size once, when the connection opens. A path's limit may
//! become known later, so segments are cut on their way out. The peer cannot tell the difference.

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, TcpPacket};

use crate::path_mtu::{LEAST, Path};
use crate::{MTU, path_mtu};

/// Bytes of the longest TCP header.
const LONGEST_TCP_HEADER: usize = 60;
/// Bytes of the IP header that the stack writes: it has no options.
const IP_HEADER: usize = 20;
/// Most packets into which one is cut.
pub const MOST_PIECES: usize =
    (MTU - IP_HEADER - 20).div_ceil(path_mtu::LEAST - IP_HEADER - LONGEST_TCP_HEADER);
const _: () = assert!(LEAST > IP_HEADER + LONGEST_TCP_HEADER);

/// Passes `packet` to `send` in packets that `path` carries. A packet without TCP stays whole, and
/// routers may fragment it. `identification` numbers the packets that routers may fragment.
pub fn fit(packet: &mut [u8], path: Path, identification: &mut u16, mut send: impl FnMut(&[u8])) {
    let whole = Ipv4Packet::new_unchecked(&*packet);
    let tcp = whole.next_header() == IpProtocol::Tcp;
    let fits = usize::from(whole.total_len()) <= path.mtu;
    if path.may_fragment || !(tcp || fits) {
        allow_fragments(packet, identification);
    }
    if fits || !tcp {
        return send(packet);
    }
    let ip = Ipv4Packet::new_unchecked(&*packet);
    let head = usize::from(ip.header_len());
    let segment = TcpPacket::new_unchecked(ip.payload());
    let (sequence, ends) = (segment.seq_number(), (segment.fin(), segment.psh()));
    let head = head + usize::from(segment.header_len());
    let payload = &packet[head..usize::from(ip.total_len())];
    let pieces = payload.chunks(path.mtu - head);
    let last = pieces.len() - 1;
    let mut before = 0;
    let mut buffer = [0; MTU];
    for (index, piece) in pieces.enumerate() {
        let bytes = &mut buffer[..head + piece.len()];
        bytes[..head].copy_from_slice(&packet[..head]);
        bytes[head..].copy_from_slice(piece);
        if path.may_fragment && index > 0 {
            allow_fragments(bytes, identification);
        }
        let mut ip = Ipv4Packet::new_unchecked(&mut *bytes);
        ip.set_total_len((head + piece.len()) as u16);
        ip.fill_checksum();
        let ends = if index == last { ends } else { (false, false) };
        let addresses = [ip.src_addr(), ip.dst_addr()].map(IpAddress::Ipv4);
        let mut segment = TcpPacket::new_unchecked(ip.payload_mut());
        segment.set_seq_number(sequence + before);
        segment.set_fin(ends.0);
        segment.set_psh(ends.1);
        segment.fill_checksum(&addresses[0], &addresses[1]);
        send(bytes);
        before += piece.len();
    }
}

/// Lets routers fragment this packet: each such packet has its own number (RFC 6864).
fn allow_fragments(packet: &mut [u8], identification: &mut u16) {
    let mut ip = Ipv4Packet::new_unchecked(packet);
    ip.set_dont_frag(false);
    ip.set_ident(*identification);
    ip.fill_checksum();
    *identification = identification.wrapping_add(1);
}
