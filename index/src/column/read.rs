//! Reading an immutable column.

use super::ImmutableColumn;
use crate::bitpack::Blocks;
use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::fixed::{Key, by_type, key_bounds};
use crate::forward::Forward;
use crate::fst::FstIndex;
use crate::json::JsonIndex;
use crate::portable::PortableSet;
use crate::reader::{
    ColumnReader, DictId, Dictionary, DistinctValues, DocId, DocSelection, IndexError,
    PhysicalType, Postings, Scalar, ValueBuffer,
};
use std::ops::Range;

impl ImmutableColumn {
    /// Where the elements of document `doc` begin.
    fn list_start(&self, doc: DocId) -> u32 {
        match (&self.list_ends, (doc as usize).checked_sub(1)) {
            (Some(ends), Some(before)) => ends.get(before) as u32,
            _ => 0,
        }
    }

    /// Appends for each document the end of its elements, the first element counted `from`, and calls `read` with
    /// the elements' positions.
    fn elements(
        &self,
        docs: DocSelection<'_>,
        from: usize,
        ends: &mut Vec<u32>,
        read: impl FnOnce(DocSelection<'_>),
    ) {
        let Some(list_ends) = &self.list_ends else {
            return;
        };
        match docs {
            DocSelection::Range(range) => {
                let first = self.list_start(range.start);
                let mut last = first;
                list_ends.for_blocks(range.start as usize, range.end as usize, |block| {
                    ends.extend(block.iter().map(|&end| (end as u32 - first) + from as u32));
                    last = block.last().map_or(last, |&end| end as u32);
                });
                read(DocSelection::Range(first..last));
            }
            DocSelection::Docs(docs) => {
                let mut positions = Vec::with_capacity(docs.len());
                for &doc in docs {
                    positions.extend(self.list_start(doc)..list_ends.get(doc as usize) as u32);
                    ends.push((from + positions.len()) as u32);
                }
                read(DocSelection::Docs(&positions));
            }
        }
    }

    /// Appends the values of documents, or of elements.
    fn append(&self, positions: DocSelection<'_>, out: &mut ValueBuffer) {
        match &self.dictionary {
            Some(dictionary) => self
                .forward
                .for_ids(&positions, |ids| dictionary.gather(ids, out)),
            None => {
                if let Err(fault) = self.forward.append_values(&positions, out) {
                    // the first one is told; later ones say the same
                    let _ = self.fault.set(fault);
                }
            }
        }
    }

    /// The smallest and largest key of the range index that lie between the bounds.
    fn range_keys(
        &self,
        low: Option<(&Scalar<'_>, bool)>,
        high: Option<(&Scalar<'_>, bool)>,
    ) -> Option<(u128, u128)> {
        if let Some(dictionary) = self.dictionary.as_ref().or(self.range_dictionary.as_ref()) {
            let ids = dictionary.range(low, high);
            return (!ids.is_empty()).then(|| (ids.start.into(), u128::from(ids.end) - 1));
        }
        by_type!(self.description.physical, T => {
            key_bounds::<T>(low, high).map(|(low, high)| (low.wide(), high.wide()))
        }, bytes => None)
    }
}

impl ColumnReader for ImmutableColumn {
    fn physical(&self) -> PhysicalType {
        self.description.physical
    }

    fn is_multi_value(&self) -> bool {
        self.description.multi_value
    }

    fn num_docs(&self) -> u32 {
        self.description.docs
    }

    fn dictionary(&self) -> Option<&dyn Dictionary> {
        self.dictionary.as_ref().map(|d| d as &dyn Dictionary)
    }

    fn is_sorted(&self) -> bool {
        self.description.sorted
    }

    fn has_nulls(&self) -> bool {
        self.null_docs.is_some()
    }

    fn null_bits(&self, chunk: u32, out: &mut DocBits) {
        if let Some(nulls) = self
            .null_docs
            .as_ref()
            .and_then(|bytes| PortableSet::new(bytes))
        {
            nulls.fill(chunk, out);
        }
    }

    fn null_elements(&self, docs: DocSelection<'_>, out: &mut Vec<bool>) {
        let Some(nulls) = self
            .null_elements
            .as_ref()
            .and_then(|bytes| PortableSet::new(bytes))
        else {
            return;
        };
        let mut bits = DocBits::new();
        let mut held = u32::MAX;
        let mut is_null = |position: u32| {
            if position >> 16 != held {
                held = position >> 16;
                bits.clear();
                nulls.fill(held, &mut bits);
            }
            bits.contains(position as u16)
        };
        self.elements(docs, 0, &mut Vec::new(), |positions| match positions {
            DocSelection::Range(range) => out.extend(range.map(&mut is_null)),
            DocSelection::Docs(positions) => out.extend(positions.iter().map(|&p| is_null(p))),
        });
    }

    fn dict_ids(&self, docs: DocSelection<'_>, out: &mut Vec<DictId>) {
        self.forward
            .for_ids(&docs, |ids| out.extend_from_slice(ids));
    }

    fn values(&self, docs: DocSelection<'_>, out: &mut ValueBuffer) {
        self.append(docs, out);
    }

    fn distinct(&self) -> Option<&dyn DistinctValues> {
        self.forward.distinct()
    }

    fn multi_dict_ids(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, ids: &mut Vec<DictId>) {
        self.elements(docs, ids.len(), ends, |positions| {
            self.forward
                .for_ids(&positions, |block| ids.extend_from_slice(block));
        });
    }

    fn multi_values(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, values: &mut ValueBuffer) {
        self.elements(docs, values.len(), ends, |positions| {
            self.append(positions, values)
        });
    }

    fn sorted_docs(&self, ids: Range<DictId>) -> Option<Range<DocId>> {
        match &self.forward {
            Forward::Runs(runs) => Some(runs.docs(ids)),
            _ => Some(self.sorted_ids.as_ref()?.docs(ids)),
        }
    }

    fn inverted(&self) -> Option<&dyn Postings> {
        if let Some(inverted) = &self.inverted {
            return Some(inverted);
        }
        match &self.forward {
            Forward::Runs(runs) => Some(runs),
            _ => self
                .sorted_ids
                .as_ref()
                .map(|sorted| sorted as &dyn Postings),
        }
    }

    fn range_fill(
        &self,
        low: Option<(&Scalar<'_>, bool)>,
        high: Option<(&Scalar<'_>, bool)>,
        chunk: u32,
        out: &mut DocBits,
    ) -> bool {
        let Some(range) = &self.range else {
            return false;
        };
        let Some((low, high)) = self.range_keys(low, high) else {
            return true;
        };
        let Some(list_ends) = &self.list_ends else {
            range.fill(low, high, chunk, out);
            return true;
        };
        // elements to documents: both ascend, so one walk over each suffices
        let first = u64::from(chunk) * u64::from(CHUNK_DOCS);
        let docs = (first.min(self.description.docs.into()) as u32)
            ..((first + u64::from(CHUNK_DOCS)).min(self.description.docs.into()) as u32);
        let mut ends = Vec::with_capacity(docs.len());
        list_ends.for_blocks(docs.start as usize, docs.end as usize, |block| {
            ends.extend(block.iter().map(|&end| end as u32));
        });
        let (from, to) = (
            self.list_start(docs.start),
            ends.last().copied().unwrap_or(0),
        );
        let nulls = self
            .null_elements
            .as_ref()
            .and_then(|bytes| PortableSet::new(bytes));
        let mut matching = DocBits::new();
        let mut null_bits = DocBits::new();
        let mut doc = 0;
        for block in from >> 16..=to.saturating_sub(1) >> 16 {
            if from >= to {
                break;
            }
            matching.clear();
            range.fill(low, high, block, &mut matching);
            if let Some(nulls) = &nulls {
                null_bits.clear();
                nulls.fill(block, &mut null_bits);
                matching.and_not(&null_bits);
            }
            for element in matching.iter().map(|low| block << 16 | u32::from(low)) {
                if element < from || element >= to {
                    continue;
                }
                while ends.get(doc).is_some_and(|&end| end <= element) {
                    doc += 1;
                }
                out.insert(doc as u16);
            }
        }
        true
    }

    fn has_range_index(&self) -> bool {
        self.range.is_some()
    }

    fn may_contain(&self, value: &Scalar<'_>) -> bool {
        self.bloom
            .as_ref()
            .is_none_or(|bloom| bloom.may_contain(value))
    }

    fn fst(&self) -> Option<&FstIndex> {
        self.fst.as_ref()
    }

    fn json(&self) -> Option<&JsonIndex> {
        self.json.as_ref()
    }

    fn fault(&self) -> Option<IndexError> {
        self.fault.get().cloned()
    }
}
