//! What topics are called at Kafka, which allows letters, digits, `.`, `_` and `-`.

use xxhash_rust::xxh3::xxh3_128;

use crate::connectors::percent;

/// Begins names of which bytes are encoded, as `_` and two digits.
const ENCODED: &str = "x--";
/// Begins names of topics of Kafka's own, to which nobody else may publish.
const INTERNAL: &str = "__";
const LONGEST: usize = 249;

/// The name of a topic, the same for the same text only.
pub(super) fn topic_name(topic: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = topic.bytes().all(is_plain) && !topic.bytes().all(|byte| byte == b'.');
    if is_name && !topic.starts_with(ENCODED) && !topic.starts_with(INTERNAL) {
        return topic.to_owned();
    }
    let encoded = percent::encode(topic.as_bytes(), |byte| is_plain(byte) && byte != b'_');
    let name = format!("{ENCODED}{}", encoded.replace('%', "_"));
    if name.len() > LONGEST {
        return format!("{ENCODED}_-{:032x}", xxh3_128(topic.as_bytes())); // two digits follow others
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_stay_as_they_are() {
        for name in ["run_7-a", "run.7", "x-y", "_", "_x__"] {
            assert_eq!(topic_name(name), name);
        }
    }

    #[test]
    fn others_are_names_too_and_differ() {
        let (long, longer) = ("ä".repeat(99) + "1", "ä".repeat(99) + "2");
        let topics = [
            "a b",
            "a_20b",
            ".",
            "..",
            "x--a b",
            "x--a_20b",
            "ä",
            "%",
            "*",
            "__x",
            "x--_5F_5Fx",
            &long,
            &longer,
        ];
        let mut names: Vec<String> = topics.map(topic_name).into();
        for name in &names {
            assert!(
                name.len() <= LONGEST
                    && name != "."
                    && !name.contains('%')
                    && !name.starts_with("__"),
                "{name}"
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), topics.len(), "{names:?}");
    }
}
