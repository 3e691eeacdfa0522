//! Selections of a stored array.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use super::plan::{Limits, Plan, To};
use super::selection::{Positions, Selection, misuse};
use super::{View, nothing_else_to_do};
use crate::buffer::Buffer;
use crate::codec::{ARRAY, Array, Element, Order, read_array_meta};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Head;

/// What the head of a stored array says of it.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) order: Order,
    /// Length of an element in bytes.
    item: u64,
}

impl Layout {
    /// The layout of an array; `None` for any other object.
    pub(super) fn of(head: &Head) -> Result<Option<Self>> {
        if head.codec() != ARRAY {
            return Ok(None);
        }
        let corrupt = |cause| {
            Error::new(ErrorKind::Corrupt, "view an array", cause)
                .with_hint("whoever wrote it is at fault; store the object again")
        };
        let (dtype, shape, order) = read_array_meta(head.meta())?;
        let [part] = head.parts() else { return Err(corrupt("it does not have one part")) };
        let bytes = part.end - part.start;
        // An array without elements has none to read, whatever its other dimensions.
        let elements = product(&shape);
        let item = match elements {
            Some(0) => 0,
            Some(elements) => bytes / elements,
            None => return Err(corrupt("its shape is too large")),
        };
        if elements.and_then(|elements| elements.checked_mul(item)) != Some(bytes) {
            return Err(corrupt("its shape does not fit its elements").with("bytes", bytes));
        }
        Ok(Some(Self { dtype, shape, order, item }))
    }
}

/// Number of elements of a shape; `None` when it is too large.
fn product(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_u64, |elements, side| elements.checked_mul(*side))
}

/// A selection of an array, read: for bridges to other languages.
#[derive(Debug)]
pub struct Selected {
    /// NumPy's type string of the elements.
    pub dtype: String,
    /// Lengths of the dimensions.
    pub shape: Vec<u64>,
    /// Which index varies fastest in memory: as it is stored.
    pub order: Order,
    /// The elements, in private memory.
    pub bytes: Buffer,
}

impl View {
    /// Reads a selection of an array of whichever elements. Dimensions that are not mentioned are
    /// taken whole. `go_on` is called after each read, with the bytes of the result that are there.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for another object than an array, [`ErrorKind::Config`] for a
    /// selection that does not fit it, what `go_on` fails with, else as [`Store::view`](crate::Store::view).
    pub fn select(
        &self,
        selections: &[Selection],
        go_on: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Selected> {
        let Some(layout) = &self.layout else {
            return Err(self.unlike("select from an array", "no array"));
        };
        if selections.len() > layout.shape.len() {
            return Err(self
                .about(misuse("there are more selections than dimensions"))
                .with("dimensions", layout.shape.len()));
        }
        let all = std::iter::repeat(&Selection::ALL);
        let mut picked = Vec::with_capacity(layout.shape.len());
        let mut shape = Vec::with_capacity(layout.shape.len());
        for (len, selection) in layout.shape.iter().zip(selections.iter().chain(all)) {
            let positions = selection.positions(*len).map_err(|error| self.about(error))?;
            if selection.keeps_dimension() {
                shape.push(positions.count());
            }
            picked.push(positions);
        }
        let bytes = self.gather(layout, &picked, go_on)?;
        Ok(Selected { dtype: layout.dtype.clone(), shape, order: layout.order, bytes })
    }

    fn gather(
        &self,
        layout: &Layout,
        picked: &[Positions],
        go_on: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Buffer> {
        let counts: Vec<u64> = picked.iter().map(Positions::count).collect();
        let len = product(&counts).and_then(|elements| elements.checked_mul(layout.item));
        let fits = |len: &u64| isize::try_from(*len).is_ok();
        let len = len.filter(fits).ok_or_else(|| {
            self.about(misuse("the result is too large")).with("shape", format_args!("{counts:?}"))
        })?;
        self.source.check_end(0, len)?;
        let mut result = Buffer::try_zeroed(len)?;
        if len == 0 {
            return Ok(result);
        }
        let target = result.as_mut().unwrap_or_default(); // the sole holder of writable memory
        let plan = Plan::new(&layout.shape, layout.item, layout.order, picked);
        let block = plan.block() as usize;
        let mut done = 0;
        for read in plan.reads(Limits::USUAL) {
            match read.to {
                To::Straight(place) => {
                    let (place, len) =
                        (place as usize, (read.range.end - read.range.start) as usize);
                    self.source.read_into(0, read.range, &mut target[place..place + len])?;
                    done += len as u64;
                }
                To::Scattered { first, count } => {
                    let start = read.range.start;
                    let bytes = self.source.read(0, read.range)?;
                    for (source, place) in plan.blocks(first, count) {
                        let (source, place) = ((source - start) as usize, place as usize);
                        target[place..place + block]
                            .copy_from_slice(&bytes[source..source + block]);
                    }
                    done += count * plan.block();
                }
            }
            go_on(done)?;
        }
        Ok(result)
    }

    /// The stored array, as one of `T`s; nothing is read yet.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for another object than an array, [`ErrorKind::Decode`] for
    /// one of other elements.
    pub fn array<T: Element>(&self) -> Result<ArrayReader<'_, T>> {
        let Some(layout) = &self.layout else {
            return Err(self.unlike("view an array", "no array"));
        };
        if layout.dtype != T::DTYPE {
            let error = Error::new(ErrorKind::Decode, "view an array", "other elements")
                .with("expected", T::DTYPE)
                .with("found", &layout.dtype)
                .with_hint("ask for the element type that was stored");
            return Err(self.about(error));
        }
        Ok(ArrayReader { view: self, element: PhantomData })
    }
}

/// A stored array of `T`s, of which selections are read; made by [`View::array`].
pub struct ArrayReader<'a, T> {
    view: &'a View,
    element: PhantomData<fn() -> T>,
}

impl<T: Element> ArrayReader<'_, T> {
    /// Lengths of the dimensions.
    pub fn shape(&self) -> &[u64] {
        self.view.shape()
    }

    /// Reads a selection; dimensions that are not mentioned are taken whole.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a selection that does not fit the array, else what the channel
    /// fails with.
    pub fn slice(&self, selections: &[Selection]) -> Result<Array<T>> {
        let selected = self.view.select(selections, &mut nothing_else_to_do)?;
        let shape = selected.shape.iter().map(|side| *side as usize).collect();
        Array::from_parts(shape, selected.order, selected.bytes)
    }

    /// Reads the `i`-th row: what lies at `i` along the first dimension.
    ///
    /// # Errors
    /// As [`slice`](Self::slice).
    pub fn row(&self, i: u64) -> Result<Array<T>> {
        self.slice(&[Selection::Index(signed(i))])
    }

    /// Reads some rows; those past the end are left out.
    ///
    /// # Errors
    /// As [`slice`](Self::slice).
    pub fn rows(&self, rows: Range<u64>) -> Result<Array<T>> {
        self.slice(&[Selection::from(signed(rows.start)..signed(rows.end))])
    }
}

/// No dimension is longer than the largest.
fn signed(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

impl<T: Element> fmt::Debug for ArrayReader<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayReader({}, {:?})", T::DTYPE, self.shape())
    }
}
