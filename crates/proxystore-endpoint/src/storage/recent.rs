//! Which objects in memory were used how recently: a list in which any place is found at once.

use std::sync::Arc;

/// A place in the list.
pub(super) type Place = u32;

const NOWHERE: Place = Place::MAX;

#[derive(Debug)]
struct Node {
    id: Option<Arc<str>>,
    newer: Place,
    older: Place,
}

/// Ids, the most recently used first.
#[derive(Debug)]
pub(super) struct Recent {
    nodes: Vec<Node>,
    vacant: Vec<Place>,
    newest: Place,
    oldest: Place,
}

impl Default for Recent {
    fn default() -> Self {
        Self { nodes: Vec::new(), vacant: Vec::new(), newest: NOWHERE, oldest: NOWHERE }
    }
}

impl Recent {
    /// Enters an id as the most recent one. `None` when there are four billion.
    pub(super) fn enter(&mut self, id: Arc<str>) -> Option<Place> {
        let node = Node { id: Some(id), newer: NOWHERE, older: NOWHERE };
        let place = if let Some(place) = self.vacant.pop() {
            self.nodes[place as usize] = node;
            place
        } else {
            let place = Place::try_from(self.nodes.len()).ok().filter(|at| *at != NOWHERE)?;
            self.nodes.push(node);
            place
        };
        self.link_newest(place);
        Some(place)
    }

    /// Makes an id the most recent one.
    pub(super) fn touch(&mut self, place: Place) {
        if self.newest != place {
            self.unlink(place);
            self.link_newest(place);
        }
    }

    /// Takes an id out.
    pub(super) fn leave(&mut self, place: Place) {
        self.unlink(place);
        self.nodes[place as usize].id = None;
        self.vacant.push(place);
    }

    /// The ids, the least recently used first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = &Arc<str>> {
        let node = |place: Place| self.nodes.get(place as usize);
        std::iter::successors(node(self.oldest), move |older| node(older.newer))
            .filter_map(|node| node.id.as_ref())
    }

    fn link_newest(&mut self, place: Place) {
        let older = self.newest;
        self.nodes[place as usize].older = older;
        self.nodes[place as usize].newer = NOWHERE;
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: Place) {
        let Node { newer, older, .. } = self.nodes[place as usize];
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_list_is_in_the_order_of_use(ops in prop::collection::vec((0..3_u8, 0..8_usize), 0..200)) {
            let mut recent = Recent::default();
            let mut model: Vec<(usize, Place)> = Vec::new(); // oldest first
            for (op, n) in ops {
                let at = model.iter().position(|(m, _)| *m == n);
                match (op, at) {
                    (0, None) => {
                        let place = recent.enter(n.to_string().into()).unwrap();
                        model.push((n, place));
                    }
                    (1, Some(at)) => {
                        recent.touch(model[at].1);
                        let one = model.remove(at);
                        model.push(one);
                    }
                    (2, Some(at)) => recent.leave(model.remove(at).1),
                    _ => {}
                }
                let got: Vec<String> = recent.oldest_first().map(ToString::to_string).collect();
                let expected: Vec<String> = model.iter().map(|(n, _)| n.to_string()).collect();
                prop_assert_eq!(got, expected);
            }
        }
    }
}
