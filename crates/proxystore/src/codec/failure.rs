//! Failures: what a future holds when there will be no result.

use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::codec::{Encode, FAILURE};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{Payload, Received};

/// Why a future has no result. It is stored in place of the result, so that every consumer learns
/// of it, in every language.
///
/// Reading an object that is a failure is an error of kind [`ErrorKind::Failed`], or
/// [`ErrorKind::Cancelled`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Nobody works on it any more, by choice.
    pub cancelled: bool,
    /// Type of the exception or error, as the producer's language names it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its text.
    pub message: String,
    /// The exception itself, in a form that only the producer's language reads (Python: a pickle).
    #[serde(skip)]
    pub exception: Option<Vec<u8>>,
}

impl Failure {
    /// A failure with a text.
    pub fn new(type_name: impl Into<String>, message: impl Into<String>) -> Self {
        let (type_name, message) = (type_name.into(), message.into());
        Self { cancelled: false, type_name, message, exception: None }
    }

    /// The failure of a future that was cancelled.
    pub fn cancelled() -> Self {
        Self { cancelled: true, ..Self::new("cancelled", "its producer cancelled it") }
    }

    /// The failure that a payload is; `None` when it is an object.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it cannot be read.
    pub fn of(received: &Received) -> Result<Option<Self>> {
        if received.codec() != FAILURE {
            return Ok(None);
        }
        let mut failure: Self = rmp_serde::from_slice(received.meta()).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "read a failure", "its metadata is damaged")
                .with_source(source)
        })?;
        failure.exception = received.part(0).map(|part: Buffer| part.to_vec());
        Ok(Some(failure))
    }

    /// The error for whoever asked for the object.
    pub fn to_error(&self) -> Error {
        let operation = "get the result of a future";
        if self.cancelled {
            return Error::new(ErrorKind::Cancelled, operation, self.message.clone())
                .with_hint("whoever cancelled it knows why; do not wait for it");
        }
        let text = format!("its producer failed with {}: {}", self.type_name, self.message);
        Error::new(ErrorKind::Failed, operation, text).with_hint("look at its producer")
    }
}

impl Encode for Failure {
    fn encode(&self) -> Result<Payload<'_>> {
        let meta = rmp_serde::to_vec_named(self).map_err(|source| {
            Error::new(ErrorKind::Encode, "store a failure", source.to_string()).with_source(source)
        })?;
        let payload = Payload::new(FAILURE, meta);
        Ok(match &self.exception {
            Some(exception) => payload.with_part(exception),
            None => payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_as_documented() {
        let failure = Failure::new("ValueError", "no");
        let framed = failure.encode().unwrap().frame().unwrap();
        let bytes = framed.parts().to_buffer();
        assert_eq!(bytes[10], 5);
        let meta = b"\x83\xa9cancelled\xc2\xa4type\xaaValueError\xa7message\xa2no";
        assert_eq!(&bytes[64..], meta);
        let received = Received::parse(bytes).unwrap();
        assert_eq!(Failure::of(&received).unwrap(), Some(failure));
    }

    #[test]
    fn the_exception_travels_as_a_part() {
        let failure = Failure { exception: Some(vec![1, 2, 3]), ..Failure::cancelled() };
        let framed = failure.encode().unwrap().frame().unwrap();
        let received = Received::parse(framed.parts().to_buffer()).unwrap();
        assert_eq!(Failure::of(&received).unwrap(), Some(failure));
    }
}
