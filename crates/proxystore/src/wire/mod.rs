//! What clients and endpoints say to each other, and endpoints among themselves.
//!
//! Pure: nothing here reads or writes. A connection between a client and a daemon begins with a
//! [`greeting`], in which both prove that they know the endpoint's token; then the client sends
//! [`Request`]s and the daemon answers each, in order. Requests may be sent before the answers to earlier ones came. Between
//! endpoints each request has a stream of its own, and no token is used: they know each other by key.
//!
//! A frame is a [`FrameHead`] of 16 bytes, a head of at most [`MAX_HEAD`] bytes in MessagePack, and a body. The body
//! is the bytes of an object: as they are, or in pieces ([`PieceHead`]) where the sender may fail in the middle.
//!
//! The bytes are specified in `docs/protocol-endpoint.md`.

mod fault;
mod frame;
pub mod greeting;
mod id;
mod message;

#[cfg(feature = "testkit")]
pub(crate) mod fuzz;

pub use fault::Fault;
pub use frame::{FRAME_HEAD, FrameHead, MAX_HEAD, MAX_PIECE, PIECE_HEAD, PieceHead};
pub use id::EndpointId;
pub use message::{
    Answer, Name, Pong, Request, Shared, Stat, Welcome, decode_answer, decode_request,
    encode_answer, encode_request, milliseconds,
};
