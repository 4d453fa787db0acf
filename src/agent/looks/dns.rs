//! A question to a name server (RFC 1035), over UDP: it is right if the server answers without an error, and has records.

use std::net::{IpAddr, SocketAddr};

use tokio::net::UdpSocket;

use super::{Answer, Failure, Look};

/// The port of name servers.
const PORT: u16 = 53;
/// Bytes of a header.
const HEAD: usize = 12;
/// Names of response codes (RFC 1035, 2136).
const CODES: [&str; 6] = ["no error", "format error", "server failure", "no such name", "not implemented", "refused"];

fn number(record_type: &str) -> Option<u16> {
    Some(match record_type {
        "A" => 1,
        "NS" => 2,
        "CNAME" => 5,
        "SOA" => 6,
        "PTR" => 12,
        "MX" => 15,
        "TXT" => 16,
        "AAAA" => 28,
        _ => return None,
    })
}

/// A question, if the name is one.
fn question(id: u16, name: &str, record_type: &str) -> Option<Vec<u8>> {
    let mut packet = id.to_be_bytes().to_vec();
    // A recursive question, one of it.
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        packet.push(length);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&number(record_type)?.to_be_bytes());
    packet.extend_from_slice(&1u16.to_be_bytes());
    (packet.len() <= HEAD + 255 + 4).then_some(packet)
}

/// The response code of an answer, and how many records it has; `None` of what is no answer to the question.
fn answer(packet: &[u8], question: &[u8]) -> Option<(u16, u16)> {
    let is = packet.len() >= question.len()
        && packet[..2] == question[..2]
        && packet[2] & 0x80 != 0
        && packet[HEAD..question.len()].eq_ignore_ascii_case(&question[HEAD..]);
    is.then(|| (u16::from(packet[3] & 0x0f), u16::from_be_bytes([packet[6], packet[7]])))
}

pub(super) async fn ask(look: &Look, ip: IpAddr) -> Result<Answer, Failure> {
    let own = |error: std::io::Error| Failure::Own(error.to_string());
    let asked = look.job.told.dns.as_ref().and_then(|dns| question(rand::random(), &dns.name, &dns.record_type));
    let asked = asked.ok_or_else(|| Failure::Own("nothing that can be asked".to_owned()))?;
    let any: SocketAddr = if ip.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(own)?;
    socket.connect((ip, look.port.unwrap_or(PORT))).await.map_err(|error| Failure::of(&error))?;
    socket.send(&asked).await.map_err(|error| Failure::of(&error))?;
    let mut packet = [0; 4096];
    loop {
        let n = socket.recv(&mut packet).await.map_err(|error| Failure::of(&error))?;
        if let Some((code, records)) = answer(&packet[..n], &asked) {
            let wrong = match (code, records) {
                (0, 0) => Some("no such record".to_owned()),
                (0, _) => None,
                (code, _) => {
                    Some(CODES.get(usize::from(code)).map_or_else(|| format!("code {code}"), |c| (*c).to_owned()))
                }
            };
            return Ok(Answer { status_code: Some(code), wrong, ..Answer::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_question_is_one() {
        let asked = question(7, "Core-1.example.", "A").unwrap();
        assert_eq!(&asked[HEAD..], b"\x06Core-1\x07example\0\0\x01\0\x01");
        let mut said = asked.clone();
        (said[2], said[3], said[7]) = (0x81, 0x83, 2);
        assert_eq!(answer(&said, &asked), Some((3, 2)));
        assert_eq!(answer(&asked, &asked), None);
        said[0] = 1;
        assert_eq!(answer(&said, &asked), None);
        for n in 0..asked.len() {
            assert_eq!(answer(&said[..n], &asked), None);
        }
        assert_eq!(question(7, &"a".repeat(64), "A"), None);
        assert_eq!(question(7, "a", "ANY"), None);
    }
}
