//! A strict reader of the text format of Prometheus, version 0.0.4.

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// Reads a text, which has to be right in every line.
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has an end");
        let mut found = Self::default();
        let mut helped = BTreeSet::new();
        let mut finished = BTreeSet::new();
        let mut family = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, _) = help.split_once(' ').unwrap();
                assert!(helped.insert(name.to_owned()), "one HELP of {name}");
                finished.insert(std::mem::replace(&mut family, name.to_owned()));
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family, "TYPE follows HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(found.kinds.insert(name.into(), kind.into()).is_none(), "{line}");
            } else {
                let (name, labels, value) = sample(line);
                let of = family_of(&name, &found.kinds);
                assert_eq!(of, family, "the samples of a metric are together");
                assert!(!finished.contains(&of), "{line}");
                assert!(found.samples.insert((name, labels), value).is_none(), "twice: {line}");
            }
        }
        assert_eq!(helped.len(), found.kinds.len());
        found.check_histograms();
        found
    }

    /// The value of one sample.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let key = (name.to_owned(), labels);
        *self.samples.get(&key).unwrap_or_else(|| panic!("no {key:?} in {self:?}"))
    }

    /// How many samples a metric has.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.samples.keys().filter(|(of, _)| of == name).count()
    }

    /// Buckets grow up to `+Inf`, which counts all.
    fn check_histograms(&self) {
        for name in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name)
        {
            let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((of, labels), value) in &self.samples {
                if *of == format!("{name}_bucket") {
                    let mut labels = labels.clone();
                    let bound = labels.remove("le").unwrap().replace("+Inf", "inf");
                    series.entry(labels).or_default().push((bound.parse().unwrap(), *value));
                }
            }
            assert!(!series.is_empty(), "{name} has series");
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels:?}");
                let (bound, all) = *buckets.last().unwrap();
                assert!(bound.is_infinite());
                let count = self.samples[&(format!("{name}_count"), labels.clone())];
                assert!((all - count).abs() < 0.5);
                assert!(self.samples[&(format!("{name}_sum"), labels)] >= 0.0);
            }
        }
    }
}

/// The metric a sample belongs to.
fn family_of(name: &str, kinds: &BTreeMap<String, String>) -> String {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    match base {
        Some(base) if kinds.get(base).is_some_and(|kind| kind == "histogram") => base.to_owned(),
        _ => name.to_owned(),
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert_name(name);
    let mut labels = Labels::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inner.split_once("=\"").unwrap();
            assert_name(label);
            let (value, after) = quoted(after);
            assert!(labels.insert(label.into(), value).is_none(), "{line}");
            match after.split_at(1) {
                (",", more) => inner = more,
                ("}", after) => break rest = after,
                _ => panic!("neither , nor }} after a label: {line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap();
    (name.into(), labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// The text up to the closing quote, and what is after it.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match letters.next().unwrap().1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                other => panic!("\\{other} means nothing"),
            }),
            letter => value.push(letter),
        }
    }
    panic!("no closing quote: {text}");
}

fn assert_name(name: &str) {
    let right = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    assert!(name.chars().all(right) && !name.starts_with(|c: char| c.is_ascii_digit()), "{name}");
}
