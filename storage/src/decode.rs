//! Messages of a stream into rows.
//!
//! A message is one row or none: what can't be decoded, or does not fit the schema, comes back as
//! [`Rejected`] with its reason and bytes, and the other messages of the batch are kept.

#[cfg(test)]
mod tests;

use crate::config::{MessageFormat, TableConfig};
use crate::convert::avro::{self, AvroFields};
use crate::convert::json_row::JsonRow;
use crate::convert::{Cell, RowBuilder, RowLayout};
use crate::stream::Message;
use apache_avro::Schema as AvroSchema;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use strandline_proto::{Error, Result};

/// A message that gave no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its offset.
    pub offset: u64,
    /// Why.
    pub reason: String,
    /// Its bytes.
    pub payload: Bytes,
}

/// What a batch of messages gave.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows, in the order of their messages, in the table's Arrow schema.
    pub batch: RecordBatch,
    /// The offset of each row.
    pub offsets: Vec<u64>,
    /// Messages that were decoded.
    pub read: u64,
    /// Rows that the table's filter left out.
    pub filtered: u64,
    /// Rows beyond the first of a message.
    pub unnested: u64,
    /// Messages that gave no row.
    pub rejected: Vec<Rejected>,
}

/// Decodes the messages of one table's stream.
pub struct Decoder {
    layout: RowLayout,
    builder: RowBuilder,
    format: Format,
    message_bytes_max: usize,
}

enum Format {
    Json(JsonRow),
    Avro {
        schema: Box<AvroSchema>,
        fields: AvroFields,
    },
}

/// Whether the text is an Avro schema that messages can be decoded with.
pub(crate) fn check_avro_schema(text: &str) -> Result<(), String> {
    let schema = AvroSchema::parse_str(text).map_err(|e| format!("not an Avro schema: {e}"))?;
    avro::record(&schema).map(|_| ())
}

impl Decoder {
    /// A decoder for a realtime table.
    pub fn new(config: &TableConfig) -> Result<Self> {
        let Some(stream) = &config.stream else {
            return Err(Error::invalid(format!(
                "the table {} has no stream to decode",
                config.name
            )));
        };
        let (layout, builder) = RowBuilder::of_table(config)?;
        let format = match &stream.decoder.format {
            MessageFormat::Json => Format::Json(JsonRow::default()),
            MessageFormat::Avro { schema } => {
                avro::limit_allocation();
                let schema = AvroSchema::parse_str(schema)
                    .map_err(|e| Error::invalid(format!("not an Avro schema: {e}")))?;
                let fields =
                    AvroFields::new(avro::record(&schema).map_err(Error::invalid)?, &layout);
                Format::Avro {
                    schema: Box::new(schema),
                    fields,
                }
            }
        };
        Ok(Self {
            layout,
            builder,
            format,
            message_bytes_max: stream.decoder.message_bytes_max,
        })
    }

    /// Decodes messages, each whole or not at all.
    pub fn decode(&mut self, messages: &[Message]) -> Decoded {
        let mut offsets = Vec::with_capacity(messages.len());
        let mut rejected = Vec::new();
        let (mut filtered, mut unnested) = (0, 0);
        let mut cells = Vec::with_capacity(self.layout.width());
        for message in messages {
            let (rows, left_out) = (self.builder.rows(), self.builder.filtered());
            match self.row(message, &mut cells) {
                Ok(()) => {
                    let kept = self.builder.rows() - rows;
                    let left_out = self.builder.filtered() - left_out;
                    offsets.extend(std::iter::repeat_n(message.offset, kept));
                    filtered += left_out;
                    unnested += (kept as u64 + left_out).saturating_sub(1);
                }
                Err(reason) => rejected.push(reject(message, reason)),
            }
        }
        let read = messages.len() as u64;
        match self.builder.finish() {
            Ok(batch) => Decoded {
                batch,
                offsets,
                read,
                filtered,
                unnested,
                rejected,
            },
            // No row may be lost without a word: without a batch, every message is handed back.
            Err(error) => Decoded {
                batch: RecordBatch::new_empty(self.builder.arrow()),
                offsets: Vec::new(),
                read,
                filtered: 0,
                unnested: 0,
                rejected: (messages.iter())
                    .map(|m| reject(m, error.message().to_owned()))
                    .collect(),
            },
        }
    }

    fn row<'m>(&mut self, message: &'m Message, cells: &mut Vec<Cell<'m>>) -> Result<(), String> {
        let payload = &message.payload;
        if payload.is_empty() {
            return Err("the message is empty".to_owned());
        }
        if payload.len() > self.message_bytes_max {
            return Err(format!(
                "the message of {} bytes is longer than the limit of {}",
                payload.len(),
                self.message_bytes_max
            ));
        }
        match &mut self.format {
            Format::Json(row) => {
                let text = std::str::from_utf8(payload).map_err(|e| format!("not UTF-8: {e}"))?;
                row.fill(&self.layout, text, cells)?;
                self.builder.push(cells).map_err(|e| e.to_string())
            }
            Format::Avro { schema, fields } => {
                let mut rest: &[u8] = payload;
                let datum = guarded(|| apache_avro::from_avro_datum(schema, &mut rest, None))?
                    .map_err(|e| format!("not an Avro datum of the decoder's schema: {e}"))?;
                if !rest.is_empty() {
                    return Err(format!(
                        "not an Avro datum of the decoder's schema: {} bytes are left over",
                        rest.len()
                    ));
                }
                let mut cells = Vec::with_capacity(self.layout.width());
                fields.fill(&datum, self.layout.width(), &mut cells)?;
                self.builder.push(&mut cells).map_err(|e| e.to_string())
            }
        }
    }
}

fn reject(message: &Message, reason: String) -> Rejected {
    Rejected {
        offset: message.offset,
        reason,
        payload: message.payload.clone(),
    }
}

/// Runs a decoder that is not ours: a panic in it over broken bytes is an error about these bytes.
pub(crate) fn guarded<T>(read: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .map_err(|_| "broken bytes: the decoder gave up".to_owned())
}
