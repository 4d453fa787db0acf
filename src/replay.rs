//! `radarflow replay`: sends the datagrams of a capture to a listener.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::capture::{self, Summary};

fn bar(bytes: u64) -> ProgressBar {
    // On anything but a terminal it draws nothing.
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}

/// Sends the UDP payloads of a capture to an address, at most `rate` a second; tells how many, and what was left out.
pub(crate) fn replay(path: &Path, to: SocketAddr, rate: Option<u64>) -> Result<Summary> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    let progress = bar(file.metadata()?.len());
    let started = Instant::now();
    let mut sent = 0u64;
    let send = |payload: &[u8], read: u64| -> Result<()> {
        if let Some(rate) = rate.filter(|r| *r > 0) {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        socket.send_to(payload, to).with_context(|| format!("cannot send to {to}"))?;
        sent += 1;
        progress.set_position(read);
        progress.set_message(format!("{sent} datagrams"));
        Ok(())
    };
    let summary = capture::datagrams(file, send).with_context(|| path.display().to_string());
    progress.finish_and_clear();
    summary
}
