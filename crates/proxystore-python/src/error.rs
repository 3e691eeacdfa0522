//! From library errors to Python exceptions, one class a kind.

use proxystore::connectors::multi::RoutingError;
use proxystore::{Error, ErrorKind};
use pyo3::prelude::*;

/// Name of the exception class in `proxystore_rs.exceptions`.
fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "ObjectNotFoundError",
        ErrorKind::Closed => "StoreClosedError",
        ErrorKind::Corrupt => "CorruptObjectError",
        ErrorKind::Incompatible => "IncompatibleVersionError",
        ErrorKind::Unsupported => "UnsupportedOperationError",
        ErrorKind::Encode | ErrorKind::Decode => "SerializationError",
        ErrorKind::Config => "StoreConfigError",
        ErrorKind::Full => "ChannelFullError",
        ErrorKind::Permission => "ChannelPermissionError",
        ErrorKind::Timeout => "ChannelTimeoutError",
        ErrorKind::Failed => "FutureFailedError",
        ErrorKind::Cancelled => "FutureCancelledError",
        ErrorKind::Abandoned => "FutureAbandonedError",
        ErrorKind::Untrusted => "UntrustedError",
        ErrorKind::Forbidden => "SitePolicyError",
        ErrorKind::Sealed => "SealedObjectError",
        ErrorKind::Tampered => "TamperedObjectError",
        _ => "ChannelError",
    }
}

/// Name of the class for an error of an endpoint: one that is an `EndpointConnectorError` too, where
/// the channel is to blame.
fn endpoint_class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Config => "EndpointConfigError",
        ErrorKind::Forbidden | ErrorKind::Permission => "EndpointPermissionError",
        ErrorKind::Full => "EndpointFullError",
        ErrorKind::Timeout => "EndpointTimeoutError",
        _ => match class_name(kind) {
            "ChannelError" => "EndpointConnectorError",
            other => other,
        },
    }
}

/// Whether an error says what was attempted at an endpoint, or which one it is about.
fn is_about_endpoints(error: &Error) -> bool {
    error.operation().contains("endpoint")
        || error.context().any(|(name, _)| matches!(name, "endpoint" | "peer"))
}

/// The exception for an error. An exception raised by Python code underneath, such as a connector
/// written in Python, comes through as it was.
pub(crate) fn to_python(py: Python<'_>, error: Error) -> PyErr {
    let raised =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<PyErr>());
    if let Some(raised) = raised {
        return raised.clone_ref(py);
    }
    let about_parts =
        std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<RoutingError>);
    let class = match error.kind() {
        _ if about_parts => "MultiConnectorError",
        kind if is_about_endpoints(&error) => endpoint_class_name(kind),
        kind => class_name(kind),
    };
    raise(py, class, &error.to_string())
}

/// An exception of `proxystore_rs.exceptions` by name.
pub(crate) fn raise(py: Python<'_>, class: &str, message: &str) -> PyErr {
    let made = py
        .import("proxystore_rs.exceptions")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call1((message,)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Whether an exception says that something is not to be believed.
pub(crate) fn is_untrusted(error: &PyErr, py: Python<'_>) -> bool {
    py.import("proxystore_rs.exceptions")
        .and_then(|module| module.getattr("UntrustedError"))
        .is_ok_and(|class| error.matches(py, class).unwrap_or(false))
}

/// Wraps an exception so that it passes through the library unchanged.
pub(crate) fn from_python(operation: &'static str, raised: PyErr) -> Error {
    Error::new(ErrorKind::Io, operation, raised.to_string()).with_source(raised)
}

/// `result?` for library results in functions that return `PyResult`.
pub(crate) trait IntoPython<T> {
    fn py(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> IntoPython<T> for proxystore::Result<T> {
    fn py(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| to_python(py, error))
    }
}
