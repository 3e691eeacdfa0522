//! What publishers and subscribers say to each other: ZMTP 3.0 with its mechanism NULL, of which they
//! need little. `https://rfc.zeromq.org/spec/23/` has all of it.
//!
//! Both sides send a greeting of 64 bytes and a command READY that says what they are. From then on
//! all is frames: subscribers send messages that begin with 1 (subscribe) or 0 (cancel) and go on with the
//! beginning of topics; publishers send messages of two frames, topic and message.

use std::io::{Error, ErrorKind, Read, Result, Write};

const GREETING: usize = 64;
const MECHANISM: &[u8] = b"NULL";

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The largest command or subscription that is read.
const LARGEST_WORD: u64 = 1 << 16;

/// What a PING may have at most: its time to live, and what the answer is to say.
const LONGEST_PING: usize = 2 + 16;

/// What a connection carries in one direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// More frames of the same message follow.
    pub(super) more: bool,
    pub(super) is_command: bool,
    pub(super) body: Vec<u8>,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Publisher,
    Subscriber,
}

impl Role {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Publisher => b"PUB",
            Self::Subscriber => b"SUB",
        }
    }

    /// Whether this one can talk to a socket of that type.
    fn can_talk_to(self, other: &[u8]) -> bool {
        match self {
            Self::Publisher => matches!(other, b"SUB" | b"XSUB"),
            Self::Subscriber => matches!(other, b"PUB" | b"XPUB"),
        }
    }
}

/// Says who we are, and makes sure that the other one is what we can talk to.
pub(super) fn shake_hands(role: Role, from: &mut impl Read, to: &mut impl Write) -> Result<()> {
    let mut ours = [0; GREETING];
    (ours[0], ours[9], ours[10]) = (0xff, 0x7f, 3);
    ours[12..12 + MECHANISM.len()].copy_from_slice(MECHANISM);
    to.write_all(&ours)?;
    let mut theirs = [0; GREETING];
    from.read_exact(&mut theirs)?;
    if theirs[0] != 0xff || theirs[9] & 1 == 0 || theirs[10] < 3 {
        return Err(broken("the other end does not speak ZMTP 3"));
    }
    if theirs[12..32] != ours[12..32] {
        return Err(broken("the other end wants a security mechanism"));
    }
    let mut ready = b"\x05READY\x0bSocket-Type\0\0\0\x03".to_vec();
    ready.extend_from_slice(role.name());
    let mut frame = Vec::new();
    encode(&mut frame, COMMAND, &ready);
    to.write_all(&frame)?;
    let answer = read_frame(from, LARGEST_WORD)?;
    match answer.command() {
        Some((b"READY", properties)) if role.can_talk_to(socket_type(properties)) => Ok(()),
        Some((b"READY", _)) => Err(broken("the other end is no counterpart")),
        _ => Err(broken("the other end is not ready")),
    }
}

/// A message of a topic, as it travels.
pub(super) fn message(topic: &str, message: &[u8]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(topic.len() + message.len() + 18);
    encode(&mut frames, MORE, topic.as_bytes());
    encode(&mut frames, 0, message);
    frames
}

/// The request for all topics that begin so.
pub(super) fn subscription(prefix: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(&mut frame, 0, &[b"\x01", prefix.as_bytes()].concat());
    frame
}

/// What a subscriber asks of a publisher.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish<'a> {
    Subscribe(&'a [u8]),
    Cancel(&'a [u8]),
    /// It wants to hear this, as a sign of life.
    Answer(Vec<u8>),
    Nothing,
}

/// Reads what a subscriber, or a publisher, sends in between.
pub(super) fn wish(frame: &Frame) -> Wish<'_> {
    match (frame.command(), frame.body.split_first()) {
        (Some((b"SUBSCRIBE", prefix)), _) => Wish::Subscribe(prefix),
        (Some((b"CANCEL", prefix)), _) => Wish::Cancel(prefix),
        (Some((b"PING", rest)), _) if rest.len() <= LONGEST_PING => {
            let mut frame = Vec::new();
            let context = rest.get(2..).unwrap_or_default(); // behind its time to live
            encode(&mut frame, COMMAND, &[b"\x04PONG", context].concat());
            Wish::Answer(frame)
        }
        (None, Some((1, prefix))) if !frame.is_command => Wish::Subscribe(prefix),
        (None, Some((0, prefix))) if !frame.is_command => Wish::Cancel(prefix),
        _ => Wish::Nothing,
    }
}

/// Reads a frame of what subscribers and commands may be long.
pub(super) fn read_word(from: &mut impl Read) -> Result<Frame> {
    read_frame(from, LARGEST_WORD)
}

/// Reads a frame of no more than so many bytes.
pub(super) fn read_frame(from: &mut impl Read, largest: u64) -> Result<Frame> {
    let mut flags = [0];
    from.read_exact(&mut flags)?;
    let [flags] = flags;
    if flags & !(MORE | LONG | COMMAND) != 0 {
        return Err(broken("a frame has unknown flags"));
    }
    let mut len = [0; 8];
    from.read_exact(if flags & LONG == 0 { &mut len[7..] } else { &mut len })?;
    let len = u64::from_be_bytes(len);
    if len > largest {
        return Err(broken("a frame is too long"));
    }
    // Grows as bytes arrive, whatever the length says.
    let mut body = Vec::with_capacity(len.min(1 << 16) as usize);
    if from.take(len).read_to_end(&mut body)? as u64 != len {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(Frame { more: flags & MORE != 0, is_command: flags & COMMAND != 0, body })
}

impl Frame {
    /// Name and data, if this is a command.
    fn command(&self) -> Option<(&[u8], &[u8])> {
        let (len, rest) = self.body.split_first().filter(|_| self.is_command)?;
        rest.split_at_checked(usize::from(*len))
    }
}

fn encode(frames: &mut Vec<u8>, flags: u8, body: &[u8]) {
    if let Ok(len) = u8::try_from(body.len()) {
        frames.extend_from_slice(&[flags, len]);
    } else {
        frames.push(flags | LONG);
        frames.extend_from_slice(&(body.len() as u64).to_be_bytes());
    }
    frames.extend_from_slice(body);
}

/// The type of socket among the properties of READY; nothing where they are not what they should be.
fn socket_type(mut properties: &[u8]) -> &[u8] {
    let mut next = || {
        let (len, rest) = properties.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        let (len, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        properties = rest;
        Some((name, value))
    };
    while let Some((name, value)) = next() {
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            return value;
        }
    }
    b""
}

fn broken(cause: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, cause)
}

/// Reads what any peer may send; for fuzzing.
#[cfg(feature = "testkit")]
pub(crate) fn fuzz(data: &[u8]) {
    for role in [Role::Publisher, Role::Subscriber] {
        let mut rest = data;
        let _ = shake_hands(role, &mut rest, &mut Vec::new());
    }
    let mut rest = data;
    while let Ok(frame) = read_word(&mut rest) {
        let _ = wish(&frame);
        if !frame.is_command {
            let mut again = Vec::new();
            encode(&mut again, u8::from(frame.more), &frame.body);
            assert_eq!(read_word(&mut &again[..]).ok(), Some(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_these_bytes() {
        assert_eq!(message("top", b"hello"), b"\x01\x03top\x00\x05hello");
        let long = message("t", &[7; 256]);
        assert_eq!(long[..12], *b"\x01\x01t\x02\0\0\0\0\0\0\x01\0");
        assert_eq!(subscription("top"), b"\x00\x04\x01top");
    }

    #[test]
    fn counterparts_shake_hands_and_others_do_not() {
        // All that one says, with nobody to answer.
        let said = |role: Role| {
            let mut said = Vec::new();
            let _ = shake_hands(role, &mut &b""[..], &mut said);
            let ready = [b"\x05READY\x0bSocket-Type\0\0\0\x03", role.name()].concat();
            encode(&mut said, COMMAND, &ready);
            said
        };
        for (role, other, fits) in [
            (Role::Publisher, Role::Subscriber, true),
            (Role::Subscriber, Role::Publisher, true),
            (Role::Publisher, Role::Publisher, false),
        ] {
            let theirs = said(other);
            let result = shake_hands(role, &mut &theirs[..], &mut Vec::new());
            assert_eq!(result.is_ok(), fits, "{role:?} with {other:?}: {result:?}");
        }
        let mut curve = said(Role::Subscriber);
        curve[12..17].copy_from_slice(b"CURVE");
        let error = shake_hands(Role::Publisher, &mut &curve[..], &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("security"), "{error}");
    }

    #[test]
    fn wishes_come_as_messages_and_as_commands() {
        let read = |bytes: &[u8]| read_word(&mut &bytes[..]).unwrap();
        assert_eq!(wish(&read(b"\x00\x02\x01a")), Wish::Subscribe(b"a"));
        assert_eq!(wish(&read(b"\x00\x02\x00a")), Wish::Cancel(b"a"));
        assert_eq!(wish(&read(b"\x04\x0b\x09SUBSCRIBEa")), Wish::Subscribe(b"a"));
        assert_eq!(wish(&read(b"\x04\x08\x06CANCELa")), Wish::Cancel(b"a"));
        let pong = Wish::Answer(b"\x04\x06\x04PONGx".to_vec());
        assert_eq!(wish(&read(b"\x04\x08\x04PING\0\x01x")), pong);
        let long = [&b"\x04\x18\x04PING\0\x01"[..], &[b'x'; 17]].concat();
        assert_eq!(wish(&read(&long)), Wish::Nothing, "no room is kept for it");
        for word in [&b"\x00\x00"[..], b"\x04\x00", b"\x04\x02\xffa", b"\x04\x05\x04PING"] {
            let _ = wish(&read(word));
        }
        for broken in [&b"\x08\x00"[..], b"\x02\xff\xff\xff\xff\xff\xff\xff\xff", b"\x00\x05a"] {
            read_word(&mut &broken[..]).unwrap_err();
        }
    }
}
