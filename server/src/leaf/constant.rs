//! Columns that no segment stores: the default of a column that a segment lacks, and the virtual columns.
//!
//! They are readers like stored ones, so that filters, groups and values need no second path.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use strandline_index::{
    CHUNK_DOCS, ColumnReader, DictId, Dictionary, DocBits, DocId, DocSelection, PhysicalType,
    Scalar, ValueBuffer,
};
use strandline_storage::segment::SegmentReader;

/// The same value, or list of values, in every document.
pub(super) struct ConstantColumn {
    docs: u32,
    multi_value: bool,
    null: bool,
    /// For each element its id; none when the element is null. Single-value: one.
    elements: Vec<Option<DictId>>,
    dictionary: ConstantDictionary,
}

struct ConstantDictionary {
    physical: PhysicalType,
    /// Distinct, ascending.
    values: Vec<Scalar<'static>>,
}

impl ConstantColumn {
    /// `docs` documents that are all null.
    pub(super) fn null(physical: PhysicalType, multi_value: bool, docs: u32) -> Self {
        let values = vec![Scalar::placeholder(physical)];
        let elements = if multi_value {
            Vec::new()
        } else {
            vec![Some(0)]
        };
        Self {
            docs,
            multi_value,
            null: true,
            elements,
            dictionary: ConstantDictionary { physical, values },
        }
    }

    /// `docs` documents of one value.
    pub(super) fn single(value: Scalar<'static>, docs: u32) -> Self {
        let physical = value.physical();
        let dictionary = ConstantDictionary {
            physical,
            values: vec![value],
        };
        Self {
            docs,
            multi_value: false,
            null: false,
            elements: vec![Some(0)],
            dictionary,
        }
    }

    /// `docs` documents of one list; elements are null where none.
    pub(super) fn list(
        physical: PhysicalType,
        elements: &[Option<Scalar<'static>>],
        docs: u32,
    ) -> Self {
        let mut values: Vec<_> = elements.iter().flatten().cloned().collect();
        if elements.iter().any(Option::is_none) {
            values.push(Scalar::placeholder(physical));
        }
        values.sort_by(|a, b| a.total_cmp(b));
        values.dedup_by(|a, b| a.total_cmp(b).is_eq());
        let id = |value: &Scalar<'_>| {
            values
                .binary_search_by(|v| v.total_cmp(value))
                .ok()
                .map(|id| id as DictId)
        };
        let elements = elements.iter().map(|e| e.as_ref().and_then(id)).collect();
        Self {
            docs,
            multi_value: true,
            null: false,
            elements,
            dictionary: ConstantDictionary { physical, values },
        }
    }

    fn null_id(&self) -> DictId {
        let zero = Scalar::placeholder(self.dictionary.physical);
        self.dictionary.id_of(&zero).unwrap_or(0)
    }

    fn first(&self) -> DictId {
        self.elements.first().copied().flatten().unwrap_or(0)
    }
}

impl Dictionary for ConstantDictionary {
    fn len(&self) -> u32 {
        self.values.len() as u32
    }

    fn physical(&self) -> PhysicalType {
        self.physical
    }

    fn is_sorted(&self) -> bool {
        true
    }

    fn id_of(&self, value: &Scalar<'_>) -> Option<DictId> {
        self.values
            .binary_search_by(|v| v.total_cmp(value))
            .ok()
            .map(|id| id as DictId)
    }

    fn value(&self, id: DictId) -> Scalar<'_> {
        match &self.values[id as usize] {
            Scalar::Bytes(bytes) => Scalar::Bytes(Cow::Borrowed(bytes)),
            fixed => fixed.clone(),
        }
    }

    fn gather(&self, ids: &[DictId], out: &mut ValueBuffer) {
        for &id in ids {
            out.push(&self.values[id as usize]);
        }
    }

    fn range(
        &self,
        low: Option<(&Scalar<'_>, bool)>,
        high: Option<(&Scalar<'_>, bool)>,
    ) -> Range<DictId> {
        let below = |bound: &Scalar<'_>, included: bool| {
            self.values.partition_point(|v| {
                v.total_cmp(bound).is_lt() || (included && v.total_cmp(bound).is_eq())
            }) as DictId
        };
        let start = low.map_or(0, |(bound, included)| below(bound, !included));
        let end = high.map_or(self.len(), |(bound, included)| below(bound, included));
        start..end.max(start)
    }
}

impl ColumnReader for ConstantColumn {
    fn physical(&self) -> PhysicalType {
        self.dictionary.physical
    }

    fn is_multi_value(&self) -> bool {
        self.multi_value
    }

    fn num_docs(&self) -> u32 {
        self.docs
    }

    fn dictionary(&self) -> Option<&dyn Dictionary> {
        Some(&self.dictionary)
    }

    fn is_sorted(&self) -> bool {
        !self.multi_value && !self.null
    }

    fn has_nulls(&self) -> bool {
        self.null && self.docs > 0
    }

    fn null_bits(&self, chunk: u32, out: &mut DocBits) {
        if self.null {
            let start = chunk.saturating_mul(CHUNK_DOCS);
            out.insert_range(0, self.docs.saturating_sub(start).min(CHUNK_DOCS));
        }
    }

    fn null_elements(&self, docs: DocSelection<'_>, out: &mut Vec<bool>) {
        if self.elements.iter().any(Option::is_none) {
            for _ in 0..docs.len() {
                out.extend(self.elements.iter().map(Option::is_none));
            }
        }
    }

    fn dict_ids(&self, docs: DocSelection<'_>, out: &mut Vec<DictId>) {
        out.resize(out.len() + docs.len(), self.first());
    }

    fn values(&self, docs: DocSelection<'_>, out: &mut ValueBuffer) {
        let value = &self.dictionary.values[self.first() as usize];
        for _ in 0..docs.len() {
            out.push(value);
        }
    }

    fn multi_dict_ids(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, ids: &mut Vec<DictId>) {
        let null_id = self.null_id();
        for _ in 0..docs.len() {
            ids.extend(self.elements.iter().map(|e| e.unwrap_or(null_id)));
            ends.push(ids.len() as u32);
        }
    }

    fn multi_values(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, values: &mut ValueBuffer) {
        let null_id = self.null_id();
        for _ in 0..docs.len() {
            for element in &self.elements {
                values.push(&self.dictionary.values[element.unwrap_or(null_id) as usize]);
            }
            ends.push(values.len() as u32);
        }
    }

    fn sorted_docs(&self, ids: Range<DictId>) -> Option<Range<DocId>> {
        self.is_sorted().then(|| {
            if ids.contains(&self.first()) {
                0..self.docs
            } else {
                0..0
            }
        })
    }

    fn may_contain(&self, value: &Scalar<'_>) -> bool {
        self.dictionary.id_of(value).is_some()
    }
}

/// What a computed column computes.
pub(super) enum Computed {
    /// The document's number.
    DocId,
    /// The stream offset of the document.
    Offset(Arc<dyn SegmentReader>),
}

/// A raw column without nulls whose values follow from the document's number.
pub(super) struct ComputedColumn {
    /// What is computed.
    pub(super) computed: Computed,
    /// Documents.
    pub(super) docs: u32,
}

impl ColumnReader for ComputedColumn {
    fn physical(&self) -> PhysicalType {
        match self.computed {
            Computed::DocId => PhysicalType::I32,
            Computed::Offset(_) => PhysicalType::I64,
        }
    }

    fn is_multi_value(&self) -> bool {
        false
    }

    fn num_docs(&self) -> u32 {
        self.docs
    }

    fn dictionary(&self) -> Option<&dyn Dictionary> {
        None
    }

    fn is_sorted(&self) -> bool {
        false
    }

    fn has_nulls(&self) -> bool {
        false
    }

    fn null_bits(&self, _: u32, _: &mut DocBits) {}

    fn null_elements(&self, _: DocSelection<'_>, _: &mut Vec<bool>) {}

    fn dict_ids(&self, _: DocSelection<'_>, _: &mut Vec<DictId>) {}

    fn values(&self, docs: DocSelection<'_>, out: &mut ValueBuffer) {
        match (&self.computed, out) {
            (Computed::DocId, ValueBuffer::I32(out)) => match docs {
                DocSelection::Range(range) => out.extend(range.map(|doc| doc as i32)),
                DocSelection::Docs(docs) => out.extend(docs.iter().map(|&doc| doc as i32)),
            },
            (Computed::Offset(segment), ValueBuffer::I64(out)) => segment.offsets(docs, out),
            _ => debug_assert!(false, "a buffer of another type"),
        }
    }

    fn multi_dict_ids(&self, _: DocSelection<'_>, _: &mut Vec<u32>, _: &mut Vec<DictId>) {}

    fn multi_values(&self, _: DocSelection<'_>, _: &mut Vec<u32>, _: &mut ValueBuffer) {}
}
