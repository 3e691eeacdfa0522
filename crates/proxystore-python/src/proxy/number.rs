//! Number slots: arithmetic, conversion, truth.
//!
//! Binary slots unwrap both operands, so a reflected operation is the same function. In-place slots
//! rebind the target of the proxy on the left and return the proxy.
use std::ffi::c_int;
use std::ptr::null_mut;

use pyo3::ffi::{self, PyObject};

use super::facts;
use super::object::{ProxyObject, held, operand, set_target};

macro_rules! unary {
    ($($slot:ident => $forward:path;)*) => {$(
        pub(super) unsafe extern "C" fn $slot(object: *mut PyObject) -> *mut PyObject {
            let Some(target) = held(object) else { return null_mut() };
            $forward(target.as_ptr())
        }
    )*};
}

macro_rules! binary {
    ($($slot:ident => $forward:path;)*) => {$(
        pub(super) unsafe extern "C" fn $slot(
            left: *mut PyObject,
            right: *mut PyObject,
        ) -> *mut PyObject {
            let Some(left) = operand(left) else { return null_mut() };
            let Some(right) = operand(right) else { return null_mut() };
            $forward(left.as_ptr(), right.as_ptr())
        }
    )*};
}

macro_rules! in_place {
    ($($slot:ident => $forward:path;)*) => {$(
        pub(super) unsafe extern "C" fn $slot(
            object: *mut PyObject,
            right: *mut PyObject,
        ) -> *mut PyObject {
            let Some(left) = held(object) else { return null_mut() };
            let Some(right) = operand(right) else { return null_mut() };
            rebind(object, $forward(left.as_ptr(), right.as_ptr()))
        }
    )*};
}

unary! {
    negative => ffi::PyNumber_Negative;
    positive => ffi::PyNumber_Positive;
    absolute => ffi::PyNumber_Absolute;
    invert => ffi::PyNumber_Invert;
    int => ffi::PyNumber_Long;
    float => ffi::PyNumber_Float;
}

binary! {
    add => ffi::PyNumber_Add;
    subtract => ffi::PyNumber_Subtract;
    multiply => ffi::PyNumber_Multiply;
    matrix_multiply => ffi::PyNumber_MatrixMultiply;
    true_divide => ffi::PyNumber_TrueDivide;
    floor_divide => ffi::PyNumber_FloorDivide;
    remainder => ffi::PyNumber_Remainder;
    divmod => ffi::PyNumber_Divmod;
    left_shift => ffi::PyNumber_Lshift;
    right_shift => ffi::PyNumber_Rshift;
    and => ffi::PyNumber_And;
    xor => ffi::PyNumber_Xor;
    or => ffi::PyNumber_Or;
    concat => ffi::PySequence_Concat;
}

in_place! {
    in_place_add => ffi::PyNumber_InPlaceAdd;
    in_place_subtract => ffi::PyNumber_InPlaceSubtract;
    in_place_multiply => ffi::PyNumber_InPlaceMultiply;
    in_place_matrix_multiply => ffi::PyNumber_InPlaceMatrixMultiply;
    in_place_true_divide => ffi::PyNumber_InPlaceTrueDivide;
    in_place_floor_divide => ffi::PyNumber_InPlaceFloorDivide;
    in_place_remainder => ffi::PyNumber_InPlaceRemainder;
    in_place_left_shift => ffi::PyNumber_InPlaceLshift;
    in_place_right_shift => ffi::PyNumber_InPlaceRshift;
    in_place_and => ffi::PyNumber_InPlaceAnd;
    in_place_xor => ffi::PyNumber_InPlaceXor;
    in_place_or => ffi::PyNumber_InPlaceOr;
    in_place_concat => ffi::PySequence_InPlaceConcat;
}

/// Makes the result of an in-place operation the target; null passes through.
unsafe fn rebind(object: *mut PyObject, result: *mut PyObject) -> *mut PyObject {
    if result.is_null() {
        return result;
    }
    set_target(object, result);
    ffi::Py_INCREF(object);
    object
}

/// `pow` with two or three arguments, any of which may be the proxy.
pub(super) unsafe extern "C" fn power(
    base: *mut PyObject,
    exponent: *mut PyObject,
    modulus: *mut PyObject,
) -> *mut PyObject {
    let Some(base) = operand(base) else {
        return null_mut();
    };
    let Some(exponent) = operand(exponent) else {
        return null_mut();
    };
    let Some(modulus) = operand(modulus) else {
        return null_mut();
    };
    ffi::PyNumber_Power(base.as_ptr(), exponent.as_ptr(), modulus.as_ptr())
}

pub(super) unsafe extern "C" fn in_place_power(
    object: *mut PyObject,
    exponent: *mut PyObject,
    modulus: *mut PyObject,
) -> *mut PyObject {
    let Some(base) = held(object) else {
        return null_mut();
    };
    let Some(exponent) = operand(exponent) else {
        return null_mut();
    };
    let Some(modulus) = operand(modulus) else {
        return null_mut();
    };
    let power = ffi::PyNumber_InPlacePower(base.as_ptr(), exponent.as_ptr(), modulus.as_ptr());
    rebind(object, power)
}

/// `__index__`, or `__int__` for targets that have only that; a float or a string is no index.
pub(super) unsafe extern "C" fn index(object: *mut PyObject) -> *mut PyObject {
    let Some(target) = held(object) else {
        return null_mut();
    };
    let target = target.as_ptr();
    let number = (*ffi::Py_TYPE(target)).tp_as_number;
    let only_int = !number.is_null()
        && (*number).nb_index.is_none()
        && (*number).nb_int.is_some()
        && (*number).nb_float.is_none();
    if only_int { ffi::PyNumber_Long(target) } else { ffi::PyNumber_Index(target) }
}

pub(super) unsafe extern "C" fn truth(object: *mut PyObject) -> c_int {
    if (*ProxyObject::of(object)).target.is_null()
        && let Some(truth) = facts::truth(object)
    {
        return truth;
    }
    held(object).map_or(-1, |target| ffi::PyObject_IsTrue(target.as_ptr()))
}
