//! RFC 6587: a TCP stream's bytes to messages, by counts of octets or by LF or NUL, frame by frame, because relays mix them
//! on one connection.
//!
//! A count may be wrong, and the stream finds its way back:
//!
//! | what is wrong | what shows it | what is taken |
//! |---|---|---|
//! | the sender counts characters | no frame begins where the octets end, one where so many characters do | so many characters |
//! | the count is too large | two frames begin in it, one after the other, and the second reaches beyond it | what is before them |
//! | the count is too small | no frame begins behind it | it, and what is before the next frame as a message of its own |
//!
//! What is not ASCII waits for what follows, once a connection has not shown yet that it counts octets.

use super::MAX_MESSAGE;

/// Takes messages out of a stream's bytes.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// The rest of an oversize message is being skipped up to its end.
    skipping: Option<Skip>,
    /// The last frame had a count.
    counts: bool,
    /// A frame that is not ASCII ended where its count of octets says.
    counts_octets: bool,
}

#[derive(Clone, Copy, Debug)]
enum Skip {
    Bytes(usize),
    Line,
}

/// What comes after the bytes there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// More, perhaps soon.
    More,
    /// Nothing for now: what is whole goes.
    Pause,
    /// Nothing: the peer has closed.
    End,
}

/// What stands at the beginning of some bytes.
enum Begin {
    /// A count, and a message behind it.
    Frame { start: usize, len: usize },
    /// Too few bytes to tell.
    More,
    /// No count.
    No,
}

impl Framer {
    /// Takes in bytes as they arrived and returns the messages they complete. An oversize message is returned cut at
    /// one byte over [`MAX_MESSAGE`], so that [`super::parse`] flags it; the rest of it is skipped.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.buffer.extend_from_slice(bytes);
        self.take(Then::More)
    }

    /// What is whole and waits for what follows, where nothing follows for a while.
    pub fn pause(&mut self) -> Vec<Vec<u8>> {
        self.take(Then::Pause)
    }

    /// Whether a whole message waits for what follows.
    pub fn waits(&self) -> bool {
        match begin(&self.buffer) {
            Begin::Frame { start, len } => self.skipping.is_none() && self.buffer.len() >= start + len,
            _ => false,
        }
    }

    /// What is left when the peer closes: an unterminated last line is a message too.
    pub fn finish(&mut self) -> Vec<Vec<u8>> {
        let mut out = self.take(Then::End);
        let rest = std::mem::take(&mut self.buffer);
        let skipped = self.skipping.take().is_some();
        if !rest.is_empty() && !skipped {
            // Of a count that promises more only the message is left.
            let start = if let Begin::Frame { start, .. } = begin(&rest) { start } else { 0 };
            out.push(rest[start..].to_vec());
        }
        out
    }

    fn take(&mut self, then: Then) -> Vec<Vec<u8>> {
        let buffer = std::mem::take(&mut self.buffer);
        let (mut out, mut at) = (Vec::new(), 0);
        loop {
            let rest = &buffer[at..];
            let step = match self.skipping {
                Some(skip) => self.skip(skip, rest),
                None => match begin(rest) {
                    Begin::More => None,
                    Begin::Frame { start, len } => self.frame(rest, (start, len), then, &mut out),
                    Begin::No => self.line(rest, &mut out),
                },
            };
            match step {
                Some(n) => at += n,
                None => break,
            }
        }
        self.buffer = buffer;
        self.buffer.drain(..at);
        out
    }

    /// Skips; `None` where it is not over.
    fn skip(&mut self, skip: Skip, rest: &[u8]) -> Option<usize> {
        if rest.is_empty() {
            return None;
        }
        match skip {
            Skip::Bytes(n) => {
                self.skipping = Some(n - n.min(rest.len())).filter(|left| *left > 0).map(Skip::Bytes);
                Some(n.min(rest.len()))
            }
            Skip::Line => match memchr::memchr2(b'\n', 0, rest) {
                Some(end) => {
                    self.skipping = None;
                    Some(end + 1)
                }
                None => Some(rest.len()),
            },
        }
    }

    /// A counted frame; `None` where it is not whole, or not clear yet.
    fn frame(
        &mut self,
        rest: &[u8],
        (start, len): (usize, usize),
        then: Then,
        out: &mut Vec<Vec<u8>>,
    ) -> Option<usize> {
        let kept = len.min(MAX_MESSAGE + 1);
        if rest.len() < start + kept {
            return None;
        }
        self.counts = true;
        let message = &rest[start..start + kept];
        if let Some(end) = begins_within(&rest[..start + kept], start, start + len) {
            out.push(rest[start..end].to_vec());
            return Some(end);
        }
        if len > kept {
            self.skipping = Some(Skip::Bytes(len - kept));
        } else if !self.counts_octets && !message.is_ascii() {
            match is_begin(&rest[start + len..]) {
                None if then == Then::More => return None,
                None => {}
                Some(true) => self.counts_octets = true,
                // Beyond the longest message nobody waits for characters.
                Some(false) => match characters(&rest[start..rest.len().min(start + MAX_MESSAGE)], len) {
                    Some(octets) if is_begin(&rest[start + octets..]) == Some(true) => {
                        out.push(rest[start..start + octets].to_vec());
                        return Some(start + octets);
                    }
                    Some(octets) if is_begin(&rest[start + octets..]).is_some() => {}
                    _ if then == Then::More && rest.len() < start + MAX_MESSAGE => return None,
                    Some(octets) => {
                        out.push(rest[start..start + octets].to_vec());
                        return Some(start + octets);
                    }
                    None => {}
                },
            }
        }
        out.push(message.to_vec());
        Some(start + kept)
    }

    /// A line, or on a connection that counts what stands before the next frame; `None` where it has no end yet.
    fn line(&mut self, rest: &[u8], out: &mut Vec<Vec<u8>>) -> Option<usize> {
        let within = &rest[..rest.len().min(MAX_MESSAGE + 1)];
        let end = memchr::memchr2(b'\n', 0, within);
        let next = if self.counts { next_frame(&within[..end.unwrap_or(within.len())]) } else { None };
        if let Some(next) = next {
            out.push(rest[..next].to_vec());
            return Some(next);
        }
        match end {
            Some(end) => {
                let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                if !line.is_empty() {
                    out.push(line.to_vec());
                }
                Some(end + 1)
            }
            None if rest.len() > MAX_MESSAGE => {
                out.push(rest[..MAX_MESSAGE + 1].to_vec());
                self.skipping = Some(Skip::Line);
                Some(MAX_MESSAGE + 1)
            }
            None => None,
        }
    }
}

/// `MSG-LEN SP MSG`: a frame is counted when it begins with a number without leading zero, a blank, and then `<`.
fn begin(rest: &[u8]) -> Begin {
    let digits = rest.iter().take(10).take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || rest[0] == b'0' || digits > 9 {
        return if rest.is_empty() { Begin::More } else { Begin::No };
    }
    match (rest.get(digits), rest.get(digits + 1)) {
        (None, _) | (Some(b' '), None) => Begin::More,
        (Some(b' '), Some(b'<')) => {
            let len = rest[..digits].iter().fold(0usize, |n, b| n * 10 + usize::from(b - b'0'));
            Begin::Frame { start: digits + 1, len }
        }
        _ => Begin::No,
    }
}

/// Whether a message may begin with these bytes: a count, a priority, or the end of a line; `None` where that is not clear yet.
fn is_begin(rest: &[u8]) -> Option<bool> {
    match begin(rest) {
        Begin::More => None,
        Begin::Frame { .. } => Some(true),
        Begin::No => Some(matches!(rest.first(), Some(b'<' | b'\n' | b'\r' | 0))),
    }
}

/// How many octets so many characters have; `None` where some are not there yet. What is not UTF-8 is a character an octet.
fn characters(bytes: &[u8], n: usize) -> Option<usize> {
    let (mut at, mut left) = (0, n);
    while left > 0 {
        let valid = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let len = match valid[0] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => 1,
        };
        let is_one = |len: usize| bytes.get(at..at + len).map(|c| std::str::from_utf8(c).is_ok());
        at += if is_one(len)? { len } else { 1 };
        left -= 1;
    }
    Some(at)
}

/// Where the next `MSG-LEN SP <` begins, a priority in it.
fn next_frame(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'<', bytes).find_map(|at| frame_before(bytes, at).filter(|from| *from > 0))
}

/// Where a count begins that stands before a priority.
fn frame_before(bytes: &[u8], priority: usize) -> Option<usize> {
    let digits = bytes[priority + 1..].iter().take(4).take_while(|b| b.is_ascii_digit()).count();
    if !(1..=3).contains(&digits) || bytes.get(priority + 1 + digits) != Some(&b'>') {
        return None;
    }
    let before = bytes[..priority].strip_suffix(b" ")?;
    let count = before.iter().rev().take(6).take_while(|b| b.is_ascii_digit()).count();
    let from = before.len() - count;
    // A number has no leading zero.
    let from = from + before[from..].iter().take_while(|b| **b == b'0').count();
    (from < before.len()).then_some(from)
}

/// Where in a frame another begins that is followed by a third, which reaches beyond the frame: its count is too large.
fn begins_within(bytes: &[u8], start: usize, end: usize) -> Option<usize> {
    let from = start + 1 + next_frame(&bytes[start + 1..])?;
    let (mut at, mut frames) = (from, 0);
    while at < end {
        let Some(Begin::Frame { start, len }) = bytes.get(at..).map(begin) else { return None };
        at += start + len;
        frames += 1;
    }
    (frames > 1 && at > end).then_some(from)
}
