//! Commands as they travel: packed into one buffer, with large values sent from where they are.

use std::io::Write;

use redis::{Connection, RedisResult};

/// Values from this size on are not copied into the buffer.
const BORROWED_FROM: usize = 16 * 1024;

/// Commands for one server, sent in one go; each has one answer.
#[derive(Debug, Default, Clone)]
pub(crate) struct Request<'a> {
    packed: Vec<u8>,
    /// Slices that come in after so many bytes of `packed`.
    borrowed: Vec<(usize, &'a [u8])>,
    commands: usize,
    /// Length of all of it.
    len: usize,
}

impl<'a> Request<'a> {
    /// Adds a command of small arguments.
    pub(crate) fn command(&mut self, arguments: &[&[u8]]) -> &mut Self {
        self.begin(arguments.len());
        for argument in arguments {
            self.argument(argument);
        }
        self
    }

    /// Starts a command of `count` arguments, its name included.
    pub(super) fn begin(&mut self, count: usize) -> &mut Self {
        self.commands += 1;
        self.line(b'*', count);
        self
    }

    /// Adds a small argument.
    pub(super) fn argument(&mut self, bytes: &[u8]) -> &mut Self {
        self.line(b'$', bytes.len());
        self.pack(bytes);
        self.pack(b"\r\n");
        self
    }

    /// Adds one argument made of a head and slices.
    pub(super) fn value(&mut self, head: &[u8], slices: &[&'a [u8]]) -> &mut Self {
        self.line(b'$', head.len() + slices.iter().map(|slice| slice.len()).sum::<usize>());
        self.pack(head);
        for slice in slices {
            if slice.len() < BORROWED_FROM {
                self.pack(slice);
            } else {
                self.borrowed.push((self.packed.len(), slice));
                self.len += slice.len();
            }
        }
        self.pack(b"\r\n");
        self
    }

    /// Adds the commands of another request.
    pub(super) fn append(&mut self, other: &Self) {
        let start = self.packed.len();
        self.packed.extend_from_slice(&other.packed);
        self.borrowed.extend(other.borrowed.iter().map(|(at, slice)| (start + at, *slice)));
        self.commands += other.commands;
        self.len += other.len;
    }

    /// The bytes of small commands.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        debug_assert!(self.borrowed.is_empty(), "values that stay where they are have been added");
        self.packed
    }

    /// How many answers there will be.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn send(&self, connection: &mut Connection) -> RedisResult<()> {
        let mut sent = 0;
        for (at, slice) in &self.borrowed {
            if *at > sent {
                connection.send_packed_command(&self.packed[sent..*at])?;
                sent = *at;
            }
            connection.send_packed_command(slice)?;
        }
        match &self.packed[sent..] {
            [] => Ok(()),
            rest => connection.send_packed_command(rest),
        }
    }

    fn pack(&mut self, bytes: &[u8]) {
        self.packed.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    fn line(&mut self, kind: u8, number: usize) {
        let before = self.packed.len();
        self.packed.push(kind);
        let _ = write!(self.packed, "{number}\r\n"); // memory takes it
        self.len += self.packed.len() - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_packed_and_large_values_stay_where_they_are() {
        let large = vec![7; BORROWED_FROM];
        let mut request = Request::default();
        request.command(&[b"DEL", b"k"]);
        let mut other = Request::default();
        other.begin(3).argument(b"SET").argument(b"k").value(b"head", &[b"ab", &large, b"c"]);
        request.append(&other);
        let start = "*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$16391\r\nheadab";
        assert_eq!(request.packed, format!("{start}c\r\n").as_bytes());
        assert_eq!(request.borrowed, [(start.len(), &large[..])]);
        assert_eq!(request.len(), request.packed.len() + large.len());
        assert_eq!(request.commands(), 2);
    }
}
