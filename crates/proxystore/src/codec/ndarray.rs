//! `ndarray` arrays in the array codec.

use ndarray::{ArrayBase, ArrayViewD, Data, Dimension, IxDyn, OwnedRepr, ShapeBuilder};

use crate::codec::array::{facts, payload};
use crate::codec::{Array, Decode, Element, Encode, Order};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::Facts;
use crate::payload::{Payload, Received};

impl<T: Element> Array<T> {
    /// The elements as an `ndarray` view: no copy.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] when `ndarray` cannot represent the shape.
    pub fn view(&self) -> Result<ArrayViewD<'_, T>> {
        let shape = IxDyn(self.shape()).set_f(self.order() == Order::F);
        ArrayViewD::from_shape(shape, self).map_err(shape_error)
    }
}

fn shape_error(source: ndarray::ShapeError) -> Error {
    Error::new(ErrorKind::Decode, "view an array", source.to_string()).with_source(source)
}

impl<T: Element, S: Data<Elem = T>, D: Dimension> Encode for ArrayBase<S, D> {
    fn encode(&self) -> Result<Payload<'_>> {
        if let Some(elements) = self.as_slice() {
            return payload(self.shape(), Order::C, elements, false);
        }
        if let Some(elements) = self.as_slice_memory_order()
            && self.t().is_standard_layout()
        {
            return payload(self.shape(), Order::F, elements, false);
        }
        // A view with gaps: gather its elements.
        let elements: Vec<T> = self.iter().copied().collect();
        Ok(payload(self.shape(), Order::C, &elements, false)?.into_owned())
    }

    fn facts(&self) -> Facts {
        facts::<T>(self.shape(), self.len())
    }
}

impl<T: Element, D: Dimension> Decode for ArrayBase<OwnedRepr<T>, D> {
    fn decode(received: &Received) -> Result<Self> {
        let array = Array::<T>::decode(received)?;
        array.view()?.to_owned().into_dimensionality().map_err(shape_error)
    }
}
