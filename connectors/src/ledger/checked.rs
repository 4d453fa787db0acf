//! Small files of JSON whose damage is noticed: the text, and on a line below it the CRC32C of all before, in hexadecimal.
//!
//! The first release wrote no such line; what lacks it is believed if it can be read.

/// Text with its checksum.
pub(super) fn seal(mut json: Vec<u8>) -> Vec<u8> {
    json.push(b'\n');
    let crc = crc32c::crc32c(&json);
    json.extend(format!("{crc:08x}\n").bytes());
    json
}

/// The text, if it is what was written.
pub(super) fn open(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let Some((json, line)) = bytes.split_last_chunk::<9>() else { return Ok(bytes) };
    let is_line = json.ends_with(b"\n") && line[8] == b'\n' && line[..8].iter().all(u8::is_ascii_hexdigit);
    if !is_line {
        return Ok(bytes);
    }
    if line[..8] == *format!("{:08x}", crc32c::crc32c(json)).as_bytes() {
        Ok(json)
    } else {
        Err("the checksum does not match")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed_and_what_has_no_checksum_is_read() {
        let read = |bytes: &[u8]| open(bytes).ok().and_then(|json| serde_json::from_slice::<Vec<u64>>(json).ok());
        let sealed = seal(b"[1, 22, 333]".to_vec());
        assert_eq!(read(&sealed), Some(vec![1, 22, 333]));
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bad), None, "bit {bit}");
        }
        assert_eq!(read(b"[7]"), Some(vec![7]));
    }
}
