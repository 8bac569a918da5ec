//! CSV with a header line: fields by name, empty is null, `;` between the elements of a multi-value column.

use super::lines::{Count, Counted};
use super::rowwise::ReadRow;
use super::{LINE_BYTES_MAX, Source};
use crate::config::TableConfig;
use crate::convert::{Cell, RowBuilder, RowLayout};
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strandline_proto::{Error, Result};

/// Between the elements of a multi-value column.
const ELEMENT_DELIMITER: char = ';';
const READ_BYTES: usize = 1 << 16;

/// A reader that fails when too much was read since the last record: a quote that never closes would otherwise
/// take the whole file into memory.
struct Limited {
    inner: Counted<File>,
    since_record: Arc<AtomicU64>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if self.since_record.fetch_add(read as u64, Ordering::Relaxed)
            > (LINE_BYTES_MAX + READ_BYTES) as u64
        {
            return Err(io::Error::other(format!(
                "a row is longer than {LINE_BYTES_MAX} bytes; is a quote not closed?"
            )));
        }
        Ok(read)
    }
}

pub(super) struct CsvRows {
    reader: Reader<Limited>,
    since_record: Arc<AtomicU64>,
    /// By field of the file: its cell, and whether the column is multi-value.
    slots: Vec<Option<(usize, bool)>>,
    width: usize,
    record: ByteRecord,
    row: u64,
}

impl CsvRows {
    pub(super) fn open(
        file: File,
        config: &TableConfig,
        layout: &RowLayout,
    ) -> Result<(Self, Count)> {
        let (inner, count) = Counted::new(file);
        let since_record = Arc::new(AtomicU64::new(0));
        let limited = Limited {
            inner,
            since_record: Arc::clone(&since_record),
        };
        let mut reader = ReaderBuilder::new()
            .buffer_capacity(READ_BYTES)
            .has_headers(true)
            .flexible(false)
            .from_reader(limited);
        let header = reader
            .byte_headers()
            .map_err(|e| Error::invalid(format!("the header can't be read: {e}")))?;
        let mut slots: Vec<Option<(usize, bool)>> = Vec::new();
        for (at, name) in header.iter().enumerate() {
            let name =
                std::str::from_utf8(name).map_err(|_| Error::invalid("the header is not UTF-8"))?;
            let name = if at == 0 {
                name.trim_start_matches('\u{feff}')
            } else {
                name
            };
            let slot = layout.slot(name.trim());
            if slot.is_some() && slots.iter().any(|s| s.map(|(s, _)| s) == slot) {
                return Err(Error::invalid(format!(
                    "the header names the column {name} twice"
                )));
            }
            slots.push(slot.map(|slot| {
                let multi_value = config
                    .spec
                    .schema
                    .columns
                    .get(slot)
                    .is_some_and(|c| c.multi_value);
                (slot, multi_value)
            }));
        }
        if slots.iter().all(Option::is_none) {
            return Err(Error::invalid(
                "the header names none of the table's columns",
            ));
        }
        since_record.store(0, Ordering::Relaxed);
        let width = layout.width();
        let record = ByteRecord::new();
        let rows = Self {
            reader,
            since_record,
            slots,
            width,
            record,
            row: 0,
        };
        Ok((rows, count))
    }
}

impl ReadRow for CsvRows {
    fn read_row(&mut self, source: &Source, builder: &mut RowBuilder) -> Result<bool> {
        self.row += 1;
        let at = self.row;
        let read = self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(|e| source.row_error(at, e))?;
        self.since_record.store(0, Ordering::Relaxed);
        if !read {
            return Ok(false);
        }
        let mut cells = vec![Cell::Null; self.width];
        for (field, slot) in self.record.iter().zip(&self.slots) {
            let Some((slot, multi_value)) = *slot else {
                continue;
            };
            if field.is_empty() {
                continue;
            }
            let text = std::str::from_utf8(field).map_err(|e| {
                source.row_error(
                    at,
                    format_args!("column {}: not UTF-8: {e}", name_of(builder, slot)),
                )
            })?;
            if let Some(cell) = cells.get_mut(slot) {
                *cell = if multi_value {
                    Cell::List(
                        text.split(ELEMENT_DELIMITER)
                            .map(|element| Cell::Text(element.into()))
                            .collect(),
                    )
                } else {
                    Cell::Text(text.into())
                };
            }
        }
        builder
            .push(&mut cells)
            .map_err(|e| source.row_error(at, e))?;
        Ok(true)
    }
}

fn name_of(builder: &RowBuilder, slot: usize) -> String {
    let schema = builder.arrow();
    let field = schema.fields().get(slot);
    field.map_or_else(|| format!("#{slot}"), |f| f.name().clone())
}
