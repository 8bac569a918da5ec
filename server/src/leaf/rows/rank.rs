//! First sort keys as plain integers: most rows of a top-k are passed over by one comparison, before any key is encoded.

use crate::leaf::column::BoundColumn;
use crate::leaf::compare::{f32_key, f64_key};
use crate::leaf::expression::{BoundExpression, nulls_to};
use arrow::compute::SortOptions;
use std::sync::Arc;
use strandline_index::{DocSelection, PhysicalType, ValueBuffer};

/// Ranks of a column's values within one segment: ascending as the sort goes, equal only for what may be equal.
pub(super) struct Ranks {
    column: Arc<BoundColumn>,
    by_id: bool,
    options: SortOptions,
}

impl Ranks {
    /// The ranks of a sort key; none where it is no column, or one whose values are not integers in order.
    pub(super) fn new(key: &BoundExpression, options: SortOptions) -> Option<Self> {
        let column = key
            .plain_column()
            .filter(|column| !column.is_multi_value())?;
        let by_id = column
            .reader
            .dictionary()
            .is_some_and(|dictionary| dictionary.is_sorted());
        let is_number = !matches!(
            column.reader.physical(),
            PhysicalType::I128 | PhysicalType::Bytes
        );
        (by_id || is_number).then(|| Self {
            column: Arc::clone(column),
            by_id,
            options,
        })
    }

    /// Whether equal ranks mean equal values: nulls share the rank of an extreme value.
    pub(super) fn is_exact(&self) -> bool {
        !self.column.reader.has_nulls()
    }

    /// Makes `out` the ranks of `docs`.
    pub(super) fn read(&self, docs: &DocSelection<'_>, out: &mut Vec<u64>) {
        out.clear();
        let reader = &self.column.reader;
        let ascending = |key: i64| key as u64 ^ 1 << 63;
        if self.by_id {
            let mut ids = Vec::with_capacity(docs.len());
            reader.dict_ids(docs.clone(), &mut ids);
            out.extend(ids.iter().map(|&id| u64::from(id)));
        } else {
            let mut values = ValueBuffer::new(reader.physical());
            reader.values(docs.clone(), &mut values);
            match &values {
                ValueBuffer::I32(values) => {
                    out.extend(values.iter().map(|&v| ascending(i64::from(v))))
                }
                ValueBuffer::I64(values) => out.extend(values.iter().map(|&v| ascending(v))),
                ValueBuffer::F32(values) => {
                    out.extend(values.iter().map(|&v| ascending(i64::from(f32_key(v)))))
                }
                ValueBuffer::F64(values) => {
                    out.extend(values.iter().map(|&v| ascending(f64_key(v))))
                }
                ValueBuffer::I128(_) | ValueBuffer::Bytes { .. } => {}
            }
        }
        if self.options.descending {
            out.iter_mut().for_each(|rank| *rank = !*rank);
        }
        if reader.has_nulls() {
            let mut marks = vec![0u32; docs.len()];
            nulls_to(&self.column, docs, 1, &mut marks);
            let null = if self.options.nulls_first {
                0
            } else {
                u64::MAX
            };
            for (rank, _) in out.iter_mut().zip(&marks).filter(|(_, mark)| **mark == 1) {
                *rank = null;
            }
        }
    }
}
