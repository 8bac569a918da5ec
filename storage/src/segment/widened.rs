//! A column of numbers read as a wider type than it is stored in: INT as LONG or DOUBLE, FLOAT as DOUBLE.
//!
//! Each value of the narrow type is one of the wide type, in the same order, so ids, postings and sorted ranges hold.

use std::ops::Range;
use std::sync::Arc;
use strandline_index::{
    ColumnReader, DictId, Dictionary, DocBits, DocId, DocSelection, IndexError, PhysicalType,
    Postings, Scalar, ValueBuffer,
};

/// Whether numbers stored as `from` can be read as `to`.
pub fn widens(from: PhysicalType, to: PhysicalType) -> bool {
    use PhysicalType::{F32, F64, I32, I64};
    matches!((from, to), (I32, I64 | F64) | (F32, F64))
}

/// A column read as a wider type.
pub(super) struct WidenedColumn {
    inner: Arc<dyn ColumnReader>,
    dictionary: Option<WidenedDictionary>,
    to: PhysicalType,
}

/// Its dictionary.
struct WidenedDictionary {
    inner: Arc<dyn ColumnReader>,
    to: PhysicalType,
}

impl WidenedColumn {
    /// `inner`, of whose type [`widens`] holds, as `to`.
    pub(super) fn new(inner: Arc<dyn ColumnReader>, to: PhysicalType) -> Self {
        let dictionary = inner.dictionary().is_some().then(|| WidenedDictionary {
            inner: Arc::clone(&inner),
            to,
        });
        Self {
            inner,
            dictionary,
            to,
        }
    }
}

fn widen(value: &Scalar<'_>, to: PhysicalType) -> Scalar<'static> {
    match (value, to) {
        (Scalar::I32(v), PhysicalType::I64) => Scalar::I64(i64::from(*v)),
        (Scalar::I32(v), PhysicalType::F64) => Scalar::F64(f64::from(*v)),
        (Scalar::F32(v), PhysicalType::F64) => Scalar::F64(f64::from(*v)),
        _ => Scalar::placeholder(to),
    }
}

/// The value that `value` is the wide form of, if there is one.
fn narrow(value: &Scalar<'_>, from: PhysicalType) -> Option<Scalar<'static>> {
    let narrowed = match (value, from) {
        (Scalar::I64(v), PhysicalType::I32) => Scalar::I32(i32::try_from(*v).ok()?),
        (Scalar::F64(v), PhysicalType::I32) => Scalar::I32(*v as i32),
        (Scalar::F64(v), PhysicalType::F32) => Scalar::F32(*v as f32),
        _ => return None,
    };
    let same = widen(&narrowed, value.physical()).total_cmp(value).is_eq();
    same.then_some(narrowed)
}

fn widen_all(values: &ValueBuffer, to: PhysicalType, out: &mut ValueBuffer) {
    match (values, &mut *out) {
        (ValueBuffer::I32(v), ValueBuffer::I64(out)) => out.extend(v.iter().map(|v| i64::from(*v))),
        (ValueBuffer::I32(v), ValueBuffer::F64(out)) => out.extend(v.iter().map(|v| f64::from(*v))),
        (ValueBuffer::F32(v), ValueBuffer::F64(out)) => out.extend(v.iter().map(|v| f64::from(*v))),
        _ => {
            for at in 0..values.len() {
                let value = values.get(at).map(|value| widen(&value, to));
                out.push(&value.unwrap_or(Scalar::placeholder(to)));
            }
        }
    }
}

impl WidenedDictionary {
    /// There is one wherever this was made.
    fn stored(&self) -> &dyn Dictionary {
        match self.inner.dictionary() {
            Some(dictionary) => dictionary,
            None => unreachable!("a column keeps its dictionary"),
        }
    }
}

impl Dictionary for WidenedDictionary {
    fn len(&self) -> u32 {
        self.stored().len()
    }

    fn physical(&self) -> PhysicalType {
        self.to
    }

    fn is_sorted(&self) -> bool {
        self.stored().is_sorted()
    }

    fn id_of(&self, value: &Scalar<'_>) -> Option<DictId> {
        self.stored().id_of(&narrow(value, self.inner.physical())?)
    }

    fn value(&self, id: DictId) -> Scalar<'_> {
        widen(&self.stored().value(id), self.to)
    }

    fn gather(&self, ids: &[DictId], out: &mut ValueBuffer) {
        let mut values = ValueBuffer::new(self.inner.physical());
        self.stored().gather(ids, &mut values);
        widen_all(&values, self.to, out);
    }

    fn range(
        &self,
        low: Option<(&Scalar<'_>, bool)>,
        high: Option<(&Scalar<'_>, bool)>,
    ) -> Range<DictId> {
        let first_where = |holds: &dyn Fn(&Scalar<'_>) -> bool| {
            let (mut from, mut to) = (0, self.len());
            while from < to {
                let middle = from + (to - from) / 2;
                if holds(&self.value(middle)) {
                    to = middle;
                } else {
                    from = middle + 1;
                }
            }
            from
        };
        let start = low.map_or(0, |(low, included)| {
            first_where(&|value| {
                let order = value.total_cmp(low);
                order.is_gt() || (included && order.is_eq())
            })
        });
        let end = high.map_or(self.len(), |(high, included)| {
            first_where(&|value| {
                let order = value.total_cmp(high);
                order.is_gt() || (!included && order.is_eq())
            })
        });
        start..end.max(start)
    }
}

impl ColumnReader for WidenedColumn {
    fn physical(&self) -> PhysicalType {
        self.to
    }

    fn is_multi_value(&self) -> bool {
        self.inner.is_multi_value()
    }

    fn num_docs(&self) -> u32 {
        self.inner.num_docs()
    }

    fn dictionary(&self) -> Option<&dyn Dictionary> {
        let dictionary = self.dictionary.as_ref()?;
        Some(dictionary)
    }

    fn is_sorted(&self) -> bool {
        self.inner.is_sorted()
    }

    fn has_nulls(&self) -> bool {
        self.inner.has_nulls()
    }

    fn null_bits(&self, chunk: u32, out: &mut DocBits) {
        self.inner.null_bits(chunk, out);
    }

    fn null_elements(&self, docs: DocSelection<'_>, out: &mut Vec<bool>) {
        self.inner.null_elements(docs, out);
    }

    fn dict_ids(&self, docs: DocSelection<'_>, out: &mut Vec<DictId>) {
        self.inner.dict_ids(docs, out);
    }

    fn values(&self, docs: DocSelection<'_>, out: &mut ValueBuffer) {
        let mut values = ValueBuffer::new(self.inner.physical());
        self.inner.values(docs, &mut values);
        widen_all(&values, self.to, out);
    }

    fn multi_dict_ids(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, ids: &mut Vec<DictId>) {
        self.inner.multi_dict_ids(docs, ends, ids);
    }

    fn multi_values(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, values: &mut ValueBuffer) {
        let mut narrow = ValueBuffer::new(self.inner.physical());
        let (before, first) = (values.len() as u32, ends.len());
        self.inner.multi_values(docs, ends, &mut narrow);
        for end in ends.iter_mut().skip(first) {
            *end += before;
        }
        widen_all(&narrow, self.to, values);
    }

    fn sorted_docs(&self, ids: Range<DictId>) -> Option<Range<DocId>> {
        self.inner.sorted_docs(ids)
    }

    fn inverted(&self) -> Option<&dyn Postings> {
        self.inner.inverted()
    }

    fn may_contain(&self, value: &Scalar<'_>) -> bool {
        let narrowed = narrow(value, self.inner.physical());
        narrowed.is_some_and(|value| self.inner.may_contain(&value))
    }

    fn fault(&self) -> Option<IndexError> {
        self.inner.fault()
    }
}

#[cfg(test)]
mod tests;
