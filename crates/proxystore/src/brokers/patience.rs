//! Waiting for a broker in slices, so that waits can be ended from outside.

use std::time::{Duration, Instant};

use crate::error::{ErrorKind, Result};

/// How long a broker that cannot be reached is tried, by calls without a deadline.
pub const PATIENCE: Duration = Duration::from_mins(1);

const FIRST_SLICE: Duration = Duration::from_millis(50);
/// Where a broker is full.
const LAST_SLICE: Duration = Duration::from_millis(400);
/// Where it cannot be reached: what a slice cuts short, such as making a connection over a long way,
/// is begun anew in the next.
const LAST_TRY: Duration = Duration::from_secs(5);

/// Has `call` publish or flush, and asks `interrupt` now and then while the broker is full or away: its
/// error ends the wait. What was to be published is not, then. `call` is told until when to try.
///
/// # Errors
/// What `call` or `interrupt` fails with. Without a deadline, a broker that cannot be reached is an
/// error after [`PATIENCE`].
pub fn patiently(
    deadline: Option<Instant>,
    interrupt: impl Fn() -> Result<()>,
    call: impl Fn(Option<Instant>) -> Result<()>,
) -> Result<()> {
    let (started, mut length) = (Instant::now(), FIRST_SLICE);
    loop {
        let slice = Instant::now() + length;
        let is_last = deadline.is_some_and(|deadline| deadline <= slice);
        let error = match call(if is_last { deadline } else { Some(slice) }) {
            Err(error) if !is_last => error,
            outcome => return outcome,
        };
        // What fails at the end of a slice was not done; what fails before it, fails for another
        // reason, and would again.
        let is_over = Instant::now() >= slice;
        length = match error.kind() {
            ErrorKind::Timeout if is_over => LAST_SLICE.min(length * 2),
            ErrorKind::Io if is_over && (deadline.is_some() || started.elapsed() < PATIENCE) => {
                LAST_TRY.min(length * 2)
            }
            _ => return Err(error),
        };
        interrupt()?;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::thread;

    use super::*;
    use crate::error::Error;

    fn late(kind: ErrorKind, until: Option<Instant>) -> Result<()> {
        thread::sleep(until.unwrap().saturating_duration_since(Instant::now()));
        Err(Error::new(kind, "publish", "late"))
    }

    #[test]
    fn tries_grow_until_a_connection_can_be_made() {
        let needed = Duration::from_millis(300);
        let given = RefCell::new(Vec::new());
        let call = |until: Option<Instant>| {
            let slice = until.unwrap() - Instant::now();
            given.borrow_mut().push(slice);
            if slice > needed { Ok(()) } else { late(ErrorKind::Io, until) }
        };
        patiently(None, || Ok(()), call).unwrap();
        assert!(given.borrow().is_sorted() && given.borrow().len() > 2, "{given:?}");
    }

    #[test]
    fn a_wait_ends_with_its_deadline_or_by_interruption() {
        let soon = Instant::now() + Duration::from_millis(200);
        let full = |until| late(ErrorKind::Timeout, until);
        let error = patiently(Some(soon), || Ok(()), full).unwrap_err();
        assert!(Instant::now() >= soon && error.kind() == ErrorKind::Timeout, "{error}");
        let interrupt = || Err(Error::new(ErrorKind::Cancelled, "publish", "by hand"));
        let error = patiently(None, interrupt, full).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn what_fails_at_once_is_not_tried_again() {
        let calls = Cell::new(0);
        let call = |_| {
            calls.set(calls.get() + 1);
            Err(Error::new(ErrorKind::Io, "publish", "a message before was lost"))
        };
        patiently(None, || Ok(()), call).unwrap_err();
        assert_eq!(calls.get(), 1);
    }
}
