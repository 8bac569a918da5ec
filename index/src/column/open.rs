//! Opening a column: every section is checked by itself and against the others.

use super::ImmutableColumn;
use super::section::{Description, SectionKind};
use crate::bitpack::Blocks;
use crate::bloom::BloomFilter;
use crate::dictionary::ImmutableDictionary;
use crate::forward::Forward;
use crate::frame::Frame;
use crate::fst::FstIndex;
use crate::inverted::InvertedIndex;
use crate::json::JsonIndex;
use crate::portable::PortableSet;
use crate::range::RangeIndex;
use crate::reader::{Dictionary, IndexError, PhysicalType};
use crate::sorted::SortedIds;
use crate::wire::corrupt;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::OnceLock;

impl ImmutableColumn {
    /// A column over its sections, by [their numbers](SectionKind::code); unknown numbers are skipped.
    ///
    /// `Bytes::from_owner` makes a memory map one owner whose slices these are.
    ///
    /// # Errors
    /// When the bytes can't be what a writer made: which section, and what is wrong with it.
    pub fn open(sections: impl IntoIterator<Item = (u16, Bytes)>) -> Result<Self, IndexError> {
        let mut found: HashMap<SectionKind, Bytes> = HashMap::new();
        for (code, bytes) in sections {
            if let Some(kind) = SectionKind::from_code(code)
                && found.insert(kind, bytes).is_some()
            {
                return Err(corrupt(format!("a column has two sections {kind:?}")));
            }
        }
        let mut take = |kind: SectionKind| found.remove(&kind);
        let needed = |kind: SectionKind, bytes: Option<Bytes>| {
            bytes.ok_or_else(|| corrupt(format!("a column lacks its section {kind:?}")))
        };
        let description = take(SectionKind::Description);
        let description = section(SectionKind::Description, || {
            Description::open(&needed(SectionKind::Description, description)?)
        })?;
        let forward = needed(SectionKind::Forward, take(SectionKind::Forward))?;
        let forward = section(SectionKind::Forward, || Forward::open(forward))?;
        let column = Self {
            description,
            forward,
            dictionary: optional(
                SectionKind::Dictionary,
                &mut take,
                ImmutableDictionary::open,
            )?,
            list_ends: optional(SectionKind::ListEnds, &mut take, Frame::open)?,
            null_docs: optional(SectionKind::NullDocs, &mut take, |bytes| {
                PortableSet::validate(&bytes, description.docs).map(|()| bytes)
            })?,
            null_elements: optional(SectionKind::NullElements, &mut take, |bytes| {
                PortableSet::validate(&bytes, description.values).map(|()| bytes)
            })?,
            inverted: optional(SectionKind::Inverted, &mut take, |bytes| {
                InvertedIndex::open(bytes, description.docs)
            })?,
            sorted_ids: None,
            range: optional(SectionKind::Range, &mut take, RangeIndex::open)?,
            range_dictionary: optional(
                SectionKind::RangeDictionary,
                &mut take,
                ImmutableDictionary::open,
            )?,
            bloom: optional(SectionKind::Bloom, &mut take, BloomFilter::open)?,
            fst: optional(SectionKind::Fst, &mut take, FstIndex::open)?,
            json: optional(SectionKind::Json, &mut take, |bytes| {
                JsonIndex::open(bytes, description.docs)
            })?,
            fault: OnceLock::new(),
        };
        column.check()
    }

    /// Holds the sections against each other.
    fn check(mut self) -> Result<Self, IndexError> {
        let Description {
            physical,
            multi_value,
            sorted,
            docs,
            values,
        } = self.description;
        let fail = |what: &str| {
            Err(corrupt(format!(
                "a column's sections contradict each other: {what}"
            )))
        };
        if self.forward.len() != values as usize {
            return fail("the forward index has another length");
        }
        match (&self.dictionary, self.forward.raw_type()) {
            (Some(dictionary), None) if dictionary.physical() == physical => {
                let ids = dictionary.len();
                match &self.forward {
                    Forward::Ids(packed) => {
                        if packed.max().is_some_and(|max| max >= ids) {
                            return fail("ids beyond the dictionary");
                        }
                        if sorted {
                            if !packed.is_ascending() {
                                return fail("a sorted column is not in order");
                            }
                            self.sorted_ids = Some(SortedIds(packed.clone()));
                        }
                    }
                    Forward::Runs(runs) if sorted && runs.ids() == ids as usize => {}
                    _ => return fail("document ranges don't match the dictionary"),
                }
                if self
                    .inverted
                    .as_ref()
                    .is_some_and(|inverted| inverted.ids() != ids)
                {
                    return fail("the inverted index has another number of ids");
                }
            }
            (None, Some(raw)) if raw == physical && self.inverted.is_none() => {}
            _ => return fail("the forward index and the dictionary"),
        }
        if let Some(fst) = &self.fst {
            let dictionary = self.dictionary.as_ref();
            if dictionary.is_none_or(|d| d.len() != fst.len()) {
                return fail("the FST index has another number of texts than the dictionary");
            }
        }
        match &self.list_ends {
            Some(ends) if multi_value => {
                if ends.len() != docs as usize
                    || ends.last_if_ascending() != Some(i64::from(values))
                {
                    return fail("the ends of the lists");
                }
            }
            None if !multi_value && self.null_elements.is_none() => {}
            _ => return fail("single-value or lists"),
        }
        if self
            .range
            .as_ref()
            .is_some_and(|range| range.rows() != values)
        {
            return fail("the range index has another number of rows");
        }
        if self.json.is_some() && (multi_value || physical != PhysicalType::Bytes) {
            return fail("a JSON index of what is no text");
        }
        if sorted && self.null_docs.is_some() {
            return fail("a sorted column has nulls");
        }
        if self
            .range_dictionary
            .as_ref()
            .is_some_and(|d| d.physical() != physical || self.range.is_none())
        {
            return fail("the values of the range index");
        }
        if self.range.is_some() && self.range_needs_dictionary() && self.range_dictionary.is_none()
        {
            return fail("the range index of texts lacks its values");
        }
        Ok(self)
    }

    /// Whether the range index counts in a dictionary of its own.
    pub(super) fn range_needs_dictionary(&self) -> bool {
        self.dictionary.is_none() && self.description.physical == PhysicalType::Bytes
    }
}

/// Names the section in an error.
fn section<T>(
    kind: SectionKind,
    open: impl FnOnce() -> Result<T, IndexError>,
) -> Result<T, IndexError> {
    open().map_err(|e| corrupt(format!("section {kind:?}: {e}")))
}

fn optional<T>(
    kind: SectionKind,
    take: &mut impl FnMut(SectionKind) -> Option<Bytes>,
    open: impl FnOnce(Bytes) -> Result<T, IndexError>,
) -> Result<Option<T>, IndexError> {
    take(kind)
        .map(|bytes| section(kind, || open(bytes)))
        .transpose()
}
