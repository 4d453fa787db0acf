//! What a record says that no column is for.

use std::fmt::Write as _;

use crate::wire::uint;

/// Bytes of one record's names and values together.
pub const MAX_UNMAPPED_BYTES: usize = 1024;
/// Bytes of a name at most: `enterprise.element#nth`.
const NAME_BYTES: usize = 22;

/// Names and values, in the order of the record, [`MAX_UNMAPPED_BYTES`] at most; of what there is no room for it is known
/// that it was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unmapped {
    /// Name, value, name, value, …
    text: String,
    /// Where names and values end.
    ends: Vec<(usize, usize)>,
    is_cut: bool,
}

impl Unmapped {
    /// Takes in the value of an element, the nth of it in the record, from 1 on. What has a fixed length of up to eight bytes
    /// is a number; else it is a text where all of it can be read, or hex digits.
    pub fn push(&mut self, (enterprise, element, nth): (u32, u16, u16), value: &[u8], is_variable: bool) {
        // Two digits a byte.
        if self.text.len() + NAME_BYTES + value.len() * 2 + 2 > MAX_UNMAPPED_BYTES {
            self.is_cut = true;
            return;
        }
        let out = &mut self.text;
        let _ = write!(out, "{enterprise}.{element}");
        if nth > 1 {
            let _ = write!(out, "#{nth}");
        }
        let name_end = out.len();
        if !is_variable && value.len() <= 8 {
            let _ = write!(out, "{}", uint(value));
        } else if let Some(text) = readable(value) {
            out.push_str(text);
        } else {
            out.push_str("0x");
            for byte in value {
                let _ = write!(out, "{byte:02x}");
            }
        }
        self.ends.push((name_end, out.len()));
    }

    /// Takes in another value of an element, of fixed length.
    pub fn push_next(&mut self, enterprise: u32, element: u16, value: &[u8]) {
        let name = format!("{enterprise}.{element}");
        // At most one in so many bytes of the bound.
        let before = self.iter().filter(|(known, _)| known.split('#').next() == Some(&name)).count();
        self.push((enterprise, element, before as u16 + 1), value, false);
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        begins.zip(&self.ends).map(|(begin, (name, end))| (&self.text[begin..*name], &self.text[*name..*end]))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether there were more than there is room for.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
        self.is_cut = false;
    }
}

/// A text, without the zeros that fill its field.
fn readable(value: &[u8]) -> Option<&str> {
    let end = value.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    std::str::from_utf8(&value[..end]).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbers_texts_or_digits_and_bounded() {
        let mut unmapped = Unmapped::default();
        unmapped.push((0, 1, 1), &[1, 0], false);
        unmapped.push((0, 2, 1), b"eth0\0\0\0\0\0\0", false);
        unmapped.push((9, 2, 1), b"a", true);
        unmapped.push((9, 2, 2), &[0xff; 9], false);
        unmapped.push((u32::MAX, u16::MAX, u16::MAX), &[], true);
        let got: Vec<_> = unmapped.iter().collect();
        let longest = "4294967295.65535#65535";
        assert_eq!(longest.len(), NAME_BYTES);
        let digits = "0xffffffffffffffffff";
        assert_eq!(got, [("0.1", "256"), ("0.2", "eth0"), ("9.2", "a"), ("9.2#2", digits), (longest, "")]);
        for _ in 0..100 {
            unmapped.push((0, 6, 1), &[0xff; 100], true);
        }
        let bytes: usize = unmapped.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(bytes <= MAX_UNMAPPED_BYTES && unmapped.is_cut());
        unmapped.clear();
        assert_eq!(unmapped, Unmapped::default());
    }
}
