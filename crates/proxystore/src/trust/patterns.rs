//! Shell-style patterns of names.

/// Whether the whole name matches: `*` stands for any text, `?` for one character; case does not
/// count.
///
/// ```
/// use proxystore::trust::patterns::matches;
/// assert!(matches("*.alcf.anl.gov", "Polaris.ALCF.anl.gov"));
/// assert!(matches("node-??", "node-07"));
/// assert!(!matches("*.alcf.anl.gov", "alcf.anl.gov.example.org"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    let lower = |text: &str| text.to_lowercase().chars().collect::<Vec<_>>();
    let (pattern, name) = (lower(pattern), lower(name));
    let (mut p, mut n) = (0, 0);
    // Where the last star is, and how much of the name it takes so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, taken)) = &mut star else { return false };
                *taken += 1;
                (p, n) = (*at + 1, *taken);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The patterns of a list separated by commas; blanks around them do not count.
pub fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "a", true),
            ("?", "", false),
            ("?", "ä", true),
            ("a*b*c", "aXbbXc", true),
            ("a*b*c", "aXbbX", false),
            ("*ab", "aab", true),
            ("*.a.b", "x.a.b.a.b", true),
            ("host", "host.domain", false),
            ("[ab]", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn lists_have_blanks_and_gaps() {
        assert_eq!(listed(" a , ,b,").collect::<Vec<_>>(), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,6}", name in "[ab]{0,6}") {
            fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => {
                        (0..=name.len()).any(|taken| by_definition(rest, &name[taken..]))
                    }
                    Some((c, rest)) => name.split_first().is_some_and(|(first, names)| {
                        (*c == b'?' || c == first) && by_definition(rest, names)
                    }),
                }
            }
            let expected = by_definition(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(&pattern, &name), expected);
        }
    }
}
