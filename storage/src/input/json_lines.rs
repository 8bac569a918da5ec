//! JSON lines: one object a line, empty lines passed over.

use super::lines::{Count, Counted, Line, read_line};
use super::{LINE_BYTES_MAX, RowSource, Source};
use crate::convert::json_row::JsonRow;
use crate::convert::{RowBuilder, RowLayout};
use arrow::record_batch::RecordBatch;
use std::fs::File;
use std::io::BufReader;
use strandline_proto::Result;

const READ_BYTES: usize = 1 << 18;

pub(super) struct JsonSource {
    source: Source,
    from: BufReader<Counted<File>>,
    count: Count,
    layout: RowLayout,
    builder: RowBuilder,
    row: JsonRow,
    line: Vec<u8>,
    line_number: u64,
    ended: bool,
}

impl JsonSource {
    pub(super) fn open(file: File, source: Source, layout: RowLayout, builder: RowBuilder) -> Self {
        let (counted, count) = Counted::new(file);
        Self {
            source,
            from: BufReader::with_capacity(READ_BYTES, counted),
            count,
            layout,
            builder,
            row: JsonRow::default(),
            line: Vec::new(),
            line_number: 0,
            ended: false,
        }
    }

    /// Reads one line; false at the end.
    fn line(&mut self) -> Result<bool> {
        let read = read_line(&mut self.from, LINE_BYTES_MAX, &mut self.line);
        self.line_number += 1;
        let at = self.line_number;
        match read.map_err(|e| super::read_error(&e).at(&self.source.place))? {
            Line::Read => {}
            Line::End => return Ok(false),
            Line::TooLong => {
                return Err(self.source.row_error(
                    at,
                    format_args!("the line is longer than {LINE_BYTES_MAX} bytes"),
                ));
            }
        }
        let text = std::str::from_utf8(&self.line)
            .map_err(|e| self.source.row_error(at, format_args!("not UTF-8: {e}")))?;
        let text = if at == 1 {
            text.trim_start_matches('\u{feff}')
        } else {
            text
        };
        if text.trim().is_empty() {
            return Ok(true);
        }
        let mut cells = Vec::with_capacity(self.layout.width());
        self.row
            .fill(&self.layout, text, &mut cells)
            .map_err(|reason| self.source.row_error(at, reason))?;
        self.builder
            .push(&mut cells)
            .map_err(|e| self.source.row_error(at, e))?;
        Ok(true)
    }
}

impl RowSource for JsonSource {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        while !self.ended && !self.source.is_full(&self.builder) {
            self.ended = !self.line()?;
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
