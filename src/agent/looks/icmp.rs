//! An echo (RFC 792, RFC 4443): through a datagram socket, which needs no privilege where `net.ipv4.ping_group_range` has the
//! group, else through a raw one, which needs `CAP_NET_RAW`. A socket an echo: its kernel hands a datagram socket nothing but
//! answers to its own, and of what a raw one gets the payload tells which answer is ours.

use std::io;
use std::net::{IpAddr, SocketAddr};

use radarflow_reconcile::jobs::assign::hash;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{Answer, Failure};

/// Bytes of the payload, after the eight that tell it apart.
const PADDING: usize = 48;
/// Bytes before the payload.
const HEAD: usize = 8;

/// Types of questions and answers, by version.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// A socket for echoes; and whether answers have a header of IPv4.
fn open(v4: bool) -> io::Result<(Socket, bool)> {
    let (domain, protocol) = if v4 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => Ok((socket, false)),
        Err(_) => Ok((Socket::new(domain, Type::RAW, Some(protocol))?, v4)),
    }
}

/// Whether this process may ping.
///
/// # Errors
/// Why not.
pub(in crate::agent) fn permitted() -> io::Result<()> {
    open(true).map(|_| ())
}

/// The sum of RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])));
    let mut sum = words.fold(0u32, |sum, word| sum.wrapping_add(word));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A question.
fn question(v4: bool, nonce: u64) -> Vec<u8> {
    let mut packet = vec![if v4 { V4.0 } else { V6.0 }, 0, 0, 0];
    packet.extend_from_slice(&(nonce as u16).to_be_bytes());
    packet.extend_from_slice(&1u16.to_be_bytes());
    packet.extend_from_slice(&nonce.to_be_bytes());
    packet.resize(packet.len() + PADDING, 0x2e);
    // Of version 6 the kernel makes the sum, which has the addresses in it.
    let sum = if v4 { checksum(&packet) } else { 0 };
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Whether a packet answers a question.
fn answers(packet: &[u8], header: bool, v4: bool, nonce: u64) -> bool {
    let skip = if header { packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4) } else { 0 };
    let Some(packet) = packet.get(skip..) else { return false };
    let is = if v4 { V4.1 } else { V6.1 };
    packet.first() == Some(&is) && packet.get(HEAD..HEAD + 8) == Some(&nonce.to_be_bytes()[..])
}

/// Asks once, and waits for the answer.
pub(super) async fn ping(ip: IpAddr) -> Result<Answer, Failure> {
    let own = |error: io::Error| Failure::Own(error.to_string());
    let (socket, header) = open(ip.is_ipv4()).map_err(own)?;
    socket.set_nonblocking(true).map_err(own)?;
    let socket = UdpSocket::from_std(socket.into()).map_err(own)?;
    let nonce = hash(&format!("{ip}/{}/{}", super::now_us(), rand::random::<u64>()));
    let to = SocketAddr::new(ip, 0);
    socket.send_to(&question(ip.is_ipv4(), nonce), to).await.map_err(|error| Failure::of(&error))?;
    let mut packet = [0; 1500];
    loop {
        let (n, from) = socket.recv_from(&mut packet).await.map_err(|error| Failure::of(&error))?;
        if from.ip() == ip && answers(&packet[..n], header, ip.is_ipv4(), nonce) {
            return Ok(Answer::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_adds_up_and_only_its_answer_is_one() {
        let packet = question(true, 0x1234_5678_9abc_def0);
        assert_eq!(checksum(&packet), 0);
        let mut answer = packet.clone();
        answer[0] = V4.1;
        assert!(answers(&answer, false, true, 0x1234_5678_9abc_def0));
        assert!(!answers(&packet, false, true, 0x1234_5678_9abc_def0));
        assert!(!answers(&answer, false, true, 1));
        let with_header: Vec<u8> = [0x45].into_iter().chain([0; 19]).chain(answer).collect();
        assert!(answers(&with_header, true, true, 0x1234_5678_9abc_def0));
        for n in 0..with_header.len().min(36) {
            assert!(!answers(&with_header[..n], true, true, 0x1234_5678_9abc_def0));
        }
    }
}
