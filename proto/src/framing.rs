//! Messages out of a TCP stream's bytes.

use crate::syslog::Framer;

/// Takes in bytes as they arrive and gives the messages they complete.
pub trait Framing: Default + Send {
    /// The messages that these bytes complete.
    fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>>;
    /// What is left when the peer closes, if it is a message too, or a part of one.
    fn finish(&mut self) -> Vec<Vec<u8>>;
    /// Whether a message is whole, as far as is known without what follows it.
    fn waits(&self) -> bool {
        false
    }
    /// What [`Framing::waits`], when nothing has followed for a while.
    fn pause(&mut self) -> Vec<Vec<u8>> {
        Vec::new()
    }
    /// Where the next message begins cannot be known: nothing more of the stream can be read.
    fn is_lost(&self) -> bool {
        false
    }
}

impl Framing for Framer {
    fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        Framer::push(self, bytes)
    }

    fn finish(&mut self) -> Vec<Vec<u8>> {
        Framer::finish(self)
    }

    fn waits(&self) -> bool {
        Framer::waits(self)
    }

    fn pause(&mut self) -> Vec<Vec<u8>> {
        Framer::pause(self)
    }
}

/// IPFIX over TCP (RFC 7011 section 10.4): one message after another, each with its length in its header. What is no
/// message is given as it is, for the decoder to reject, and is the end.
#[derive(Debug, Default)]
pub struct IpfixFramer {
    buffer: Vec<u8>,
    lost: bool,
}

/// The header of a message, bytes (RFC 7011 section 3.1).
const IPFIX_HEADER: usize = 16;

impl Framing for IpfixFramer {
    fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        if self.lost {
            return out;
        }
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let [v1, v2, l1, l2, ..] = self.buffer[at..] {
            let (version, length) = (u16::from_be_bytes([v1, v2]), usize::from(u16::from_be_bytes([l1, l2])));
            if version != 10 || length < IPFIX_HEADER {
                self.lost = true;
                let rest = &self.buffer[at..];
                out.push(rest[..rest.len().min(usize::from(u16::MAX))].to_vec());
                at = self.buffer.len();
                break;
            }
            if self.buffer.len() < at + length {
                break;
            }
            out.push(self.buffer[at..at + length].to_vec());
            at += length;
        }
        self.buffer.drain(..at);
        out
    }

    fn finish(&mut self) -> Vec<Vec<u8>> {
        Some(std::mem::take(&mut self.buffer)).filter(|rest| !rest.is_empty()).into_iter().collect()
    }

    fn is_lost(&self) -> bool {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let length = (IPFIX_HEADER + body.len()) as u16;
        [&[0, 10][..], &length.to_be_bytes(), &[0; 12], body].concat()
    }

    proptest::proptest! {
        #[test]
        fn messages_are_the_same_however_the_stream_is_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(0u8..=255, 0..200), 0..20),
            cuts in proptest::collection::vec(1usize..300, 1..50),
        ) {
            let messages: Vec<Vec<u8>> = bodies.iter().map(|body| message(body)).collect();
            let stream = messages.concat();
            let (mut framer, mut got, mut rest) = (IpfixFramer::default(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                got.extend(framer.push(now));
                rest = later;
            }
            proptest::prop_assert_eq!((got, framer.finish(), framer.is_lost()), (messages, vec![], false));
        }
    }

    #[test]
    fn what_is_no_message_is_given_once_and_is_the_end() {
        let mut framer = IpfixFramer::default();
        let noise = b"GET / HTTP/1.1\r\n";
        assert_eq!(framer.push(&[&message(b"one")[..], noise].concat()), [message(b"one"), noise.to_vec()]);
        assert!(framer.is_lost() && framer.push(b"more").is_empty() && framer.finish().is_empty());
        // A length that cannot be one.
        assert_eq!(IpfixFramer::default().push(&[0, 10, 0, 15, 1]), [[0, 10, 0, 15, 1]]);
        // The peer left in the middle of a message: a part of one, to be rejected.
        let mut framer = IpfixFramer::default();
        assert!(framer.push(&message(b"two")[..17]).is_empty());
        assert_eq!(framer.finish().concat().len(), 17);
    }
}
