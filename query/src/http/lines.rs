//! A request's body a line at a time, as it comes: however long it is, a line of it is in memory.

use axum::body::BodyDataStream;
use futures::StreamExt;
use radarflow_proto::room::Held;

use crate::http::reading::Unread;

/// Why there is no next line.
#[derive(Debug)]
pub(crate) enum BadLine {
    /// Nothing more is read.
    Unread(Unread),
    /// This line is longer than it may be.
    TooLong(usize),
}

/// The lines of a body.
pub(crate) struct Lines {
    body: BodyDataStream,
    /// What came and is not read yet.
    rest: Vec<u8>,
    /// Where in it the next line begins.
    begin: usize,
    ended: bool,
    longest: usize,
    number: usize,
    /// What is there of it, twice: it grows by doubling.
    held: Held,
}

impl Lines {
    pub(crate) fn new(body: axum::body::Body, longest: usize, held: Held) -> Self {
        let body = body.into_data_stream();
        Lines { body, rest: Vec::new(), begin: 0, ended: false, longest, number: 0, held }
    }

    /// The next line that says something, and its number, from 1.
    pub(crate) async fn next(&mut self) -> Result<Option<(usize, &[u8])>, BadLine> {
        loop {
            let end = self.rest[self.begin..].iter().position(|b| *b == b'\n').map(|at| self.begin + at);
            let end = end.or((self.ended && self.begin < self.rest.len()).then_some(self.rest.len()));
            if let Some(end) = end {
                let begin = std::mem::replace(&mut self.begin, (end + 1).min(self.rest.len()));
                self.number += 1;
                if end - begin > self.longest {
                    return Err(BadLine::TooLong(self.number));
                }
                if !self.rest[begin..end].trim_ascii().is_empty() {
                    return Ok(Some((self.number, self.rest[begin..end].trim_ascii())));
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            self.rest.drain(..std::mem::take(&mut self.begin));
            if self.rest.len() > self.longest {
                return Err(BadLine::TooLong(self.number + 1));
            }
            match self.body.next().await {
                Some(Ok(part)) => {
                    let more = (2 * (self.rest.len() + part.len())).saturating_sub(self.held.bytes());
                    self.held.grow(more).map_err(|no| BadLine::Unread(Unread::NoRoom(no)))?;
                    self.rest.extend_from_slice(&part);
                }
                Some(Err(error)) => return Err(BadLine::Unread(Unread::of(error))),
                None => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use radarflow_proto::room::Room;

    use super::*;

    async fn read(parts: Vec<Result<&'static str, std::io::Error>>) -> (Vec<(usize, String)>, Option<BadLine>) {
        read_in(1 << 20, parts).await
    }

    async fn read_in(
        bytes: usize,
        parts: Vec<Result<&'static str, std::io::Error>>,
    ) -> (Vec<(usize, String)>, Option<BadLine>) {
        let held = Room::of(bytes).hold("t");
        let mut lines = Lines::new(axum::body::Body::from_stream(futures::stream::iter(parts)), 8, held);
        let mut all = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some((number, line))) => all.push((number, String::from_utf8(line.to_vec()).unwrap())),
                Ok(None) => return (all, None),
                Err(bad) => return (all, Some(bad)),
            }
        }
    }

    #[tokio::test]
    async fn lines_are_the_same_however_they_come() {
        let whole = vec![(1, "a".to_owned()), (3, "bc".to_owned()), (4, "d".to_owned())];
        for parts in [vec!["a\n\nbc\r\nd"], vec!["a", "\n", "\nb", "c\n", "d", ""], vec!["a\n \nbc\nd\n"]] {
            let (read, bad) = read(parts.into_iter().map(Ok).collect()).await;
            assert!(read == whole && bad.is_none(), "{read:?} {bad:?}");
        }
        assert!(matches!(read(vec![]).await, (read, None) if read.is_empty()));
        assert!(matches!(read(vec![Ok("a\n123456789\n")]).await.1, Some(BadLine::TooLong(2))));
        assert!(matches!(read(vec![Ok("a\n12345"), Ok("6789")]).await.1, Some(BadLine::TooLong(2))));
        let (said, bad) = read(vec![Ok("a\nb"), Err(std::io::Error::other("gone"))]).await;
        assert_eq!(said, vec![(1, "a".to_owned())]);
        assert!(matches!(bad, Some(BadLine::Unread(Unread::Broken))));
        // Lines that come one after the other take no more than one.
        let many = || (0..100).map(|_| Ok("123\n")).collect();
        assert!(matches!(read_in(64, many()).await, (read, None) if read.len() == 100));
        assert!(matches!(read_in(4, many()).await.1, Some(BadLine::Unread(Unread::NoRoom(_)))));
    }
}
