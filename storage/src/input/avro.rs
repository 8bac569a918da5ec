//! Avro object container files, block by block.

use super::Source;
use super::lines::{Count, Counted};
use super::rowwise::ReadRow;
use crate::convert::avro::{self, AvroFields};
use crate::convert::flatten::Flattener;
use crate::convert::{RowBuilder, RowLayout};
use crate::decode::guarded;
use apache_avro::Reader;
use std::fs::File;
use std::io::BufReader;
use strandline_proto::{Error, Result};

pub(super) struct AvroRows {
    reader: Reader<'static, BufReader<Counted<File>>>,
    fields: AvroFields,
    flattener: Option<Flattener>,
    width: usize,
    row: u64,
}

impl AvroRows {
    pub(super) fn open(
        file: File,
        layout: &RowLayout,
        flattener: Option<Flattener>,
    ) -> Result<(Self, Count)> {
        avro::limit_allocation();
        let (counted, count) = Counted::new(file);
        let reader = guarded(|| Reader::new(BufReader::new(counted)))
            .map_err(Error::invalid)?
            .map_err(|e| Error::invalid(format!("not a complete Avro file: {e}")))?;
        let fields = AvroFields::new(
            avro::record(reader.writer_schema()).map_err(Error::invalid)?,
            layout,
        );
        if fields.is_empty() && flattener.is_none() {
            return Err(Error::invalid("the file has none of the table's columns"));
        }
        let rows = Self {
            reader,
            fields,
            flattener,
            width: layout.width(),
            row: 0,
        };
        Ok((rows, count))
    }
}

impl ReadRow for AvroRows {
    fn read_row(&mut self, source: &Source, builder: &mut RowBuilder) -> Result<bool> {
        self.row += 1;
        let next =
            guarded(|| self.reader.next()).map_err(|reason| source.row_error(self.row, reason))?;
        let datum = match next {
            None => return Ok(false),
            Some(datum) => datum.map_err(|e| {
                source.row_error(
                    self.row,
                    format_args!("the Avro file is cut short or broken: {e}"),
                )
            })?,
        };
        if let Some(flattener) = &mut self.flattener {
            let fields =
                (self.fields.all(&datum)).map_err(|why| source.row_error(self.row, why))?;
            flattener
                .push(&fields, &[], builder)
                .map_err(|e| source.row_error(self.row, e))?;
            return Ok(true);
        }
        let mut cells = Vec::with_capacity(self.width);
        self.fields
            .fill(&datum, self.width, &mut cells)
            .map_err(|reason| source.row_error(self.row, reason))?;
        builder
            .push(&mut cells)
            .map_err(|e| source.row_error(self.row, e))?;
        Ok(true)
    }
}
