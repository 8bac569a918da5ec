//! JSON lines: one object a line, empty lines passed over.

use super::lines::{Count, Counted, Line, read_line};
use super::rowwise::ReadRow;
use super::{LINE_BYTES_MAX, Source};
use crate::convert::flatten::Flattener;
use crate::convert::json_row::{self, JsonRow};
use crate::convert::{RowBuilder, RowLayout};
use std::fs::File;
use std::io::BufReader;
use strandline_proto::Result;

const READ_BYTES: usize = 1 << 18;

pub(super) struct JsonRows {
    from: BufReader<Counted<File>>,
    layout: RowLayout,
    row: JsonRow,
    flattener: Option<Flattener>,
    line: Vec<u8>,
    line_number: u64,
}

impl JsonRows {
    pub(super) fn open(
        file: File,
        layout: RowLayout,
        flattener: Option<Flattener>,
    ) -> (Self, Count) {
        let (counted, count) = Counted::new(file);
        let rows = Self {
            from: BufReader::with_capacity(READ_BYTES, counted),
            layout,
            row: JsonRow::default(),
            flattener,
            line: Vec::new(),
            line_number: 0,
        };
        (rows, count)
    }
}

impl ReadRow for JsonRows {
    fn read_row(&mut self, source: &Source, builder: &mut RowBuilder) -> Result<bool> {
        let read = read_line(&mut self.from, LINE_BYTES_MAX, &mut self.line);
        self.line_number += 1;
        let at = self.line_number;
        match read.map_err(|e| super::read_error(&e).at(&source.place))? {
            Line::Read => {}
            Line::End => return Ok(false),
            Line::TooLong => {
                return Err(source.row_error(
                    at,
                    format_args!("the line is longer than {LINE_BYTES_MAX} bytes"),
                ));
            }
        }
        let text = std::str::from_utf8(&self.line)
            .map_err(|e| source.row_error(at, format_args!("not UTF-8: {e}")))?;
        let text = if at == 1 {
            text.trim_start_matches('\u{feff}')
        } else {
            text
        };
        if text.trim().is_empty() {
            return Ok(true);
        }
        if let Some(flattener) = &mut self.flattener {
            let fields =
                json_row::all_fields(text).map_err(|reason| source.row_error(at, reason))?;
            flattener
                .push(&fields, &[], builder)
                .map_err(|e| source.row_error(at, e))?;
            return Ok(true);
        }
        let mut cells = Vec::with_capacity(self.layout.width());
        self.row
            .fill(&self.layout, text, &mut cells)
            .map_err(|reason| source.row_error(at, reason))?;
        builder
            .push(&mut cells)
            .map_err(|e| source.row_error(at, e))?;
        Ok(true)
    }
}
