//! Avro object container files, block by block.

use super::lines::{Count, Counted};
use super::{RowSource, Source};
use crate::convert::avro::{self, AvroFields};
use crate::convert::{RowBuilder, RowLayout};
use crate::decode::guarded;
use apache_avro::Reader;
use arrow::record_batch::RecordBatch;
use std::fs::File;
use std::io::BufReader;
use strandline_proto::{Error, Result};

pub(super) struct AvroSource {
    source: Source,
    reader: Reader<'static, BufReader<Counted<File>>>,
    count: Count,
    fields: AvroFields,
    layout: RowLayout,
    builder: RowBuilder,
    row: u64,
    ended: bool,
}

impl AvroSource {
    pub(super) fn open(
        file: File,
        source: Source,
        layout: RowLayout,
        builder: RowBuilder,
    ) -> Result<Self> {
        avro::limit_allocation();
        let (counted, count) = Counted::new(file);
        let reader = guarded(|| Reader::new(BufReader::new(counted)))
            .map_err(Error::invalid)?
            .map_err(|e| Error::invalid(format!("not a complete Avro file: {e}")))?;
        let fields = AvroFields::new(
            avro::record(reader.writer_schema()).map_err(Error::invalid)?,
            &layout,
        );
        if fields.is_empty() {
            return Err(Error::invalid("the file has none of the table's columns"));
        }
        Ok(Self {
            source,
            reader,
            count,
            fields,
            layout,
            builder,
            row: 0,
            ended: false,
        })
    }

    /// Reads one row; false at the end.
    fn row(&mut self) -> Result<bool> {
        self.row += 1;
        let next = guarded(|| self.reader.next())
            .map_err(|reason| self.source.row_error(self.row, reason))?;
        let datum = match next {
            None => return Ok(false),
            Some(datum) => datum.map_err(|e| {
                self.source.row_error(
                    self.row,
                    format_args!("the Avro file is cut short or broken: {e}"),
                )
            })?,
        };
        let mut cells = Vec::with_capacity(self.layout.width());
        self.fields
            .fill(&datum, self.layout.width(), &mut cells)
            .map_err(|reason| self.source.row_error(self.row, reason))?;
        self.builder
            .push(&mut cells)
            .map_err(|e| self.source.row_error(self.row, e))?;
        Ok(true)
    }
}

impl RowSource for AvroSource {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while !self.ended && !self.source.is_full(&self.builder) {
            self.ended = !self.row()?;
        }
        if self.builder.rows() == 0 {
            return Ok(None);
        }
        self.builder.finish().map(Some)
    }

    fn bytes_read(&self) -> u64 {
        self.count.get()
    }

    fn bytes_total(&self) -> u64 {
        self.source.bytes_total
    }
}
