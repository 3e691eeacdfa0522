//! Frames that anybody may have sent.

use super::greeting::{CHALLENGE, Challenge, HELLO, Hello};
use super::{
    FRAME_HEAD, FrameHead, PIECE_HEAD, PieceHead, decode_answer, decode_request, encode_answer,
    encode_request,
};

/// What is accepted is written again, and then read as the same.
pub(crate) fn run(data: &[u8]) {
    if let Some(bytes) = data.first_chunk::<HELLO>()
        && let Ok(hello) = Hello::decode(bytes)
    {
        assert_eq!(Hello::decode(&hello.encode()).expect("just written"), hello);
    }
    if let Some(bytes) = data.first_chunk::<CHALLENGE>()
        && let Ok(challenge) = Challenge::decode(bytes)
    {
        assert_eq!(Challenge::decode(&challenge.encode()).expect("just written"), challenge);
    }
    if let Some(bytes) = data.first_chunk::<PIECE_HEAD>() {
        let left = data.len() as u64;
        if let Ok(PieceHead::Bytes(len)) = PieceHead::decode(*bytes, left) {
            assert!(len > 0 && u64::from(len) <= left);
        }
    }
    let Some((bytes, rest)) = data.split_first_chunk::<FRAME_HEAD>() else { return };
    let Ok(frame) = FrameHead::decode(bytes) else { return };
    assert_eq!(FrameHead::decode(&frame.encode()).expect("just written"), frame);
    let head = &rest[..rest.len().min(frame.head.into())];
    let mut again = Vec::new();
    if let Ok(request) = decode_request(&frame, head)
        && encode_request(&mut again, frame.number, &request, frame.body, frame.in_pieces).is_ok()
    {
        let (frame, head) = parts(&again);
        assert_eq!(decode_request(&frame, head).expect("just written"), request);
    }
    again.clear();
    if let Ok(answer) = decode_answer(&frame, head)
        && encode_answer(&mut again, frame.number, &answer, frame.body, frame.in_pieces).is_ok()
    {
        let (frame, head) = parts(&again);
        assert_eq!(decode_answer(&frame, head).expect("just written"), answer);
    }
}

fn parts(bytes: &[u8]) -> (FrameHead, &[u8]) {
    let (frame, head) = bytes.split_first_chunk::<FRAME_HEAD>().expect("a frame");
    let frame = FrameHead::decode(frame).expect("just written");
    assert_eq!(head.len(), usize::from(frame.head));
    (frame, head)
}
