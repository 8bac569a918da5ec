//! A column's documents become the JSON index's section.

use super::coverage::{Coverage, JsonSpec};
use super::{push_elements, push_field};
use std::collections::HashMap;
use strandline_index::json::{DOCUMENTS, JsonIndexWriter, Kind, LevelId, PathId};
use strandline_index::{
    CHUNK_DOCS, ColumnReader, DocBits, DocId, DocSelection, IndexError, PhysicalType, ValueBuffer,
};
use strandline_proto::json::{Document, Index, Step};

/// Documents read at once.
const STEP: u32 = 1_024;

/// The section of a single-value text column whose documents are written in `order`; none: as they are.
pub(in crate::segment) fn json_section(
    reader: &dyn ColumnReader,
    order: Option<&[DocId]>,
    spec: &JsonSpec,
) -> Result<Vec<u8>, IndexError> {
    let coverage = Coverage::new(spec.clone()).map_err(|e| IndexError(e.to_string()))?;
    let mut writer = DocumentWriter {
        index: JsonIndexWriter::new()?,
        coverage: &coverage,
        known: HashMap::new(),
        path: Vec::new(),
        steps: Vec::new(),
    };
    let docs = reader.num_docs();
    let mut nulls = Nulls::new(reader);
    let mut values = ValueBuffer::new(PhysicalType::Bytes);
    match order {
        None => {
            for start in (0..docs).step_by(STEP as usize) {
                let end = docs.min(start.saturating_add(STEP));
                values.clear();
                reader.values(DocSelection::Range(start..end), &mut values);
                for doc in start..end {
                    let text = values.bytes((doc - start) as usize);
                    writer.write(text.filter(|_| !nulls.contains(doc)))?;
                }
            }
        }
        Some(order) => {
            for &doc in order {
                values.clear();
                reader.values(DocSelection::Docs(&[doc]), &mut values);
                writer.write(values.bytes(0).filter(|_| !nulls.contains(doc)))?;
            }
        }
    }
    if let Some(fault) = reader.fault() {
        return Err(fault);
    }
    writer.index.finish(&coverage.write())
}

/// The null documents, a chunk at a time.
struct Nulls<'a> {
    reader: &'a dyn ColumnReader,
    chunk: Option<u32>,
    bits: DocBits,
}

impl<'a> Nulls<'a> {
    fn new(reader: &'a dyn ColumnReader) -> Self {
        Self {
            reader,
            chunk: None,
            bits: DocBits::new(),
        }
    }

    fn contains(&mut self, doc: DocId) -> bool {
        if !self.reader.has_nulls() {
            return false;
        }
        if self.chunk != Some(doc / CHUNK_DOCS) {
            self.chunk = Some(doc / CHUNK_DOCS);
            self.bits.clear();
            self.reader.null_bits(doc / CHUNK_DOCS, &mut self.bits);
        }
        self.bits.contains((doc % CHUNK_DOCS) as u16)
    }
}

struct DocumentWriter<'a> {
    index: JsonIndexWriter,
    coverage: &'a Coverage,
    /// Scalars' paths that were met: their numbers, or none when they are left out.
    known: HashMap<Vec<u8>, Option<PathId>>,
    /// The path to the value that is being written, as the index names it and in steps.
    path: Vec<u8>,
    steps: Vec<Step>,
}

impl DocumentWriter<'_> {
    /// Writes a document; none: null.
    fn write(&mut self, text: Option<&[u8]>) -> Result<(), IndexError> {
        if let Some(text) = text {
            let document = std::str::from_utf8(text)
                .map_err(|e| e.to_string())
                .and_then(Document::parse);
            match document {
                Ok(None) => {}
                Ok(Some(document)) => {
                    self.index.add_content()?;
                    self.value(&document, DOCUMENTS)?;
                }
                Err(_) => self.index.add_invalid()?,
            }
        }
        self.index.end_document()
    }

    fn value(&mut self, value: &Document<'_>, level: LevelId) -> Result<(), IndexError> {
        match value {
            Document::Object(fields) => {
                if !self.coverage.is_within(self.steps.len() + 1) {
                    return Ok(());
                }
                for (name, field) in fields {
                    let len = self.path.len();
                    push_field(&mut self.path, name);
                    self.steps.push(Step::Field(name.clone().into_owned()));
                    self.value(field, level)?;
                    self.steps.pop();
                    self.path.truncate(len);
                }
                Ok(())
            }
            Document::Array(elements) => {
                if !self.coverage.elements(self.steps.len()) {
                    return Ok(());
                }
                let len = self.path.len();
                push_elements(&mut self.path);
                self.steps.push(Step::Element(Index::Any));
                let (path, inner) = self.index.level(&self.path, level)?;
                for (place, element) in elements {
                    self.index.element(inner, self.index.record(level))?;
                    self.index
                        .add(inner, path, Kind::Place, place.to_string().as_bytes())?;
                    self.value(element, inner)?;
                    self.index.end_element(inner);
                }
                self.steps.pop();
                self.path.truncate(len);
                Ok(())
            }
            scalar => {
                let Some(path) = self.scalar_path(level)? else {
                    return Ok(());
                };
                self.index.add(level, path, Kind::Present, &[])?;
                match scalar.text() {
                    Some(text) if self.coverage.holds_text(&text) => {
                        self.index.add(level, path, Kind::Value, text.as_bytes())
                    }
                    _ => self.index.add(level, path, Kind::Long, &[]),
                }
            }
        }
    }

    fn scalar_path(&mut self, level: LevelId) -> Result<Option<PathId>, IndexError> {
        if let Some(known) = self.known.get(&self.path) {
            return Ok(*known);
        }
        let id = match self.coverage.holds(&self.steps) {
            true => Some(self.index.path(&self.path, level)?),
            false => None,
        };
        self.known.insert(self.path.clone(), id);
        Ok(id)
    }
}
