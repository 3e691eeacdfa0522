//! The text format of Prometheus, version 0.0.4.

use std::fmt::Write;
use std::time::Duration;

/// Metrics as they are written down.
pub(crate) struct Exposition {
    prefix: &'static str,
    text: String,
}

impl Exposition {
    /// Nothing yet, of metrics whose names begin so.
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new() }
    }

    /// What was written.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// Begins a metric.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let (help, prefix) = (escaped(help, false), self.prefix);
        self.line(format_args!("# HELP {prefix}_{name} {help}"));
        self.line(format_args!("# TYPE {prefix}_{name} {kind}"));
    }

    /// One value.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let (labels, prefix) = (labelled(labels), self.prefix);
        self.line(format_args!("{prefix}_{name}{labels} {value}"));
    }

    /// One value that is a time.
    pub(super) fn seconds(&mut self, name: &str, labels: &[(&str, &str)], value: Duration) {
        let (labels, prefix) = (labelled(labels), self.prefix);
        self.line(format_args!("{prefix}_{name}{labels} {}", value.as_secs_f64()));
    }

    /// A metric with one value.
    pub(crate) fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}"); // a String takes everything
    }
}

fn labelled(labels: &[(&str, &str)]) -> String {
    if labels.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value, true))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}
