//! Text indexes of segments: a column's texts become words by the table's settings, and words an index.

use std::sync::Arc;
use strandline_index::text::{MutableText, TextIndexWriter, TextPostings};
use strandline_index::{ColumnReader, DocId, DocSelection, IndexError, ValueBuffer};
use strandline_proto::text::{Analyzer, TextSettings};

/// Documents whose texts are read at once.
const STEP: usize = 1_024;

/// The texts of some documents.
struct Texts {
    values: ValueBuffer,
    /// Where each document's texts end.
    ends: Vec<u32>,
}

impl Texts {
    /// The texts of `docs`, which ascend. Nulls are empty texts, which have no words.
    fn read(reader: &dyn ColumnReader, docs: DocSelection<'_>) -> Self {
        let mut texts = Self {
            values: ValueBuffer::new(reader.physical()),
            ends: Vec::with_capacity(docs.len()),
        };
        if reader.is_multi_value() {
            reader.multi_values(docs, &mut texts.ends, &mut texts.values);
        } else {
            texts.ends.extend(1..=docs.len() as u32);
            reader.values(docs, &mut texts.values);
        }
        texts
    }

    /// The texts of the document that was read as number `i`.
    fn of(&self, i: usize) -> impl Iterator<Item = &str> {
        let end = |i: usize| self.ends.get(i).copied().unwrap_or(0);
        let range = i.checked_sub(1).map_or(0, end)..end(i);
        range.map(|i| {
            let bytes = self.values.bytes(i as usize).unwrap_or_default();
            std::str::from_utf8(bytes).unwrap_or_default()
        })
    }
}

/// The section of a column's text index, its documents in the order of `order` (each once; none: as they are).
///
/// # Errors
/// When the index can't be made.
pub(super) fn write_text(
    reader: &dyn ColumnReader,
    order: Option<&[DocId]>,
    settings: &TextSettings,
) -> Result<Vec<u8>, IndexError> {
    let analyzer = Analyzer::new(settings);
    let mut writer = TextIndexWriter::new(&settings.words_key())?;
    let mut write = |texts: &Texts, i: usize| {
        analyzer.words_of(texts.of(i), &mut |place, word| writer.word(place, word));
        writer.end_document()
    };
    let docs = reader.num_docs();
    match order {
        None => {
            for start in (0..docs).step_by(STEP) {
                let range = start..docs.min(start + STEP as u32);
                let texts = Texts::read(reader, DocSelection::Range(range.clone()));
                range.enumerate().try_for_each(|(i, _)| write(&texts, i))?;
            }
        }
        Some(order) => {
            for step in order.chunks(STEP) {
                let mut sorted = step.to_vec();
                sorted.sort_unstable();
                let texts = Texts::read(reader, DocSelection::Docs(&sorted));
                for doc in step {
                    let place = sorted.partition_point(|other| other < doc);
                    write(&texts, place)?;
                }
            }
        }
    }
    writer.finish()
}

/// The text index of a column that grows.
pub(super) struct GrowingText {
    analyzer: Analyzer,
    index: MutableText,
}

impl GrowingText {
    pub(super) fn new(settings: &TextSettings) -> Self {
        Self {
            analyzer: Analyzer::new(settings),
            index: MutableText::new(&settings.words_key()),
        }
    }

    /// Takes in the rows of the column that are there now.
    pub(super) fn extend(&self, column: &dyn ColumnReader) {
        let docs = column.num_docs();
        let Some(from) = self.index.due(docs) else {
            return;
        };
        let texts = Texts::read(column, DocSelection::Range(from..docs));
        self.index.extend(docs, &|doc, sink| {
            if let Some(i) = doc.checked_sub(from) {
                self.analyzer.words_of(texts.of(i as usize), sink);
            }
        });
    }

    /// The index of the first `rows` rows.
    pub(super) fn view(&self, rows: u32) -> Arc<dyn TextPostings> {
        Arc::new(self.index.view(rows))
    }

    /// Memory held.
    pub(super) fn bytes(&self) -> usize {
        self.index.bytes()
    }
}
