//! The one error type: what was attempted, what went wrong, and what to do about it.
//!
//! [`ErrorKind`] is what programs match on; the text is for people. A message reads
//! `failed to <operation>: <cause> [context]; <remedy>`.

use std::borrow::Cow;
use std::fmt;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong, in terms a program can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No object is stored under the key (never was, or was evicted).
    NotFound,
    /// The store or connector was closed.
    Closed,
    /// Bytes are not what their format promises: damaged, or cut short.
    Corrupt,
    /// Written by a newer version, or with a codec this build does not know.
    Incompatible,
    /// The channel cannot do this (see [`Capabilities`](crate::Capabilities)).
    Unsupported,
    /// An object could not be turned into a payload.
    Encode,
    /// A payload could not be turned into the object.
    Decode,
    /// A configuration, name or URL is wrong, or contradicts one in use.
    Config,
    /// The channel has no room for the object.
    Full,
    /// Permission was refused by the operating system or the channel.
    Permission,
    /// A deadline passed.
    Timeout,
    /// A channel could not be reached or broke down.
    Io,
    /// A factory failed while resolving a proxy.
    Resolve,
    /// The producer of a future failed, and said so.
    Failed,
    /// A future was cancelled.
    Cancelled,
    /// A future can never be set: its producer is gone.
    Abandoned,
    /// A rule of ownership was broken: one owner, many shared borrows or one exclusive.
    Borrow,
    /// This process does not trust what was sent: pickled data, a class, a producer.
    Untrusted,
    /// The store's policy forbids to resolve its objects at this site.
    Forbidden,
    /// The object is sealed, and its key came without the secret that opens it.
    Sealed,
    /// A sealed object was altered, cut, or exchanged for another, or the key is not its own.
    Tampered,
}

impl ErrorKind {
    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Full | Self::Timeout | Self::Io)
    }
}

/// An error of this crate.
///
/// ```
/// use proxystore::{ErrorKind, Store};
/// let error = Store::open("carrier-pigeon://loft").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Config);
/// assert!(error.to_string().contains("carrier-pigeon"));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    hint: Option<Cow<'static, str>>,
    source: Option<Source>,
}

impl Error {
    /// A new error; `operation` completes "failed to …", `message` says why.
    #[cold]
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            operation,
            message: message.into(),
            context: Vec::new(),
            hint: None,
            source: None,
        }))
    }

    /// An error of the operating system, with the kind its code stands for.
    #[cold]
    pub fn io(operation: &'static str, source: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match source.kind() {
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Permission,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::Full,
            Io::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Io,
        };
        Self::new(kind, operation, source.to_string()).with_source(source)
    }

    /// Adds a named detail such as the store, the key or the path.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong, in terms a program can act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was attempted; completes "failed to …".
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// What went wrong, without operation, details and remedy.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Named details, in the order they were added.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.0.operation, self.0.message)?;
        for (i, (name, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { " [" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str("]")?;
        }
        match &self.0.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            write!(f, "\n  caused by: {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_cause_context_and_remedy() {
        let error = Error::new(ErrorKind::Full, "put object", "no space left")
            .with("store", "demo")
            .with("size", 10)
            .with_hint("evict objects or enlarge the channel");
        assert_eq!(
            error.to_string(),
            "failed to put object: no space left [store=demo, size=10]; \
             evict objects or enlarge the channel"
        );
        assert!(error.kind().is_retryable());
    }

    #[test]
    fn io_errors_get_the_kind_of_their_code() {
        let error = Error::io("put object", std::io::Error::from_raw_os_error(28));
        assert_eq!(error.kind(), ErrorKind::Full);
    }
}
