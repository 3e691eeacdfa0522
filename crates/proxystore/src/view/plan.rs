//! Which bytes of an array a selection needs, and where each of them goes.
//!
//! A selection is a set of *blocks*: runs of bytes that lie together both in the array and in the
//! result. They are walked in the order in which they lie in the array, whatever order they are wanted in,
//! and neighbours with small gaps between them are read at once. The blocks are never listed: there may be as
//! many as elements.

use std::ops::Range;

use super::selection::Positions;
use crate::codec::Order;

/// How much is read at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// What lies between two blocks is read with them up to this length.
    pub(super) gap: u64,
    /// One read takes no more than this.
    pub(super) piece: u64,
}

impl Limits {
    /// A gap takes about as long as one more request to a server. Pieces keep small what is needed
    /// beside the result, and let callers look after other things in between.
    pub(super) const USUAL: Self = Self { gap: 64 << 10, piece: 8 << 20 };
}

/// A selection of an array, ready to be read.
#[derive(Debug)]
pub(super) struct Plan {
    /// The dimensions along which blocks lie, slowest first.
    walks: Vec<Walk>,
    /// Where the first block would lie if all positions were 0, in bytes.
    base: u64,
    /// Length of each block in bytes.
    block: u64,
    /// How many there are.
    blocks: u64,
}

/// One read: a range of bytes of the array, and what of it goes where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) range: Range<u64>,
    pub(super) to: To,
}

/// Where the bytes of a read go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum To {
    /// All of them to this place of the result.
    Straight(u64),
    /// Block by block: see [`Plan::blocks`].
    Scattered { first: u64, count: u64 },
}

/// Steps along a dimension, ascending in the array: bytes from the base, and bytes in the result.
#[derive(Debug)]
enum Walk {
    Steps {
        source: u64,
        source_step: u64,
        target: u64,
        target_step: u64,
        descends: bool,
        count: u64,
    },
    List(Vec<(u64, u64)>),
}

impl Walk {
    fn count(&self) -> u64 {
        match self {
            Self::Steps { count, .. } => *count,
            Self::List(list) => list.len() as u64,
        }
    }

    #[inline]
    fn at(&self, i: u64) -> (u64, u64) {
        match self {
            Self::Steps { source, source_step, target, target_step, descends, .. } => {
                let moved = i * target_step;
                let target = if *descends { target - moved } else { target + moved };
                (source + i * source_step, target)
            }
            Self::List(list) => list[i as usize],
        }
    }
}

impl Plan {
    /// The plan for an array of items of `item` bytes: its length in bytes must have been checked to
    /// fit, and the positions to lie within the shape.
    pub(super) fn new(shape: &[u64], item: u64, order: Order, picked: &[Positions]) -> Self {
        let mut dimensions: Vec<(u64, &Positions)> = shape.iter().copied().zip(picked).collect();
        if order == Order::C {
            dimensions.reverse(); // fastest first
        }
        let (mut base, mut block, mut walks) = (0, item, Vec::new());
        let (mut stride, mut target_stride) = (item, item);
        let mut blocks = 1;
        for (len, positions) in dimensions {
            let count = positions.count();
            match positions {
                _ if count == 0 => blocks = 0,
                Positions::Steps { start, step, .. }
                    if count == 1 || (*step == 1 && block == stride && walks.is_empty()) =>
                {
                    base += start * stride;
                    block *= count;
                }
                Positions::List(list) if count == 1 => base += list[0] * stride,
                _ => {
                    blocks *= count;
                    walks.push(walk(positions, stride, target_stride));
                }
            }
            stride *= len;
            target_stride *= count;
        }
        walks.reverse();
        Self { walks, base, block, blocks }
    }

    /// Length of a block in bytes.
    pub(super) fn block(&self) -> u64 {
        self.block
    }

    /// `count` blocks from the `first` on: their places in the array and in the result, in bytes.
    pub(super) fn blocks(&self, first: u64, count: u64) -> Blocks<'_> {
        let (last, outer) = match self.walks.split_last() {
            Some((last, outer)) => (Some(last), outer),
            None => (None, &[][..]),
        };
        let inner = last.map_or(1, Walk::count).max(1);
        let mut blocks = Blocks {
            base: self.base,
            outer,
            last,
            inner,
            next: first % inner,
            row: first / inner,
            at: (0, 0),
            left: count,
        };
        blocks.at = blocks.start_of_row();
        blocks
    }

    /// What to read, in the order of the array (but for positions that are picked twice).
    pub(super) fn reads(&self, limits: Limits) -> Reads<'_> {
        let blocks = self.blocks(0, self.blocks);
        Reads { plan: self, limits, blocks, index: 0, pending: None, rest: None }
    }
}

fn walk(positions: &Positions, stride: u64, target_stride: u64) -> Walk {
    match positions {
        Positions::Steps { start, count, step } => {
            let (distance, end) = (step.unsigned_abs(), (count - 1) * target_stride);
            let descends = *step < 0;
            let lowest = if descends { start - (count - 1) * distance } else { *start };
            Walk::Steps {
                source: lowest * stride,
                source_step: distance * stride,
                target: if descends { end } else { 0 },
                target_step: target_stride,
                descends,
                count: *count,
            }
        }
        Positions::List(list) => {
            let placed = list.iter().zip(0..).map(|(at, i)| (at * stride, i * target_stride));
            let mut placed: Vec<_> = placed.collect();
            placed.sort_unstable();
            Walk::List(placed)
        }
    }
}

/// Blocks in the order of the array, see [`Plan::blocks`].
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    base: u64,
    outer: &'a [Walk],
    last: Option<&'a Walk>,
    inner: u64,
    /// The next block of the present row, a row being the blocks along the last walk.
    next: u64,
    row: u64,
    at: (u64, u64),
    left: u64,
}

impl Blocks<'_> {
    fn start_of_row(&self) -> (u64, u64) {
        let (mut source, mut target, mut rest) = (self.base, 0, self.row);
        for walk in self.outer.iter().rev() {
            let count = walk.count().max(1);
            let (from, to) = walk.at(rest % count);
            rest /= count;
            source += from;
            target += to;
        }
        (source, target)
    }
}

impl Iterator for Blocks<'_> {
    type Item = (u64, u64);

    #[inline]
    fn next(&mut self) -> Option<(u64, u64)> {
        if self.left == 0 {
            return None;
        }
        if self.next == self.inner {
            self.next = 0;
            self.row += 1;
            self.at = self.start_of_row();
        }
        let (source, target) = self.last.map_or((0, 0), |walk| walk.at(self.next));
        self.next += 1;
        self.left -= 1;
        Some((self.at.0 + source, self.at.1 + target))
    }
}

/// Reads, see [`Plan::reads`].
#[derive(Debug)]
pub(super) struct Reads<'a> {
    plan: &'a Plan,
    limits: Limits,
    blocks: Blocks<'a>,
    /// Number of the block that `blocks` gives next.
    index: u64,
    /// A block that did not fit into the read before.
    pending: Option<(u64, u64)>,
    /// What is left of a block longer than a piece.
    rest: Option<(Range<u64>, u64)>,
}

impl Iterator for Reads<'_> {
    type Item = Read;

    fn next(&mut self) -> Option<Read> {
        if let Some((range, target)) = self.rest.take() {
            return Some(self.straight(range, target));
        }
        let (start, target) = self.pending.take().or_else(|| self.blocks.next())?;
        let (block, first) = (self.plan.block, self.index);
        let Limits { gap, piece } = self.limits;
        let mut end = start + block;
        self.index += 1;
        if block > piece {
            return Some(self.straight(start..end, target));
        }
        for (next, place) in self.blocks.by_ref() {
            let longer = end.max(next + block);
            if next < start || next.saturating_sub(end) > gap || longer - start > piece {
                self.pending = Some((next, place));
                break;
            }
            end = longer;
            self.index += 1;
        }
        let to = match self.index - first {
            1 => To::Straight(target),
            count => To::Scattered { first, count },
        };
        Some(Read { range: start..end, to })
    }
}

impl Reads<'_> {
    /// The first piece of a block; the rest comes with the next calls.
    fn straight(&mut self, range: Range<u64>, target: u64) -> Read {
        let end = range.end.min(range.start + self.limits.piece);
        if end < range.end {
            self.rest = Some((end..range.end, target + (end - range.start)));
        }
        Read { range: range.start..end, to: To::Straight(target) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::selection::Selection;
    use super::*;

    /// What every plan must give, one element after the other.
    fn brute_force(shape: &[u64], item: u64, order: Order, picked: &[Positions]) -> Vec<u64> {
        let lists: Vec<Vec<u64>> = picked.iter().map(listed).collect();
        let mut strides = vec![0; shape.len()];
        let mut dimensions: Vec<usize> = (0..shape.len()).collect();
        if order == Order::C {
            dimensions.reverse();
        }
        let mut stride = item;
        for dimension in &dimensions {
            strides[*dimension] = stride;
            stride *= shape[*dimension];
        }
        let mut places = vec![0];
        for dimension in dimensions {
            let stride = strides[dimension];
            places = lists[dimension]
                .iter()
                .flat_map(|at| places.iter().map(move |place| place + at * stride))
                .collect();
        }
        places.iter().flat_map(|place| (0..item).map(move |byte| place + byte)).collect()
    }

    fn listed(positions: &Positions) -> Vec<u64> {
        match positions {
            Positions::Steps { start, count, step } => {
                (0..*count).map(|i| start.wrapping_add_signed(i.cast_signed() * step)).collect()
            }
            Positions::List(list) => list.clone(),
        }
    }

    /// Carries the plan out on an array whose bytes are their own places.
    fn carried_out(plan: &Plan, len: usize, limits: Limits) -> Vec<u64> {
        let mut result = vec![u64::MAX; len];
        for read in plan.reads(limits) {
            assert!(read.range.end - read.range.start <= limits.piece.max(plan.block()));
            match read.to {
                To::Straight(target) => {
                    for (place, from) in (target..).zip(read.range) {
                        result[place as usize] = from;
                    }
                }
                To::Scattered { first, count } => {
                    for (source, target) in plan.blocks(first, count) {
                        assert!(read.range.start <= source);
                        assert!(source + plan.block() <= read.range.end);
                        for byte in 0..plan.block() {
                            result[(target + byte) as usize] = source + byte;
                        }
                    }
                }
            }
        }
        result
    }

    fn selection(len: u64) -> BoxedStrategy<Selection> {
        let bound = || prop::option::of(-8_i64..8);
        let step = prop_oneof![1_i64..4, -4_i64..0];
        let slice = (bound(), bound(), step).prop_map(|(start, stop, step)| Selection::Slice {
            start,
            stop,
            step,
        });
        let all = Just(Selection::ALL);
        if len == 0 {
            return prop_oneof![slice, all].boxed();
        }
        let len = len.cast_signed();
        let index = (-len..len).prop_map(Selection::Index);
        let list = prop::collection::vec(-len..len, 0..7).prop_map(Selection::Positions);
        prop_oneof![3 => slice, 3 => all, 1 => index, 1 => list].boxed()
    }

    fn case() -> impl Strategy<Value = (Vec<u64>, Vec<Selection>)> {
        prop::collection::vec(0_u64..6, 0..5).prop_flat_map(|shape| {
            let selections: Vec<_> = shape.iter().map(|len| selection(*len)).collect();
            (Just(shape), selections)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn plans_give_what_brute_force_gives(
            (shape, selections) in case(),
            item in 1_u64..9,
            is_c in any::<bool>(),
            gap in 0_u64..40,
            piece in 1_u64..200,
        ) {
            let order = if is_c { Order::C } else { Order::F };
            let picked: Vec<_> = shape.iter().zip(&selections)
                .map(|(len, selection)| selection.positions(*len).unwrap()).collect();
            let expected = brute_force(&shape, item, order, &picked);
            let plan = Plan::new(&shape, item, order, &picked);
            let limits = Limits { gap, piece };
            prop_assert_eq!(&carried_out(&plan, expected.len(), limits), &expected);
            prop_assert_eq!(&carried_out(&plan, expected.len(), Limits::USUAL), &expected);
        }
    }

    fn reads(shape: &[u64], item: u64, selections: &[Selection]) -> Vec<Range<u64>> {
        let picked: Vec<_> = shape
            .iter()
            .zip(selections)
            .map(|(len, selection)| selection.positions(*len).unwrap())
            .collect();
        let plan = Plan::new(shape, item, Order::C, &picked);
        plan.reads(Limits::USUAL).map(|read| read.range).collect()
    }

    #[test]
    fn what_lies_together_is_read_at_once_and_nothing_else() {
        let rows = reads(&[1000, 1000], 8, &[Selection::from(10..20), Selection::ALL]);
        assert_eq!(rows, vec![80_000..160_000]);
        let few = reads(&[1000, 100_000], 8, &[Selection::ALL.step(500), Selection::from(0..4)]);
        assert_eq!(few, vec![0..32, 400_000_000..400_000_032]);
        let near = reads(&[4, 1000], 8, &[Selection::ALL.step(-1), Selection::from(0..4)]);
        assert_eq!(near, vec![0..24_032]); // gaps of a few kilobytes, in the order of the array
        let large = reads(&[20 << 20], 1, &[Selection::ALL]);
        assert_eq!(large, vec![0..8 << 20, 8 << 20..16 << 20, 16 << 20..20 << 20]);
    }
}
