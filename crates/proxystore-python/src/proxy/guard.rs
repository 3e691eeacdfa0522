//! The guard: while it is on, a resolve is refused with an error that shows where it came from.
//!
//! Whether a guard covers *this* thread and context is Python's to know (`proxystore_rs.proxy`
//! keeps it in a context variable). Here is only the count of guards anywhere in the process,
//! looked at when a proxy is about to resolve, so that nobody pays for a guard that is off.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;

use super::object::Held;
use super::python;

static GUARDS: AtomicUsize = AtomicUsize::new(0);

#[inline(always)]
pub(super) fn active() -> bool {
    GUARDS.load(Relaxed) != 0
}

/// Asks Python whether this proxy may resolve here and now; false with an exception set.
pub(super) unsafe fn allows(object: *mut PyObject) -> bool {
    let check = python::imported(&python::CHECK_GUARD);
    !check.is_null() && Held::owned(ffi::PyObject_CallOneArg(check, object)).is_some()
}

/// Counts guards: a positive `change` when one begins, a negative one when it ends.
#[pyfunction]
fn _count_guards(change: isize) -> usize {
    GUARDS.fetch_add(change.cast_unsigned(), Relaxed).wrapping_add_signed(change)
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_count_guards, module)?)
}
