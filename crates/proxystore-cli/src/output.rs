//! What people and programs read. A reader that went away is no error: `proxystore ... | head` ends well.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use proxystore::Error;

/// A line of data.
pub(crate) fn data(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// A line for people.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Text that is data as it is, such as a manual page.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// An error, for people.
pub(crate) fn error(error: &Error) {
    note(described(error));
}

/// An error in lines: what failed, where, and what to do.
pub(crate) fn described(error: &Error) -> String {
    let mut text = format!("error: failed to {}: {}", error.operation(), error.message());
    for (name, value) in error.context() {
        text.extend(["\n  ", name, ": ", value]);
    }
    if let Some(hint) = error.hint() {
        text.extend(["\n  remedy: ", hint]);
    }
    text
}

/// What the parser of arguments has to say: help, the version, or that it did not understand.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Rows below a head, in columns as wide as they need.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        data(cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
}

/// Asks a question; anything but `y` and `yes` is no. `None` where nobody is there to answer.
pub(crate) fn confirmed(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
