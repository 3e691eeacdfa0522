//! Waiting for a broker in slices, so that waits can be ended from outside.

use std::time::{Duration, Instant};

use super::Publisher;
use crate::error::{ErrorKind, Result};

/// How long a broker that cannot be reached is tried, by calls without a deadline.
pub const PATIENCE: Duration = Duration::from_mins(1);

const FIRST_SLICE: Duration = Duration::from_millis(50);
const LAST_SLICE: Duration = Duration::from_millis(400);

/// Publishes a message, and asks `interrupt` now and then while the broker is full or away: its error
/// ends the wait, and the message was not published then.
///
/// # Errors
/// What `publisher` or `interrupt` fails with. Without a deadline, a broker that cannot be reached is
/// an error after [`PATIENCE`].
pub fn publish_patiently(
    publisher: &dyn Publisher,
    topic: &str,
    message: &[u8],
    deadline: Option<Instant>,
    interrupt: impl Fn() -> Result<()>,
) -> Result<()> {
    let (started, mut length) = (Instant::now(), FIRST_SLICE);
    loop {
        let slice = Instant::now() + length;
        let is_last = deadline.is_some_and(|deadline| deadline <= slice);
        let until = if is_last { deadline } else { Some(slice) };
        let error = match publisher.publish(topic, message, until) {
            Err(error) if !is_last => error,
            outcome => return outcome,
        };
        // What fails at the end of a slice was not taken; what fails before it, fails for another
        // reason, and would again.
        let may_pass = Instant::now() >= slice
            && match error.kind() {
                ErrorKind::Timeout => true,
                ErrorKind::Io => deadline.is_some() || started.elapsed() < PATIENCE,
                _ => false,
            };
        if !may_pass {
            return Err(error);
        }
        interrupt()?;
        length = LAST_SLICE.min(length * 2);
    }
}
