//! Group keys of one segment: where the small integers that a [`Grouper`](super::grouper::Grouper) takes come from.

use super::plan::KeyPlan;
use crate::leaf::column::BoundColumn;
use crate::leaf::compare::f64_key;
use crate::leaf::expression::{BoundExpression, nulls_to};
use crate::leaf::segment::SegmentView;
use crate::leaf::values::{Domain, Interner, canonical, validity};
use arrow::array::{Array, AsArray};
use std::sync::Arc;
use strandline_index::{DictId, DocSelection, PhysicalType, ValueBuffer};
use strandline_proto::{Error, Result};

/// Expressions over a dictionary column are keyed by dictionary id where a document holds a value in so many.
const DICTIONARY_SHARE: u32 = 2;

/// One key's source.
pub(super) enum KeySource {
    /// Dictionary ids; null is the id after the last.
    Ids { column: Arc<BoundColumn>, len: u32 },
    /// Dictionary ids mapped to numbers of an expression's values.
    Mapped {
        column: Arc<BoundColumn>,
        map: Vec<u32>,
        values: Interner,
    },
    /// Integers and floats without a dictionary, interned as they come.
    Numbers { column: Arc<BoundColumn> },
    /// Any values, interned as they come.
    Values {
        expression: BoundExpression,
        domain: Domain,
    },
    /// Dictionary ids of a multi-value column's elements.
    ElementIds { column: Arc<BoundColumn>, len: u32 },
    /// Elements of lists, interned as they come.
    Elements {
        expression: BoundExpression,
        domain: Domain,
    },
}

/// A block's ids of one key: one a document, or with `ends` a run of them.
#[derive(Default)]
pub(super) struct KeyBlock {
    pub(super) ids: Vec<u32>,
    pub(super) ends: Vec<u32>,
}

impl KeySource {
    /// The source of `key` in `segment`.
    pub(super) fn new(key: &KeyPlan, segment: &SegmentView) -> Result<Self> {
        let bound = BoundExpression::new(Arc::clone(&key.expression), segment)?;
        if key.explode {
            if let Some(column) = bound.plain_column()
                && let Some(dictionary) = column.reader.dictionary()
            {
                return Ok(Self::ElementIds {
                    column: Arc::clone(column),
                    len: dictionary.len(),
                });
            }
            return Ok(Self::Elements {
                domain: Domain::of(&key.data_type),
                expression: bound,
            });
        }
        if let Some((column, len)) = bound.dictionary_column() {
            if bound.plain_column().is_some() {
                return Ok(Self::Ids {
                    column: Arc::clone(column),
                    len,
                });
            }
            // Where an expression fails on some value, only documents can tell whether that value counts.
            if u64::from(len) * u64::from(DICTIONARY_SHARE) <= u64::from(segment.num_docs())
                && let Ok(array) = bound.evaluate_dictionary()
            {
                let mut values = Interner::new(Domain::of(array.data_type()));
                let mut map = Vec::with_capacity(array.len());
                values.array(&array, &mut map)?;
                return Ok(Self::Mapped {
                    column: Arc::clone(column),
                    map,
                    values,
                });
            }
        }
        if let Some(column) = bound.plain_column()
            && !column.is_multi_value()
            && !matches!(
                column.reader.physical(),
                PhysicalType::I128 | PhysicalType::Bytes
            )
        {
            return Ok(Self::Numbers {
                column: Arc::clone(column),
            });
        }
        Ok(Self::Values {
            domain: Domain::of(&key.data_type),
            expression: bound,
        })
    }

    /// The bound below which ids stay; none when they are numbered as they come.
    pub(super) fn size(&self) -> Option<u32> {
        match self {
            Self::Ids { len, .. } | Self::ElementIds { len, .. } => Some(len.saturating_add(1)),
            Self::Mapped { values, .. } => Some(values.len() as u32),
            Self::Numbers { .. } | Self::Values { .. } | Self::Elements { .. } => None,
        }
    }

    /// An interner for keys that are numbered as they come.
    pub(super) fn interner(&self) -> Option<Interner> {
        match self {
            Self::Ids { .. } | Self::Mapped { .. } | Self::ElementIds { .. } => None,
            Self::Numbers { column } => Some(Interner::new(Domain::of(&column.data_type.arrow()))),
            Self::Values { domain, .. } | Self::Elements { domain, .. } => {
                Some(Interner::new(*domain))
            }
        }
    }

    /// Reads the ids of `docs`.
    pub(super) fn read(
        &self,
        docs: &DocSelection<'_>,
        interner: Option<&mut Interner>,
        out: &mut KeyBlock,
    ) -> Result<()> {
        out.ids.clear();
        out.ends.clear();
        let interner = || interner.ok_or_else(|| Error::internal("a group key has no interner"));
        match self {
            Self::Ids { column, len } => {
                column.reader.dict_ids(docs.clone(), &mut out.ids);
                nulls_to(column, docs, *len, &mut out.ids);
            }
            Self::Mapped { column, map, .. } => {
                column.reader.dict_ids(docs.clone(), &mut out.ids);
                nulls_to(column, docs, map.len() as u32 - 1, &mut out.ids);
                for id in &mut out.ids {
                    *id = map[*id as usize];
                }
            }
            Self::Numbers { column } => numbers(column, docs, interner()?, &mut out.ids),
            Self::Values { expression, .. } => {
                interner()?.array(&expression.evaluate(docs.clone())?, &mut out.ids)?
            }
            Self::ElementIds { column, len } => element_ids(column, docs, *len, out),
            Self::Elements { expression, .. } => elements(expression, docs, interner()?, out)?,
        }
        Ok(())
    }

    /// Adds what `id` stands for to `merged` and gives its number there.
    pub(super) fn translate(
        &self,
        id: u32,
        interner: Option<&Interner>,
        merged: &mut Interner,
    ) -> u32 {
        match self {
            Self::Ids { len, .. } | Self::ElementIds { len, .. } if id >= *len => merged.null(),
            Self::Ids { column, .. } | Self::ElementIds { column, .. } => {
                match column.reader.dictionary() {
                    Some(dictionary) => merged.scalar(&dictionary.value(id)),
                    None => merged.null(),
                }
            }
            Self::Mapped { values, .. } => merged.adopt(values, id),
            Self::Numbers { .. } | Self::Values { .. } | Self::Elements { .. } => match interner {
                Some(interner) => merged.adopt(interner, id),
                None => merged.null(),
            },
        }
    }
}

fn numbers(
    column: &BoundColumn,
    docs: &DocSelection<'_>,
    interner: &mut Interner,
    out: &mut Vec<u32>,
) {
    let mut values = ValueBuffer::new(column.reader.physical());
    column.reader.values(docs.clone(), &mut values);
    if !column.reader.has_nulls() {
        return each_number(&values, |value| out.push(interner.i64(value)));
    }
    let mut nulls = vec![0u32; docs.len()];
    nulls_to(column, docs, 1, &mut nulls);
    let mut nulls = nulls.iter();
    // What stands in a null's place must not become a group.
    each_number(&values, |value| {
        out.push(if nulls.next() == Some(&1) {
            interner.null()
        } else {
            interner.i64(value)
        })
    });
}

/// Calls `each` with integers, and with the keys of floats.
fn each_number(values: &ValueBuffer, mut each: impl FnMut(i64)) {
    match values {
        ValueBuffer::I32(values) => values.iter().for_each(|&v| each(i64::from(v))),
        ValueBuffer::I64(values) => values.iter().for_each(|&v| each(v)),
        ValueBuffer::F32(values) => values.iter().for_each(|&v| each(f64_key(f64::from(v)))),
        ValueBuffer::F64(values) => values.iter().for_each(|&v| each(f64_key(v))),
        ValueBuffer::I128(_) | ValueBuffer::Bytes { .. } => {}
    }
}

fn element_ids(column: &BoundColumn, docs: &DocSelection<'_>, null_id: DictId, out: &mut KeyBlock) {
    let (mut ends, mut ids, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    column
        .reader
        .multi_dict_ids(docs.clone(), &mut ends, &mut ids);
    column.reader.null_elements(docs.clone(), &mut marks);
    for (id, _) in ids.iter_mut().zip(&marks).filter(|(_, null)| **null) {
        *id = null_id;
    }
    let mut nulls = vec![0u32; docs.len()];
    nulls_to(column, docs, 1, &mut nulls);
    let mut start = 0;
    for (&end, &null) in ends.iter().zip(&nulls) {
        // A null list counts once, as NULL, and so does an empty one.
        if start == end || null == 1 {
            out.ids.push(null_id);
        } else {
            out.ids
                .extend_from_slice(&ids[start as usize..end as usize]);
        }
        out.ends.push(out.ids.len() as u32);
        start = end;
    }
}

fn elements(
    expression: &BoundExpression,
    docs: &DocSelection<'_>,
    interner: &mut Interner,
    out: &mut KeyBlock,
) -> Result<()> {
    let array = expression.evaluate(docs.clone())?;
    let lists = array.as_list_opt::<i32>().ok_or_else(|| {
        Error::internal(format!("a list was expected, not {}", array.data_type()))
    })?;
    let nulls = validity(lists);
    let elements = lists.values();
    let null_elements = validity(elements);
    let values = canonical(elements)?;
    for (i, pair) in lists.value_offsets().windows(2).enumerate() {
        if pair[0] == pair[1] || nulls.as_ref().is_some_and(|nulls| nulls.is_null(i)) {
            out.ids.push(interner.null());
        } else {
            // Elements outside of all lists must not become groups.
            for element in pair[0] as usize..pair[1] as usize {
                let is_null = null_elements
                    .as_ref()
                    .is_some_and(|nulls| nulls.is_null(element));
                out.ids.push(if is_null {
                    interner.null()
                } else {
                    interner.one(&values, element)
                });
            }
        }
        out.ends.push(out.ids.len() as u32);
    }
    Ok(())
}
