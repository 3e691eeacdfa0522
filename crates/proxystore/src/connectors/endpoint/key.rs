//! Ids of keys: `NAMESPACE.RANDOM.ENDPOINT`. The endpoint knows the object by what is before it.

use crate::error::Result;
use crate::key::unique_id;
use crate::wire::{EndpointId, Name};

/// A fresh id for an object of an endpoint.
pub(super) fn fresh_id(namespace: &str, endpoint: EndpointId) -> Result<String> {
    Ok(format!("{namespace}.{}.{endpoint}", unique_id()?))
}

/// What a key names; ids that were not made here are those of objects of the endpoint `otherwise`.
pub(super) fn name_of(id: &str, generation: u64, otherwise: EndpointId) -> Name {
    if let Some((id, endpoint)) = id.rsplit_once('.')
        && !id.is_empty()
        && let Ok(endpoint) = endpoint.parse()
    {
        return Name { endpoint, id: id.to_owned(), generation };
    }
    Name { endpoint: otherwise, id: id.to_owned(), generation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_whose_object_it_is() {
        let (one, two) = (EndpointId::from_bytes([1; 32]), EndpointId::from_bytes([2; 32]));
        let id = fresh_id("run", one).unwrap();
        assert!(crate::key::check_id(&id).is_ok());
        let name = name_of(&id, 3, two);
        assert_eq!((name.endpoint, name.generation), (one, 3));
        assert_eq!(format!("{}.{one}", name.id), id);
        for id in ["never-stored", "a.b"] {
            let name = name_of(id, 0, two);
            assert_eq!((name.endpoint, name.id.as_str()), (two, id));
        }
    }
}
