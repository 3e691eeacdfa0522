//! Objects that are longer than a string of Redis may be: parts under keys of their own, and a
//! head, stored last, that tells how many.

use std::ops::Range;
use std::time::Duration;

use redis::Value;

use super::RedisConnector;
use super::layout::{Head, key_of, part_key};
use super::read::number_of;
use super::request::Request;
use super::servers::Call;
use super::write::{publish, set_ttl};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::payload::Parts;

/// Until the head is there, parts live this long: what a writer that died left vanishes by itself.
const UNFINISHED: Duration = Duration::from_hours(1);

impl RedisConnector {
    /// Stores an object in parts; the head comes with the last step, and the object with it.
    pub(super) fn put_parts(
        &self,
        call: Call<'_>,
        head: Head,
        object: &Parts<'_>,
        ttl: Option<Duration>,
    ) -> Result<()> {
        let mut rest = object.slices().iter().copied();
        let mut current: &[u8] = &[];
        for index in 0..head.parts() {
            let range = head.part_range(index);
            let mut missing = (range.end - range.start) as usize;
            let mut slices = Vec::new();
            while missing > 0 {
                if current.is_empty() {
                    current = rest.next().unwrap_or_default();
                }
                let (here, after) = current.split_at(missing.min(current.len()));
                slices.push(here);
                missing -= here.len();
                current = after;
            }
            let mut request = Request::default();
            request.begin(5).argument(b"SET").argument(&part_key(call.id, head.generation, index));
            request.value(&[], &slices);
            request.argument(b"PX").argument(UNFINISHED.as_millis().to_string().as_bytes());
            self.servers.call(call, &request)?;
        }

        let keys = part_keys(call.id, &head);
        let mut request = Request::default();
        request.command(&[b"MULTI"]);
        request.begin(1 + keys.len()).argument(b"EXISTS");
        for key in &keys {
            request.argument(key);
        }
        for key in &keys {
            set_ttl(&mut request, key, ttl);
        }
        publish(&mut request, call.id, &head, &[], ttl);
        request.command(&[b"EXEC"]);
        let answers = self.servers.call(call, &request)?;
        let Some(Value::Array(answers)) = answers.last() else { return Ok(()) };
        if answers.first().and_then(number_of) != Some(keys.len() as u64) {
            let cause = "parts of the object vanished before the last was stored";
            return Err(Error::new(ErrorKind::Timeout, call.operation, cause)
                .with("channel", &self.settings.url)
                .with("limit seconds", UNFINISHED.as_secs())
                .with_hint(
                    "the server evicts keys (maxmemory-policy), or the network is too slow",
                ));
        }
        self.forget_replaced(call, &head, answers);
        Ok(())
    }

    /// Copies a range of an object in parts; false when the object went away meanwhile.
    pub(super) fn read_parts(
        &self,
        call: Call<'_>,
        key: &Key,
        head: &Head,
        range: Range<u64>,
        mut target: &mut [u8],
    ) -> Result<bool> {
        let mut at = range.start;
        while at < range.end {
            let index = at / u64::from(head.part);
            let part = head.part_range(index);
            let end = range.end.min(part.end);
            let name = part_key(key.id(), head.generation, index);
            let mut request = Request::default();
            if (at, end) == (part.start, part.end) {
                request.command(&[b"GET", &name]);
            } else {
                let (first, last) = (at - part.start, end - 1 - part.start);
                let (first, last) = (first.to_string(), last.to_string());
                request.command(&[b"GETRANGE", &name, first.as_bytes(), last.as_bytes()]);
            }
            let (here, after) = target.split_at_mut((end - at) as usize);
            match self.servers.call(call, &request)?.pop() {
                Some(Value::BulkString(bytes)) if bytes.len() == here.len() => {
                    here.copy_from_slice(&bytes);
                }
                _ if self.head(call, key)? == Some(*head) => return Err(self.cut(key)),
                _ => return Ok(false),
            }
            (at, target) = (end, after);
        }
        Ok(true)
    }

    /// Removes the parts of an object whose head is gone.
    pub(super) fn unlink_parts(&self, call: Call<'_>, head: &Head) -> Result<()> {
        if head.part == 0 {
            return Ok(());
        }
        let mut request = Request::default();
        for key in part_keys(call.id, head) {
            request.command(&[b"UNLINK", &key]);
        }
        self.servers.call(call, &request).map(drop)
    }

    /// Removes the parts of the object that `head` replaced, as the answers of [`publish`] tell.
    pub(super) fn forget_replaced(&self, call: Call<'_>, head: &Head, answers: &[Value]) {
        let replaced = answers.iter().rev().find_map(|answer| match answer {
            Value::BulkString(bytes) => Head::parse(bytes).ok(),
            _ => None,
        });
        if let Some(replaced) = replaced
            && replaced.generation != head.generation
        {
            let _ = self.unlink_parts(call, &replaced); // the new object is there all the same
        }
    }
}

/// The keys of all parts.
pub(super) fn part_keys(id: &str, head: &Head) -> Vec<Vec<u8>> {
    (0..head.parts()).map(|index| part_key(id, head.generation, index)).collect()
}

/// The keys of an object: that of its string first.
pub(super) fn keys_of(id: &str, head: &Head) -> Vec<Vec<u8>> {
    let mut keys = part_keys(id, head);
    keys.insert(0, key_of(id));
    keys
}
