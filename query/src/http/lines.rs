//! A request's body a line at a time, as it comes: however long it is, a line of it is in memory.

use axum::body::BodyDataStream;
use futures::StreamExt;

/// Why there is no next line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadLine {
    /// The request broke off.
    Broken,
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
}

impl Lines {
    pub(crate) fn new(body: axum::body::Body, longest: usize) -> Self {
        let body = body.into_data_stream();
        Lines { body, rest: Vec::new(), begin: 0, ended: false, longest, number: 0 }
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
                Some(Ok(part)) => self.rest.extend_from_slice(&part),
                Some(Err(_)) => return Err(BadLine::Broken),
                None => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(parts: Vec<Result<&'static str, std::io::Error>>) -> (Vec<(usize, String)>, Option<BadLine>) {
        let mut lines = Lines::new(axum::body::Body::from_stream(futures::stream::iter(parts)), 8);
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
            assert_eq!(read(parts.into_iter().map(Ok).collect()).await, (whole.clone(), None));
        }
        assert_eq!(read(vec![]).await, (vec![], None));
        assert_eq!(read(vec![Ok("a\n123456789\n")]).await.1, Some(BadLine::TooLong(2)));
        assert_eq!(read(vec![Ok("a\n12345"), Ok("6789")]).await.1, Some(BadLine::TooLong(2)));
        let (read, bad) = read(vec![Ok("a\nb"), Err(std::io::Error::other("gone"))]).await;
        assert_eq!((read, bad), (vec![(1, "a".to_owned())], Some(BadLine::Broken)));
    }
}
