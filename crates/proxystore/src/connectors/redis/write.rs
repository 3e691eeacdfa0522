//! Writing and removing: the commands, and the scripts that look at a generation first.

use std::time::{Duration, Instant};

use redis::Value as Answer;

use super::fault::first_error;
use super::layout::{HEAD, Head, key_of, pattern};
use super::request::Request;
use super::servers::Call;
use super::{CLOSE, PUT, RedisConnector};
use crate::error::Result;
use crate::key::Key;

/// How long a put that failed may take to remove what it left.
pub(super) const CLEANUP: Duration = Duration::from_secs(1);

/// Removes an object of a generation (any, if empty) and returns its head.
pub(super) const REMOVE: &[u8] = b"local head = redis.call('GETRANGE', KEYS[1], 0, 31) \
    if ARGV[1] ~= '' and string.sub(head, 17, 24) ~= ARGV[1] then return '' end \
    redis.call('UNLINK', KEYS[1]) return head";

/// Gives the keys of an object of a generation a time to live in milliseconds, or none.
pub(super) const SET_TTL: &[u8] =
    b"if redis.call('GETRANGE', KEYS[1], 16, 23) ~= ARGV[1] then return 0 end \
    for _, key in ipairs(KEYS) do \
    if ARGV[2] == '' then redis.call('PERSIST', key) \
    else redis.call('PEXPIRE', key, ARGV[2]) end end return 1";

impl RedisConnector {
    /// Removes an object of a generation, 0 for any.
    pub(super) fn remove(&self, call: Call<'_>, generation: u64) -> Result<()> {
        let wanted = generation.to_le_bytes();
        let wanted: &[u8] = if generation == 0 { &[] } else { &wanted };
        let mut request = Request::default();
        request.command(&[b"EVAL", REMOVE, b"1", &key_of(call.id), wanted]);
        match self.servers.call(call, &request)?.pop() {
            Some(Answer::BulkString(bytes)) => match Head::parse(&bytes) {
                Ok(head) => self.unlink_parts(call, &head),
                Err(_) => Ok(()), // absent, of another generation, or damaged: then it had no parts
            },
            _ => Ok(()),
        }
    }

    /// Removes the namespace's keys from every server.
    pub(super) fn clear(&self) -> Result<()> {
        let pattern = pattern(&self.settings.namespace);
        self.servers.on_every_primary(CLOSE, |link| {
            let mut cursor = b"0".to_vec();
            loop {
                let mut request = Request::default();
                request.command(&[b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", b"1000"]);
                let mut answers = link.call(&request)?;
                if let Some(error) = first_error(&answers) {
                    return Err(error);
                }
                let Some(Answer::Array(answer)) = answers.pop() else { return Ok(()) };
                let [Answer::BulkString(next), Answer::Array(found)] = &answer[..] else {
                    return Ok(());
                };
                let mut unlink = Request::default();
                for key in found {
                    if let Answer::BulkString(key) = key {
                        unlink.command(&[b"UNLINK", key]);
                    }
                }
                if let Some(error) = first_error(&link.call(&unlink)?) {
                    return Err(error);
                }
                if next == b"0" {
                    return Ok(());
                }
                cursor.clone_from(next);
            }
        })
    }

    /// Removes what a batch that failed has stored, together or one by one; the first error is the
    /// one to report.
    pub(super) fn remove_all(&self, ids: &[String], alone: &[Key]) {
        let unlink = |id: &String| {
            let mut request = Request::default();
            request.command(&[b"UNLINK", &key_of(id)]);
            request
        };
        let requests: Vec<_> = ids.iter().map(|id| (id.as_str(), unlink(id))).collect();
        let deadline = Some(Instant::now() + CLEANUP);
        let call = Call { deadline, ..Call::of(PUT, "") };
        let _ = self.servers.call_all(call, &requests, |_| HEAD);
        for key in alone {
            let _ = self.remove(Call { id: key.id(), ..call }, key.generation());
        }
    }
}

/// Adds the SET of a string: head and object, with the time to live, if any.
pub(super) fn set<'a>(
    request: &mut Request<'a>,
    id: &str,
    head: &Head,
    object: &[&'a [u8]],
    ttl: Option<Duration>,
) {
    request.begin(if ttl.is_some() { 5 } else { 3 }).argument(b"SET").argument(&key_of(id));
    request.value(&head.to_bytes(), object);
    if let Some(ttl) = ttl {
        request.argument(b"PX").argument(milliseconds(ttl).as_bytes());
    }
}

/// Adds what makes an object known under a key handed out before, to be done in one transaction:
/// the head of the object it replaces is among the answers, and waiters are woken.
pub(super) fn publish<'a>(
    request: &mut Request<'a>,
    id: &str,
    head: &Head,
    object: &[&'a [u8]],
    ttl: Option<Duration>,
) {
    request.command(&[b"GETRANGE", &key_of(id), b"0", b"31"]);
    set(request, id, head, object, ttl);
    request.command(&[b"PUBLISH", &key_of(id), b""]);
}

/// Adds the command that gives a key this time to live, or none.
pub(super) fn set_ttl(request: &mut Request<'_>, key: &[u8], ttl: Option<Duration>) {
    match ttl {
        None => request.command(&[b"PERSIST", key]),
        Some(ttl) => request.command(&[b"PEXPIRE", key, milliseconds(ttl).as_bytes()]),
    };
}

/// A time to live as Redis takes it: at least 1, and no more than it can add to the clock.
pub(super) fn milliseconds(ttl: Duration) -> String {
    ttl.as_millis().clamp(1, 1 << 52).to_string()
}
