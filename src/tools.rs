//! Commands that send: a capture's datagrams to a listener.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

fn bar(n: u64) -> ProgressBar {
    // On anything but a terminal it draws nothing.
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(n).with_style(style)
}

/// Sends the UDP payloads of a capture (pcap, Ethernet or raw IP) to an address, at most `rate` a second; tells how many.
pub(crate) fn replay(file: &Path, to: SocketAddr, rate: Option<u64>) -> Result<usize> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let payloads = udp_payloads(&bytes).with_context(|| format!("{} is no pcap capture", file.display()))?;
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    let progress = bar(payloads.len() as u64);
    let started = Instant::now();
    for (n, payload) in payloads.iter().enumerate() {
        if let Some(rate) = rate.filter(|r| *r > 0) {
            let due = Duration::from_secs_f64(n as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        socket.send_to(payload, to)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(payloads.len())
}

/// The UDP payloads of a classic pcap file (libpcap's file format, both byte orders, micro- and nanoseconds).
fn udp_payloads(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let little = match bytes.get(..4)? {
        [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => true,
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] => false,
        _ => return None,
    };
    let number = |at: usize| -> Option<usize> {
        let b: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) } as usize)
    };
    let link = number(20)?;
    let mut out = Vec::new();
    let mut at = 24;
    while let Some(length) = number(at + 8) {
        let Some(packet) = bytes.get(at + 16..at + 16 + length) else { break };
        at += 16 + length;
        let ip = match link {
            1 => packet.get(14..),
            101 => Some(packet),
            113 => packet.get(16..),
            _ => None,
        };
        out.extend(ip.and_then(udp_payload));
    }
    Some(out)
}

fn udp_payload(ip: &[u8]) -> Option<&[u8]> {
    let udp = match ip.first()? >> 4 {
        4 if ip.get(9) == Some(&17) => ip.get(usize::from(ip[0] & 15) * 4..)?,
        6 if ip.get(6) == Some(&17) => ip.get(40..)?,
        _ => return None,
    };
    let length = usize::from(u16::from_be_bytes(udp.get(4..6)?.try_into().ok()?));
    udp.get(8..length.max(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_a_capture() {
        let mut ip = vec![0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
        ip.extend([0, 9, 0, 9, 0, 11, 0, 0]);
        ip.extend(b"abc");
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0];
        for _ in 0..2 {
            file.extend([0; 8]);
            file.extend((ip.len() as u32).to_le_bytes());
            file.extend((ip.len() as u32).to_le_bytes());
            file.extend(&ip);
        }
        assert_eq!(udp_payloads(&file).unwrap(), [b"abc", b"abc"]);
        assert_eq!(udp_payloads(&file[..file.len() - 1]).unwrap().len(), 1);
        assert!(udp_payloads(b"nonsense").is_none());
    }
}
