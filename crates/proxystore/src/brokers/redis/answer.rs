//! What a server answers, read from bytes as they come in (the protocol RESP2).

use std::io::{self, Read};

use redis::{RedisError, Value};

/// Answers nest no deeper.
const DEEPEST: usize = 8;

/// How much is read at once, if there is so much.
const CHUNK: usize = 64 * 1024;

/// The buffer grows by no more at once: what an answer says of its length may be wrong.
const GROWTH: usize = 16 << 20;

/// Servers have no longer strings.
const LONGEST: i64 = 1 << 32;

/// A buffer that had to grow beyond this is let go when it is empty.
const KEPT: usize = 1 << 20;

#[derive(Debug, Clone)]
pub(super) enum Answer {
    Nil,
    Int(i64),
    /// A string, or a word such as OK.
    Bytes(Vec<u8>),
    List(Vec<Answer>),
    Failure(RedisError),
}

impl Answer {
    pub(super) fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The answers in a list; none in anything else.
    pub(super) fn list(self) -> Vec<Self> {
        match self {
            Self::List(list) => list,
            _ => Vec::new(),
        }
    }

    /// An error of the server as one.
    pub(super) fn ok(self) -> Result<Self, RedisError> {
        match self {
            Self::Failure(error) => Err(error),
            answer => Ok(answer),
        }
    }
}

/// Bytes that came in and were not read as answers yet.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// How far the answer that starts there was looked at.
    scan: Scan,
}

impl Input {
    /// The next answer, if all of it is here; else how many more bytes it takes at least.
    pub(super) fn next(&mut self) -> io::Result<Result<Answer, usize>> {
        let bytes = &self.bytes[self.start..self.end];
        if let Some(missing) = self.scan.go_on(bytes)? {
            return Ok(Err(missing));
        }
        let len = std::mem::take(&mut self.scan).at;
        let answer = read(bytes, &mut 0);
        self.start += len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT {
                self.bytes = Vec::new();
            }
        }
        Ok(Ok(answer))
    }

    /// Reads what there is, once; at the end of the stream that is an error.
    pub(super) fn fill(&mut self, mut from: impl Read, missing: usize) -> io::Result<()> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let wanted = self.end + missing.clamp(CHUNK, GROWTH);
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        match from.read(&mut self.bytes[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }
}

/// A search for the end of an answer, which goes on when more of it has come in.
#[derive(Debug, Default)]
struct Scan {
    /// Everything before is complete.
    at: usize,
    /// How many answers the lists around this place still lack, the outermost first.
    lists: Vec<i64>,
}

/// Where the line ends that starts at `at`, without its two last bytes; before `at` for one that
/// is too short.
fn line(bytes: &[u8], at: usize) -> Option<usize> {
    let found = bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
    Some((at + found).saturating_sub(1))
}

fn number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl Scan {
    /// Looks on for the end, which is then where it is at; else how many more bytes it takes.
    fn go_on(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not one of Redis");
        loop {
            let Some(end) = line(bytes, self.at) else { return Ok(Some(1)) };
            let head = bytes.get(self.at + 1..end).ok_or_else(wrong)?;
            let len = || number(head).ok_or_else(wrong);
            let mut next = end + 2;
            match bytes[self.at] {
                b'+' | b'-' => {}
                b':' => drop(len()?),
                b'$' => {
                    let len = Some(len()?).filter(|len| *len <= LONGEST).ok_or_else(wrong)?;
                    next += usize::try_from(len).map_or(0, |len| len + 2);
                    if bytes.len() < next {
                        return Ok(Some(next - bytes.len()));
                    }
                }
                b'*' if self.lists.len() < DEEPEST => {
                    let len = len()?;
                    if len > 0 {
                        self.lists.push(len);
                        self.at = next;
                        continue;
                    }
                }
                _ => return Err(wrong()),
            }
            self.at = next;
            // This may have been the last of a list, which may have been the last of another.
            while let Some(left) = self.lists.last_mut() {
                *left -= 1;
                if *left > 0 {
                    break;
                }
                self.lists.pop();
            }
            if self.lists.is_empty() {
                return Ok(None);
            }
        }
    }
}

/// Reads an answer of which `scan` has found the end.
fn read(bytes: &[u8], at: &mut usize) -> Answer {
    let start = *at;
    let end = line(bytes, start).unwrap_or(start + 1);
    *at = end + 2;
    let head = &bytes[start + 1..end];
    match (bytes[start], number(head)) {
        (b'+', _) => Answer::Bytes(head.to_vec()),
        (b':', Some(number)) => Answer::Int(number),
        (b'$', Some(len)) if len >= 0 => {
            let start = *at;
            *at += usize::try_from(len).unwrap_or_default() + 2;
            Answer::Bytes(bytes[start..*at - 2].to_vec())
        }
        (b'*', Some(len)) if len >= 0 => Answer::List((0..len).map(|_| read(bytes, at)).collect()),
        (b'-', _) => Answer::Failure(match redis::parse_redis_value(&bytes[start..*at]) {
            Ok(Value::ServerError(error)) => error.into(),
            Ok(_) => io::Error::other("an error without a text").into(),
            Err(error) => error,
        }),
        _ => Answer::Nil,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] =
        b"*5\r\n$5\r\na\r\nbc\r\n:-7\r\n*2\r\n+OK\r\n$-1\r\n-WRONGTYPE no list\r\n*-1\r\n";

    fn check(answer: &Answer) {
        let answer = format!("{answer:?}");
        for part in ["Bytes([97, 13, 10, 98, 99])", "Int(-7)", "79, 75", "WRONGTYPE", "Nil]"] {
            assert!(answer.contains(part), "{part} in {answer}");
        }
    }

    #[test]
    fn answers_are_read_however_they_are_cut() {
        for cut in 1..SAMPLE.len() {
            let mut input = Input::default();
            for piece in [&SAMPLE[..cut], &SAMPLE[cut..], SAMPLE] {
                input.fill(piece, 1).unwrap();
                let is_first = piece.len() == cut && piece.len() < SAMPLE.len();
                match input.next().unwrap() {
                    Ok(answer) => check(&answer),
                    Err(missing) => assert!(is_first && missing <= SAMPLE.len() - cut, "{cut}"),
                }
            }
        }
    }

    #[test]
    fn large_answers_say_how_much_is_missing() {
        let mut input = Input::default();
        input.fill(&b"*2\r\n$100000\r\n"[..], 1).unwrap();
        assert_eq!(input.next().unwrap().unwrap_err(), 100_002);
    }

    #[test]
    fn long_answers_are_looked_at_once() {
        const COUNT: usize = 10_000;
        let mut input = Input::default();
        input.fill(format!("*{COUNT}\r\n").as_bytes(), 1).unwrap();
        for number in 0..COUNT {
            assert_eq!(input.next().unwrap().unwrap_err(), 1);
            assert_eq!(input.scan.at, input.end, "nothing is left to look at");
            input.fill(format!(":{number}\r\n").as_bytes(), 1).unwrap();
        }
        assert_eq!(input.next().unwrap().unwrap().list().len(), COUNT);
    }

    #[test]
    fn other_bytes_are_refused() {
        const TOO_LONG: &[u8] = b"$9000000000000000000\r\n";
        let deep = b"*1\r\n".repeat(10);
        for bytes in
            [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b"\n", b"$x\r\n", b":\r\n", TOO_LONG, &deep]
        {
            let mut input = Input::default();
            input.fill(bytes, 1).unwrap();
            assert!(input.next().is_err(), "{bytes:?}");
        }
        let mut input = Input::default();
        assert!(input.fill(&b""[..], 1).is_err());
    }
}
