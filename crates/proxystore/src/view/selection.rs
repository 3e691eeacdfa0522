//! What is wanted along each dimension of an array, in NumPy's terms.

use std::ops::{Range, RangeFull};

use crate::error::{Error, ErrorKind, Result};

/// What is wanted along one dimension; negative positions count from the end.
///
/// ```
/// use proxystore::view::Selection;
/// let _first = Selection::from(0); // drops the dimension
/// let _some = Selection::from(2..-1);
/// let _reversed = Selection::ALL.step(-1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One position; the result has no such dimension.
    Index(i64),
    /// Positions from `start` to before `stop`, each `step` after the last; cut off at the ends of
    /// the dimension, as slices in Python are.
    Slice {
        /// The first position; by default the end that `step` leads away from.
        start: Option<i64>,
        /// Where it ends; by default after the end that `step` leads to.
        stop: Option<i64>,
        /// Not zero.
        step: i64,
    },
    /// These positions, in this order.
    Positions(Vec<i64>),
}

impl Selection {
    /// The whole dimension.
    pub const ALL: Self = Self::Slice { start: None, stop: None, step: 1 };

    /// A slice with another step; any other selection as it is.
    #[must_use]
    pub fn step(self, step: i64) -> Self {
        match self {
            Self::Slice { start, stop, .. } => Self::Slice { start, stop, step },
            other => other,
        }
    }

    /// Whether the result has the dimension still.
    pub(super) fn keeps_dimension(&self) -> bool {
        !matches!(self, Self::Index(_))
    }

    /// The positions of a dimension of length `len`.
    pub(super) fn positions(&self, len: u64) -> Result<Positions> {
        match self {
            Self::Index(index) => {
                Ok(Positions::Steps { start: position(*index, len)?, count: 1, step: 1 })
            }
            Self::Slice { start, stop, step } => steps(*start, *stop, *step, len),
            Self::Positions(list) => {
                let list = list.iter().map(|index| position(*index, len));
                list.collect::<Result<_>>().map(Positions::List)
            }
        }
    }
}

impl From<i64> for Selection {
    fn from(index: i64) -> Self {
        Self::Index(index)
    }
}

impl From<Range<i64>> for Selection {
    fn from(range: Range<i64>) -> Self {
        Self::Slice { start: Some(range.start), stop: Some(range.end), step: 1 }
    }
}

impl From<RangeFull> for Selection {
    fn from(_: RangeFull) -> Self {
        Self::ALL
    }
}

/// Positions along one dimension, all within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Positions {
    Steps { start: u64, count: u64, step: i64 },
    List(Vec<u64>),
}

impl Positions {
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Steps { count, .. } => *count,
            Self::List(list) => list.len() as u64,
        }
    }
}

fn position(index: i64, len: u64) -> Result<u64> {
    let found =
        if index < 0 { len.checked_sub(index.unsigned_abs()) } else { Some(index.unsigned_abs()) };
    found.filter(|found| *found < len).ok_or_else(|| {
        misuse("the position lies outside the dimension")
            .with("position", index)
            .with("length", len)
    })
}

/// The rules of Python's `slice.indices`.
fn steps(start: Option<i64>, stop: Option<i64>, step: i64, len: u64) -> Result<Positions> {
    if step == 0 {
        return Err(misuse("the step of a slice is zero"));
    }
    let len = i128::from(len);
    // From the position before the first to the one after the last, whichever way it goes.
    let (lowest, highest) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let cut = |bound: Option<i64>, default| {
        bound.map_or(default, |bound| {
            let bound = i128::from(bound);
            (if bound < 0 { bound + len } else { bound }).clamp(lowest, highest)
        })
    };
    let (first, last) = if step > 0 { (lowest, highest) } else { (highest, lowest) };
    let (start, stop) = (cut(start, first), cut(stop, last));
    let way = (stop - start) * i128::from(step.signum());
    let count = if way > 0 { (way - 1) / i128::from(step.unsigned_abs()) + 1 } else { 0 };
    // Within a length that was unsigned; the start of an empty slice does not matter.
    let (start, count) = (u64::try_from(start).unwrap_or(0), u64::try_from(count).unwrap_or(0));
    Ok(Positions::Steps { start, count, step })
}

pub(super) fn misuse(cause: &'static str) -> Error {
    Error::new(ErrorKind::Config, "select from an array", cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(selection: &Selection, len: u64) -> Vec<i64> {
        match selection.positions(len).unwrap() {
            Positions::Steps { start, count, step } => {
                let start = i64::try_from(start).unwrap();
                (0..i64::try_from(count).unwrap()).map(|i| start + i * step).collect()
            }
            Positions::List(list) => list.into_iter().map(|i| i64::try_from(i).unwrap()).collect(),
        }
    }

    #[test]
    fn slices_are_those_of_python() {
        let slice = |start, stop, step| Selection::Slice { start, stop, step };
        assert_eq!(list(&Selection::ALL, 3), [0, 1, 2]);
        assert_eq!(list(&Selection::ALL.step(-1), 3), [2, 1, 0]);
        assert_eq!(list(&Selection::from(1..100), 4), [1, 2, 3]);
        assert_eq!(list(&Selection::from(-3..-1), 4), [1, 2]);
        assert_eq!(list(&slice(Some(100), None, -2), 5), [4, 2, 0]);
        assert_eq!(list(&slice(Some(1), Some(-100), -1), 5), [1, 0]);
        assert_eq!(list(&slice(Some(3), Some(1), 1), 5), [0; 0]);
        assert_eq!(list(&slice(None, None, i64::MIN), 5), [4]);
        assert_eq!(list(&slice(Some(i64::MIN), Some(i64::MAX), i64::MAX), 5), [0]);
        assert_eq!(list(&Selection::ALL, 0), [0; 0]);
        assert_eq!(list(&Selection::ALL.step(-1), 0), [0; 0]);
        assert!(slice(None, None, 0).positions(5).is_err());
    }

    #[test]
    fn positions_outside_are_refused() {
        assert_eq!(list(&Selection::Index(-1), 5), [4]);
        assert_eq!(list(&Selection::Positions(vec![2, -5, 2]), 5), [2, 0, 2]);
        for index in [5, -6, i64::MIN, i64::MAX] {
            let error = Selection::Index(index).positions(5).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("length=5"), "{error}");
        }
    }
}
