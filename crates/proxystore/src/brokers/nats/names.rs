//! What topics and groups are called at a NATS server: bytes that names cannot hold become `=` and
//! two digits. (Servers up to 2.10 at least take a `%` in a name for one of their own formats.)

use xxhash_rust::xxh3::xxh3_128;

use crate::connectors::percent;

/// Servers take names of 255 bytes, of which file names are made.
const LONGEST: usize = 200;

/// A topic, and the stream and the subject that carry it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) stream: String,
    pub(super) subject: String,
}

impl Topic {
    pub(super) fn new(name: &str) -> Self {
        // A subject is made of parts between dots; a stream has no dots in its name.
        let has_parts = name.split('.').all(|part| !part.is_empty());
        let subject = if has_parts { encode(name, |byte| byte == b'.') } else { plain(name) };
        Self { name: name.to_owned(), stream: plain(name), subject }
    }
}

/// A name of letters, digits, `_` and `-`, the same for the same text only.
pub(super) fn plain(text: &str) -> String {
    encode(text, |_| false)
}

fn encode(text: &str, keeps_more: impl Fn(u8) -> bool) -> String {
    let keeps = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let encoded = percent::encode(text.as_bytes(), |byte| keeps(byte) || keeps_more(byte));
    if encoded.len() > LONGEST {
        return format!("=_{:032x}", xxh3_128(text.as_bytes())); // two digits follow any other =
    }
    encoded.replace('%', "=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(topic: &str) -> (String, String) {
        let Topic { stream, subject, .. } = Topic::new(topic);
        (stream, subject)
    }

    #[test]
    fn plain_names_stay_as_they_are() {
        assert_eq!(names("run_7-a"), ("run_7-a".to_owned(), "run_7-a".to_owned()));
        assert_eq!(names("run.7"), ("run=2E7".to_owned(), "run.7".to_owned()));
    }

    #[test]
    fn others_have_nothing_that_a_server_reads_something_into() {
        for topic in [
            "a b",
            "*",
            ">",
            "a.>",
            "$JS.API",
            ".a",
            "a..b",
            "a/b",
            "\\",
            "%",
            "=",
            &"ä".repeat(100),
        ] {
            let (stream, subject) = names(topic);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-=".contains(c);
            assert!(stream.chars().all(is_plain) && stream.len() <= LONGEST, "{stream}");
            let mut parts = subject.split('.');
            assert!(parts.all(|part| !part.is_empty() && part.chars().all(is_plain)), "{subject}");
        }
    }

    #[test]
    fn different_topics_have_different_names() {
        let long = |last: &str| format!("{}{last}", "ä".repeat(90));
        let (one, two) = (long("1"), long("2"));
        for (one, two) in [("a.b", "a=2Eb"), ("a b", "a=20b"), (&*one, &*two)] {
            let ((stream, subject), (other_stream, other_subject)) = (names(one), names(two));
            assert!(stream != other_stream && subject != other_subject, "{one} {two}");
        }
    }
}
