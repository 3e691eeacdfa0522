//! Errors as they travel.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// An [`Error`] as it travels: what went wrong there, to be told here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    kind: u8,
    message: String,
    hint: Option<String>,
}

/// Kinds by their number on the wire; a number is never given to another kind.
const KINDS: &[(u8, ErrorKind)] = &[
    (1, ErrorKind::NotFound),
    (2, ErrorKind::Closed),
    (3, ErrorKind::Corrupt),
    (4, ErrorKind::Incompatible),
    (5, ErrorKind::Unsupported),
    (6, ErrorKind::Config),
    (7, ErrorKind::Full),
    (8, ErrorKind::Permission),
    (9, ErrorKind::Timeout),
    (10, ErrorKind::Io),
    (11, ErrorKind::Untrusted),
    (12, ErrorKind::Forbidden),
];

/// Longest text that is told, bytes.
const LONGEST: usize = 2000;

impl Fault {
    /// What there is to tell of an error.
    pub fn of(error: &Error) -> Self {
        let kind = KINDS.iter().find(|(_, kind)| *kind == error.kind()).map_or(10, |(n, _)| *n);
        let mut message = error.message().to_owned();
        for (i, (name, value)) in error.context().enumerate() {
            message.push_str(if i == 0 { " [" } else { ", " });
            message.push_str(name);
            message.push('=');
            message.push_str(value);
        }
        if error.context().next().is_some() {
            message.push(']');
        }
        Self {
            kind,
            message: shortened(message),
            hint: error.hint().map(|h| shortened(h.to_owned())),
        }
    }

    /// The error to give here, where `operation` failed for it.
    pub fn into_error(self, operation: &'static str) -> Error {
        let error = Error::new(self.kind(), operation, self.message);
        match self.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }

    /// What went wrong; unknown kinds are those of newer endpoints.
    pub fn kind(&self) -> ErrorKind {
        KINDS.iter().find(|(n, _)| *n == self.kind).map_or(ErrorKind::Io, |(_, kind)| *kind)
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}
