//! Building a star-tree by sorting.

use super::{DimensionSet, FORM, HEADER_BYTES, NODE_BYTES, NULL, Node, STAR};
use crate::reader::{DocId, IndexError};
use crate::wire::corrupt;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// A star node is made where it has at most this share of the records that it aggregates.
const STAR_SHARE_MAX: f64 = 0.75;
/// A leaf gets a star node that has at most this share of its records.
const LEAF_STAR_SHARE_MAX: f64 = 0.5;
/// And at least so many records.
const LEAF_STAR_RECORDS_MIN: usize = 8;
/// Star nodes are made until there are so many records for each row; those near the root come first.
const RECORDS_PER_ROW_MAX: usize = 8;
/// Star nodes' sets hold at most so many ids for each row, all together.
const IDS_PER_ROW_MAX: usize = 16;
/// And never more records than this.
const RECORDS_MAX: usize = 1 << 31;

/// How numbers of a measure become one. Sets become their union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// The sum; whole numbers wrap.
    Sum,
    /// The smallest; floats in total order.
    Min,
    /// The largest; floats in total order.
    Max,
}

/// A measure's values, one a row or record.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each name is its type")]
pub enum Numbers {
    I64(Vec<i64>),
    F64(Vec<f64>),
    Sets(Sets),
}

/// Sets of ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sets {
    /// For each set the end of its ids in `ids`.
    pub ends: Vec<usize>,
    /// The ids, ascending within a set.
    pub ids: Vec<u32>,
}

impl Sets {
    fn get(&self, set: u32) -> &[u32] {
        let set = set as usize;
        let start = set.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.ids[start..self.ends[set]]
    }

    fn fits(&self) -> bool {
        self.ends.is_sorted() && self.ends.last().copied().unwrap_or(0) == self.ids.len()
    }

    /// The union of each group's.
    fn united(&self, groups: &Groups) -> Self {
        let mut united = Self::default();
        for group in groups.each() {
            let start = united.ids.len();
            match group {
                [one] => united.ids.extend_from_slice(self.get(*one)),
                several => {
                    let mut ids: Vec<u32> = Vec::new();
                    several.iter().for_each(|&set| ids.extend(self.get(set)));
                    ids.sort_unstable();
                    ids.dedup();
                    united.ids.extend(ids);
                }
            }
            debug_assert!(united.ids[start..].is_sorted());
            united.ends.push(united.ids.len());
        }
        united
    }

    fn append(&mut self, other: Self) {
        let before = self.ids.len();
        self.ids.extend(other.ids);
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }
}

/// What is aggregated.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// How.
    pub fold: Fold,
    /// The values.
    pub values: Numbers,
    /// Whether each value counts; empty: all do. An aggregate of values that don't count does not count.
    pub valid: Vec<bool>,
}

/// How a tree is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes of so many records or fewer are not split.
    pub leaf_records_max: u32,
    /// For each dimension whether no star node leaves it out.
    pub skip_star: Vec<bool>,
}

/// A tree that was built.
#[derive(Debug)]
pub struct Built {
    /// The stored form of [`StarTree`](super::StarTree).
    pub nodes: Vec<u8>,
    /// For each record a row that has its dimensions' values (but for those that it aggregates over).
    pub rows: Vec<DocId>,
    /// Each record's measures.
    pub measures: Vec<Measure>,
}

/// Builds the tree of rows with `dimensions` (for each one an id, or [`NULL`], a row; ids in the order of their values)
/// and `measures`.
///
/// # Errors
/// When the parts are of different lengths, or there are too many rows.
pub fn build(
    dimensions: Vec<Vec<u32>>,
    measures: Vec<Measure>,
    options: &Options,
) -> Result<Built, IndexError> {
    let rows = dimensions.first().map_or(0, Vec::len);
    let fits = dimensions.iter().all(|ids| ids.len() == rows)
        && measures.iter().all(|measure| measure.fits(rows))
        && options.skip_star.len() == dimensions.len();
    if !fits || dimensions.is_empty() || rows > RECORDS_MAX {
        return Err(corrupt("the rows of a star-tree don't fit each other"));
    }
    let widths = dimensions.iter().map(|ids| width(ids)).collect();
    let rows = Records {
        ids: dimensions,
        rows: (0..rows as u32).collect(),
        measures,
        widths,
    };
    let mut builder = Builder {
        records: rows.none(),
        records_max: rows
            .len()
            .saturating_mul(RECORDS_PER_ROW_MAX)
            .min(RECORDS_MAX),
        ids_max: rows.len().saturating_mul(IDS_PER_ROW_MAX),
        nodes: Vec::new(),
        options,
    };
    let all: Vec<usize> = (0..rows.ids.len()).collect();
    let groups = rows.group(0..rows.len() as u32, &all);
    builder.records.append(rows.aggregate(&groups, |_| false));
    drop(rows);
    builder.split_all();
    let Builder { records, nodes, .. } = builder;
    let mut stored = Vec::with_capacity(HEADER_BYTES + nodes.len() * NODE_BYTES);
    let sizes = [records.ids.len(), records.len(), nodes.len()];
    for field in sizes.into_iter().map(|size| size as u32).chain([FORM]) {
        stored.extend_from_slice(&field.to_le_bytes());
    }
    nodes.iter().for_each(|node| node.write(&mut stored));
    Ok(Built {
        nodes: stored,
        rows: records.rows,
        measures: records.measures,
    })
}

/// Bits that hold every id, null apart, which takes the number above them.
fn width(ids: &[u32]) -> u32 {
    let end = ids
        .iter()
        .filter(|&&id| id < NULL)
        .max()
        .map_or(0, |&max| max + 1);
    u32::BITS - end.leading_zeros()
}

/// Rows or records, column by column.
struct Records {
    ids: Vec<Vec<u32>>,
    rows: Vec<DocId>,
    measures: Vec<Measure>,
    /// Bits of each dimension.
    widths: Vec<u32>,
}

/// Records in an order, cut into groups.
struct Groups {
    order: Vec<u32>,
    ends: Vec<u32>,
}

impl Groups {
    fn each(&self) -> impl Iterator<Item = &[u32]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let group = &self.order[start as usize..end as usize];
            start = end;
            group
        })
    }
}

impl Records {
    fn len(&self) -> usize {
        self.rows.len()
    }

    /// None of them.
    fn none(&self) -> Self {
        Self {
            ids: vec![Vec::new(); self.ids.len()],
            rows: Vec::new(),
            measures: self.measures.iter().map(Measure::none).collect(),
            widths: self.widths.clone(),
        }
    }

    /// The records of `range` in the order of `dimensions`, those that agree in all of them together.
    fn group(&self, range: Range<u32>, dimensions: &[usize]) -> Groups {
        let ids: Vec<&[u32]> = dimensions.iter().map(|&d| &self.ids[d][..]).collect();
        let widths: Vec<u32> = dimensions.iter().map(|&d| self.widths[d]).collect();
        if widths.iter().sum::<u32>() <= u64::BITS {
            let mut keyed: Vec<(u64, u32)> = range
                .map(|record| {
                    let key = ids.iter().zip(&widths).fold(0u64, |key, (ids, &width)| {
                        let mask = 1u64.checked_shl(width).map_or(u64::MAX, |end| end - 1);
                        let id = u64::from(ids[record as usize]).min(mask);
                        key.checked_shl(width).unwrap_or(0) | id
                    });
                    (key, record)
                })
                .collect();
            keyed.sort_unstable();
            let ends = ends(keyed.len(), |a, b| keyed[a].0 == keyed[b].0);
            let order = keyed.into_iter().map(|(_, record)| record).collect();
            return Groups { order, ends };
        }
        let key = |record: u32| ids.iter().map(move |ids| ids[record as usize]);
        let mut order: Vec<u32> = range.collect();
        order.sort_unstable_by(|&a, &b| key(a).cmp(key(b)).then(a.cmp(&b)));
        let ends = ends(order.len(), |a, b| key(order[a]).eq(key(order[b])));
        Groups { order, ends }
    }

    /// A record of each group, in which dimensions are aggregated over as told.
    fn aggregate(&self, groups: &Groups, is_left_out: impl Fn(usize) -> bool) -> Self {
        let firsts = || groups.each().map(|group| group[0] as usize);
        Self {
            ids: (self.ids.iter().enumerate())
                .map(|(dimension, ids)| {
                    if is_left_out(dimension) {
                        vec![STAR; groups.ends.len()]
                    } else {
                        firsts().map(|first| ids[first]).collect()
                    }
                })
                .collect(),
            rows: firsts().map(|first| self.rows[first]).collect(),
            measures: self.measures.iter().map(|m| m.folded(groups)).collect(),
            widths: self.widths.clone(),
        }
    }

    /// The dimensions behind `level` of which each value comes with one of `level` only, in `range`.
    fn deciders(&self, range: &Range<u32>, level: usize) -> Vec<usize> {
        let range = range.start as usize..range.end as usize;
        let decides = |dimension: &usize| {
            let mut decided: HashMap<u32, u32> = HashMap::new();
            let pairs = self.ids[*dimension][range.clone()].iter();
            pairs
                .zip(&self.ids[level][range.clone()])
                .all(|(&value, &of_level)| *decided.entry(value).or_insert(of_level) == of_level)
        };
        (level + 1..self.ids.len()).filter(decides).collect()
    }

    /// Adds records; gives their numbers.
    fn append(&mut self, other: Self) -> Range<u32> {
        let start = self.len() as u32;
        for (ids, others) in self.ids.iter_mut().zip(other.ids) {
            ids.extend(others);
        }
        self.rows.extend(other.rows);
        for (measure, other) in self.measures.iter_mut().zip(other.measures) {
            measure.append(other);
        }
        start..self.len() as u32
    }
}

/// The ends of runs of equal neighbours among `len`.
fn ends(len: usize, equal: impl Fn(usize, usize) -> bool) -> Vec<u32> {
    (1..=len)
        .filter(|&end| end == len || !equal(end - 1, end))
        .map(|end| end as u32)
        .collect()
}

impl Measure {
    fn fits(&self, rows: usize) -> bool {
        let values = match &self.values {
            Numbers::I64(values) => values.len(),
            Numbers::F64(values) => values.len(),
            Numbers::Sets(sets) if !sets.fits() => return false,
            Numbers::Sets(sets) => sets.ends.len(),
        };
        values == rows && (self.valid.is_empty() || self.valid.len() == rows)
    }

    fn none(&self) -> Self {
        Self {
            fold: self.fold,
            values: match self.values {
                Numbers::I64(_) => Numbers::I64(Vec::new()),
                Numbers::F64(_) => Numbers::F64(Vec::new()),
                Numbers::Sets(_) => Numbers::Sets(Sets::default()),
            },
            valid: Vec::new(),
        }
    }

    /// The measure of lists of these values, `ends` being the end of each. That of a list does not count when none of its values
    /// does.
    ///
    /// # Errors
    /// When the lists are not these values'.
    pub fn of_lists(&self, ends: &[u32]) -> Result<Self, IndexError> {
        let len = ends.last().map_or(0, |&end| end as usize);
        if !ends.is_sorted() || !self.fits(len) {
            return Err(corrupt("a measure's lists don't fit its values"));
        }
        let lists = Groups {
            order: (0..len as u32).collect(),
            ends: ends.to_vec(),
        };
        let counts = |list: &[u32]| list.iter().any(|&value| self.counts(value));
        Ok(Self {
            valid: lists.each().map(counts).collect(),
            ..self.folded(&lists)
        })
    }

    /// Whether a value counts.
    fn counts(&self, at: u32) -> bool {
        self.valid.is_empty() || self.valid[at as usize]
    }

    /// Ids of all its sets.
    fn ids(&self) -> usize {
        match &self.values {
            Numbers::Sets(sets) => sets.ids.len(),
            Numbers::I64(_) | Numbers::F64(_) => 0,
        }
    }

    /// One value a group.
    fn folded(&self, groups: &Groups) -> Self {
        let valid = if self.valid.is_empty() {
            Vec::new()
        } else {
            let counts = |group: &[u32]| group.iter().any(|&record| self.counts(record));
            groups.each().map(counts).collect()
        };
        let values = match (&self.values, self.fold) {
            (Numbers::I64(values), Fold::Sum) => {
                Numbers::I64(self.fold_by(values, groups, i64::wrapping_add))
            }
            (Numbers::I64(values), Fold::Min) => {
                Numbers::I64(self.fold_by(values, groups, i64::min))
            }
            (Numbers::I64(values), Fold::Max) => {
                Numbers::I64(self.fold_by(values, groups, i64::max))
            }
            (Numbers::F64(values), Fold::Sum) => {
                Numbers::F64(self.fold_by(values, groups, |a, b| a + b))
            }
            (Numbers::F64(values), Fold::Min) => {
                let least = |a: f64, b: f64| if b.total_cmp(&a).is_lt() { b } else { a };
                Numbers::F64(self.fold_by(values, groups, least))
            }
            (Numbers::F64(values), Fold::Max) => {
                let greatest = |a: f64, b: f64| if b.total_cmp(&a).is_gt() { b } else { a };
                Numbers::F64(self.fold_by(values, groups, greatest))
            }
            (Numbers::Sets(sets), _) => Numbers::Sets(sets.united(groups)),
        };
        Self {
            fold: self.fold,
            values,
            valid,
        }
    }

    /// One value a group; the type's zero for groups without any that counts.
    fn fold_by<T: Copy + Default>(
        &self,
        values: &[T],
        groups: &Groups,
        fold: impl Fn(T, T) -> T,
    ) -> Vec<T> {
        let one = |group: &[u32]| {
            group
                .iter()
                .filter(|&&record| self.counts(record))
                .map(|&record| values[record as usize])
                .reduce(&fold)
                .unwrap_or_default()
        };
        groups.each().map(one).collect()
    }

    fn append(&mut self, other: Self) {
        match (&mut self.values, other.values) {
            (Numbers::I64(values), Numbers::I64(others)) => values.extend(others),
            (Numbers::F64(values), Numbers::F64(others)) => values.extend(others),
            (Numbers::Sets(sets), Numbers::Sets(others)) => sets.append(others),
            // Both come from one measure.
            _ => {}
        }
        self.valid.extend(other.valid);
    }
}

struct Builder<'a> {
    records: Records,
    records_max: usize,
    ids_max: usize,
    nodes: Vec<Node>,
    options: &'a Options,
}

impl Builder<'_> {
    fn split_all(&mut self) {
        let root = 0..self.records.len() as u32;
        let mut open = VecDeque::from([self.add(STAR, 0, root)]);
        while let Some(number) = open.pop_front() {
            let split = self.split(number);
            open.extend(split.children.clone().chain(split.star));
            self.nodes[number as usize] = split;
        }
    }

    fn add(&mut self, value: u32, level: usize, records: Range<u32>) -> u32 {
        self.nodes.push(Node {
            value,
            level: level as u32,
            records,
            children: 0..0,
            star: None,
            aggregate: None,
        });
        self.nodes.len() as u32 - 1
    }

    /// The node with what is below it.
    fn split(&mut self, number: u32) -> Node {
        let mut node = self.nodes[number as usize].clone();
        let records = node.records.clone();
        let dimensions = self.records.ids.len();
        let first = records.start as usize;
        let is_left_out = |level: &usize| self.records.ids[*level].get(first) == Some(&STAR);
        let mut levels = node.level as usize..dimensions;
        let level = levels
            .find(|level| !is_left_out(level))
            .unwrap_or(dimensions);
        node.level = level as u32;
        if records.len() < 2 || level == dimensions {
            return node;
        }
        let whole = Groups {
            order: records.clone().collect(),
            ends: vec![records.len() as u32],
        };
        let aggregate = self
            .records
            .aggregate(&whole, |dimension| dimension >= level);
        node.aggregate = Some(self.records.append(aggregate).start);
        if records.len() <= self.options.leaf_records_max as usize {
            node.star = self.leaf_star(records, level);
            return node;
        }
        let ids = &self.records.ids[level];
        let of = |i: usize| ids[records.start as usize + i];
        let ends = ends(records.len(), |a, b| of(a) == of(b));
        let values: Vec<u32> = ends.iter().map(|&end| of(end as usize - 1)).collect();
        let first = self.nodes.len() as u32;
        let mut start = records.start;
        for (value, end) in values.into_iter().zip(ends) {
            let end = records.start + end;
            self.add(value, level + 1, start..end);
            start = end;
        }
        node.children = first..self.nodes.len() as u32;
        if node.children.len() > 1 {
            node.star = self.star(records, level);
        }
        node
    }

    /// A star node of `records` that leaves out the dimension `level`; with it, where that saves too little, those that decide
    /// its value, or else those behind it until that pays.
    fn star(&mut self, records: Range<u32>, level: usize) -> Option<u32> {
        let dimensions = self.records.ids.len();
        let mut left_out = vec![level];
        let mut found = self.without(&records, level, &left_out, STAR_SHARE_MAX);
        if found.is_none() {
            left_out.extend(self.records.deciders(&records, level));
            if left_out.len() > 1 {
                found = self.without(&records, level, &left_out, STAR_SHARE_MAX);
            }
        }
        let (set, groups) = found.or_else(|| {
            (level + 2..=dimensions).find_map(|end| {
                let left_out: Vec<usize> = (level..end).collect();
                self.without(&records, level, &left_out, STAR_SHARE_MAX)
            })
        })?;
        self.add_star(level, set, &groups)
    }

    /// A star node of a leaf's `records` that leaves out the one dimension behind its level whose absence saves most.
    fn leaf_star(&mut self, records: Range<u32>, level: usize) -> Option<u32> {
        if records.len() < LEAF_STAR_RECORDS_MIN {
            return None;
        }
        let first = records.start as usize;
        let is_there = |dimension: &usize| self.records.ids[*dimension][first] != STAR;
        let there: Vec<usize> = (level..self.records.ids.len()).filter(is_there).collect();
        // Without the last one a single record is left, which the leaf has anyhow.
        let (set, groups) = (there.iter().filter(|_| there.len() > 1))
            .filter_map(|&left_out| self.without(&records, level, &[left_out], LEAF_STAR_SHARE_MAX))
            .min_by_key(|(_, groups)| groups.ends.len())?;
        self.add_star(level, set, &groups)
    }

    /// The groups of `records` in which some dimensions from `level` on are left out; none where they may not be, or more
    /// than a share of the records is left.
    fn without(
        &self,
        records: &Range<u32>,
        level: usize,
        left_out: &[usize],
        share_max: f64,
    ) -> Option<(DimensionSet, Groups)> {
        let set = DimensionSet::of(left_out)?;
        if left_out.iter().any(|&d| self.options.skip_star[d]) {
            return None;
        }
        let rest: Vec<usize> = (level..self.records.ids.len())
            .filter(|&dimension| !set.contains(dimension))
            .collect();
        let groups = self.records.group(records.clone(), &rest);
        (groups.ends.len() as f64 <= records.len() as f64 * share_max).then_some((set, groups))
    }

    /// A star node of `groups`, which leave out `set`; none when there would be too many records.
    fn add_star(&mut self, level: usize, set: DimensionSet, groups: &Groups) -> Option<u32> {
        if self.records.len() + groups.ends.len() > self.records_max {
            return None;
        }
        let aggregated = self.records.aggregate(groups, |d| set.contains(d));
        let mut measures = self.records.measures.iter().zip(&aggregated.measures);
        if measures.any(|(there, more)| there.ids() + more.ids() > self.ids_max) {
            return None;
        }
        let records = self.records.append(aggregated);
        Some(self.add(set.0, level, records))
    }
}
