//! A frame that decodes is the frame that its bytes were encoded from.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use radarflow_proto::frame::{Frame, PREFIX};

fuzz_target!(|body: &[u8]| {
    // A checksum that matches, so that the body is looked at.
    let crc = crc_of(body);
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(crc);
    bytes.extend_from_slice(body);
    let Ok((frame, n)) = Frame::decode(&Bytes::from(bytes)) else { return };
    assert_eq!(n, body.len() + PREFIX);
    let mut again = Vec::new();
    frame.encode(&mut again);
    assert_eq!(Frame::decode(&Bytes::from(again)).map(|(f, _)| f), Ok(frame));
});

/// The checksum, as a frame of no slices would bear it: found by asking the decoder.
fn crc_of(body: &[u8]) -> [u8; 4] {
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend_from_slice(body);
    match Frame::decode(&Bytes::from(bytes)) {
        Err(radarflow_proto::frame::FrameError::Checksum { computed, .. }) => computed.to_le_bytes(),
        _ => [0; 4],
    }
}
