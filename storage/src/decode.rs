//! Messages of a stream into rows.
//!
//! A message gives its rows (one, unless nested arrays are unnested) or none of them: what can't be decoded, or does not fit
//! the schema, comes back as [`Rejected`] with its reason and bytes, and the other messages of the batch are kept.
//!
//! A message's bytes may be compressed as a whole ([`compression`]); what it says of itself can be columns ([`metadata`]).
//! How many bytes it may have, compressed and decompressed, is the stream's limit; rows that are made together have at most
//! [`ROWS_BYTES_MAX`] bytes beyond those of one message, so that what is in memory is bounded whatever comes.

pub mod compression;
pub mod csv_record;
pub(crate) mod metadata;
mod protobuf;
pub mod registry;
#[cfg(test)]
mod tests;

use crate::config::{DescriptorSet, MessageFormat, StreamConfig, TableConfig};
use crate::convert::avro::{self, AvroFields};
use crate::convert::flatten::{Fields, Flattener};
use crate::convert::json_row::{self, JsonRow};
use crate::convert::{Cell, RowBuilder, RowLayout};
use crate::meta::IngestCounts;
use crate::meta::minutes::MinuteCounts;
use crate::stream::Message;
use apache_avro::Schema as AvroSchema;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use compression::Compression;
use csv_record::CsvRecordFormat;
use metadata::Metadata;
use prost_reflect::MessageDescriptor;
use registry::SchemaRegistry;
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;
use strandline_proto::{Error, Result};

/// Bytes of rows from which on no further message is decoded.
const ROWS_BYTES_MAX: usize = 64 << 20;
/// Messages between two looks at these bytes.
const LOOK_MESSAGES: usize = 8;
/// Bytes of a descriptor set.
const DESCRIPTOR_BYTES_MAX: u64 = 16 << 20;
/// Schemas of a registry that are held ready.
const READY_MAX: usize = 256;
/// The first byte of Confluent's wire format.
const WIRE_MAGIC: u8 = 0;
const WIRE_HEADER_BYTES: usize = 5;
/// What a message counts that gave no row.
const REJECTED: IngestCounts = IngestCounts {
    read: 1,
    dead_lettered: 1,
    ..IngestCounts::NONE
};

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
    /// How many of the messages are dealt with; those behind them wait for another call.
    pub read: usize,
    /// Rows that the table's filter left out.
    pub filtered: u64,
    /// Rows beyond the first of a message.
    pub unnested: u64,
    /// Messages that gave no row.
    pub rejected: Vec<Rejected>,
    /// The counts of what is in no row of the batch, at the times of their messages: `filtered`, `dead_lettered`, and the
    /// messages (`read`) and rows (`unnested`) that these were.
    pub without_rows: MinuteCounts,
    /// Why the message behind those was not decoded, when it is not only for want of room.
    pub stopped: Option<Stopped>,
}

/// What has to happen before decoding can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// [`SchemaRegistry::fetch`] of this schema.
    Schema(u32),
    /// In strict mode: the message is wrong.
    Wrong(Rejected),
}

/// Decodes the messages of one partition of a table's stream.
pub struct Decoder {
    layout: RowLayout,
    builder: RowBuilder,
    format: Format,
    compression: Compression,
    metadata: Option<Metadata>,
    flattener: Option<Flattener>,
    message_bytes_max: usize,
    strict: bool,
}

enum Format {
    Json(JsonRow),
    Avro(AvroReader),
    /// By the id in each message.
    Registered {
        registry: Arc<SchemaRegistry>,
        ready: HashMap<u32, AvroReader>,
    },
    Csv(CsvRecordFormat),
    Protobuf(MessageDescriptor),
}

/// A schema and where its fields go.
struct AvroReader {
    schema: Arc<AvroSchema>,
    fields: AvroFields,
}

/// Why a message gave no row.
enum Failed {
    Wrong(String),
    Schema(u32),
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Wrong(reason)
    }
}

/// Whether the text is an Avro schema that messages can be decoded with.
pub(crate) fn check_avro_schema(text: &str) -> Result<(), String> {
    let schema = avro_schema(text)?;
    avro::record(&schema).map(|_| ())
}

/// The schema that a text is. Apache's parser panics at some that are none.
pub(crate) fn avro_schema(text: &str) -> Result<AvroSchema, String> {
    guarded(|| AvroSchema::parse_str(text))
        .map_err(|_| "not an Avro schema: the parser gave up".to_owned())?
        .map_err(|e| format!("not an Avro schema: {e}"))
}

/// Whether the bytes are a descriptor set with the message.
pub(crate) fn check_descriptor_set(set: &[u8], message: &str) -> Result<(), String> {
    protobuf::message_type(set, message).map(|_| ())
}

impl AvroReader {
    fn new(schema: Arc<AvroSchema>, layout: &RowLayout) -> Result<Self, String> {
        let fields = AvroFields::new(avro::record(&schema)?, layout);
        Ok(Self { schema, fields })
    }

    fn read(&self, bytes: &[u8]) -> Result<apache_avro::types::Value, String> {
        let mut rest = bytes;
        let datum = guarded(|| apache_avro::from_avro_datum(&self.schema, &mut rest, None))?
            .map_err(|e| format!("not an Avro datum of the decoder's schema: {e}"))?;
        if !rest.is_empty() {
            return Err(format!(
                "not an Avro datum of the decoder's schema: {} bytes are left over",
                rest.len()
            ));
        }
        Ok(datum)
    }
}

/// The bytes of a descriptor set; blocks.
fn read_descriptor_set(set: &DescriptorSet) -> Result<Vec<u8>> {
    let path = match set {
        DescriptorSet::Given(bytes) => return Ok(bytes.clone()),
        DescriptorSet::File(path) => path,
    };
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(DESCRIPTOR_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(e) => Err(Error::precondition(format!(
            "the descriptor set {} can't be read on the server: {e}",
            path.display()
        ))),
        Ok(read) if read as u64 > DESCRIPTOR_BYTES_MAX => Err(Error::invalid(format!(
            "the descriptor set {} is longer than {DESCRIPTOR_BYTES_MAX} bytes",
            path.display()
        ))),
        Ok(_) => Ok(bytes),
    }
}

impl Decoder {
    /// A decoder of one partition of a realtime table's `stream`; blocks while a descriptor set is read. `registry` is where
    /// schemas are asked for, when the stream's messages name them.
    pub fn new(
        config: &TableConfig,
        stream: &StreamConfig,
        partition: u32,
        registry: Option<Arc<SchemaRegistry>>,
    ) -> Result<Self> {
        let (layout, builder) = RowBuilder::of_table(config)?;
        let decoder = &stream.decoder;
        let format = match &decoder.format {
            MessageFormat::Json => Format::Json(JsonRow::default()),
            MessageFormat::Avro { schema } => {
                avro::limit_allocation();
                let schema = avro_schema(schema).map_err(Error::invalid)?;
                let reader = AvroReader::new(Arc::new(schema), &layout).map_err(Error::invalid)?;
                Format::Avro(reader)
            }
            MessageFormat::RegisteredAvro { .. } => {
                avro::limit_allocation();
                let registry = registry.ok_or_else(|| {
                    Error::internal("a decoder of registered schemas without their registry")
                })?;
                Format::Registered {
                    registry,
                    ready: HashMap::new(),
                }
            }
            MessageFormat::Csv(format) => Format::Csv(format.clone()),
            MessageFormat::Protobuf {
                descriptors,
                message,
            } => {
                let set = read_descriptor_set(descriptors)?;
                Format::Protobuf(protobuf::message_type(&set, message).map_err(Error::invalid)?)
            }
        };
        Ok(Self {
            metadata: (decoder.metadata).then(|| Metadata::new(&layout, partition)),
            flattener: (config.complex_types.as_ref()).map(|c| Flattener::new(c, &layout)),
            compression: decoder.compression,
            message_bytes_max: decoder.message_bytes_max,
            strict: stream.strict,
            layout,
            builder,
            format,
        })
    }

    /// Asks the registry again for schemas that it did not have.
    pub fn forget_failures(&mut self) {
        if let Format::Registered { registry, .. } = &self.format {
            registry.forget_failures();
        }
    }

    /// Decodes messages, each whole or not at all, up to the first one that can't be decoded yet.
    pub fn decode(&mut self, messages: &[Message]) -> Decoded {
        let mut offsets = Vec::with_capacity(messages.len());
        let (mut rejected, mut stopped) = (Vec::new(), None);
        let (mut read, mut filtered, mut unnested) = (0, 0, 0);
        let mut without_rows = MinuteCounts::default();
        for message in messages {
            let (rows, left_out) = (self.builder.rows(), self.builder.filtered());
            match self.row(message) {
                Ok(()) => {
                    let kept = self.builder.rows() - rows;
                    let left_out = self.builder.filtered() - left_out;
                    offsets.extend(std::iter::repeat_n(message.offset, kept));
                    filtered += left_out;
                    unnested += (kept as u64 + left_out).saturating_sub(1);
                    if left_out > 0 {
                        // The message is counted with its first row that is kept, if there is one.
                        let read = u64::from(kept == 0);
                        let counts = IngestCounts {
                            read,
                            filtered: left_out,
                            unnested: left_out - read,
                            ..IngestCounts::default()
                        };
                        without_rows.add(message.time_ms(), counts);
                    }
                }
                Err(Failed::Wrong(reason)) if self.strict => {
                    stopped = Some(Stopped::Wrong(reject(message, reason)));
                    break;
                }
                Err(Failed::Wrong(reason)) => {
                    rejected.push(reject(message, reason));
                    without_rows.add(message.time_ms(), REJECTED);
                }
                Err(Failed::Schema(id)) => {
                    stopped = Some(Stopped::Schema(id));
                    break;
                }
            }
            read += 1;
            let look = self.builder.may_swell()
                || self.compression != Compression::None
                || read % LOOK_MESSAGES == 0
                || self.builder.rows() > rows + 1;
            if look && self.builder.bytes() >= ROWS_BYTES_MAX {
                break;
            }
        }
        match self.builder.finish() {
            Ok(batch) => Decoded {
                batch,
                offsets,
                read,
                filtered,
                unnested,
                rejected,
                without_rows,
                stopped,
            },
            Err(error) => self.without_batch(messages, read, &error),
        }
    }

    /// No row may be lost without a word: without a batch, every message is handed back.
    fn without_batch(&self, messages: &[Message], read: usize, error: &Error) -> Decoded {
        let all = messages.iter().take(read);
        let mut without_rows = MinuteCounts::default();
        let mut rejected: Vec<Rejected> = all
            .map(|m| {
                without_rows.add(m.time_ms(), REJECTED);
                reject(m, error.message().to_owned())
            })
            .collect();
        let stopped = match self.strict && !rejected.is_empty() {
            true => Some(Stopped::Wrong(rejected.swap_remove(0))),
            false => None,
        };
        if stopped.is_some() {
            rejected.clear();
            without_rows = MinuteCounts::default();
        }
        Decoded {
            batch: RecordBatch::new_empty(self.builder.arrow()),
            offsets: Vec::new(),
            read: rejected.len(),
            filtered: 0,
            unnested: 0,
            rejected,
            without_rows,
            stopped,
        }
    }

    fn row(&mut self, message: &Message) -> Result<(), Failed> {
        let payload = &message.payload;
        if payload.is_empty() {
            return Err("the message is empty".to_owned().into());
        }
        if payload.len() > self.message_bytes_max {
            return Err(Failed::Wrong(format!(
                "the message of {} bytes is longer than the limit of {}",
                payload.len(),
                self.message_bytes_max
            )));
        }
        let bytes = self.compression.undo(payload, self.message_bytes_max)?;
        let given = match &self.metadata {
            Some(metadata) => metadata.cells(message)?,
            None => Vec::new(),
        };
        let text = || std::str::from_utf8(&bytes).map_err(|e| format!("not UTF-8: {e}"));
        let into = Sink {
            layout: &self.layout,
            builder: &mut self.builder,
            flattener: self.flattener.as_mut(),
            given,
        };
        match &mut self.format {
            Format::Json(row) => {
                let text = text()?;
                if into.flattener.is_some() {
                    return Ok(into.flat(&json_row::all_fields(text)?)?);
                }
                if into.given.is_empty() && row.append(into.layout, text, into.builder) {
                    return Ok(());
                }
                let mut cells = Vec::with_capacity(into.layout.width());
                row.fill(into.layout, text, &mut cells)?;
                Ok(into.cells(cells)?)
            }
            Format::Avro(reader) => Ok(into.avro(reader, &bytes)?),
            Format::Registered { registry, ready } => {
                let (Some((&[WIRE_MAGIC, ..], _)), Some((header, datum))) = (
                    bytes.split_first_chunk::<1>(),
                    bytes.split_first_chunk::<WIRE_HEADER_BYTES>(),
                ) else {
                    return Err(Failed::Wrong(
                        "not in the wire format of a schema registry: it does not begin with 0 and a schema's id"
                            .to_owned(),
                    ));
                };
                let [_, id @ ..] = *header;
                let id = u32::from_be_bytes(id);
                if !ready.contains_key(&id) {
                    let schema = registry.known(id).ok_or(Failed::Schema(id))?;
                    let reader = schema
                        .and_then(|schema| AvroReader::new(schema, into.layout))
                        .map_err(|reason| format!("schema {id}: {reason}"))?;
                    if ready.len() >= READY_MAX {
                        ready.clear();
                    }
                    ready.insert(id, reader);
                }
                match ready.get(&id) {
                    Some(reader) => Ok(into.avro(reader, datum)?),
                    None => Err(Failed::Schema(id)),
                }
            }
            Format::Csv(format) => {
                let fields = format.read(text()?)?;
                let layout = into.layout;
                let cell = |name: &str, field| {
                    let slot = layout.slot(name);
                    let multi_value = slot.is_some_and(|slot| layout.is_multi_value(slot));
                    (slot, format.cell(field, multi_value))
                };
                if into.flattener.is_some() {
                    let fields = fields.into_iter().map(|(name, field)| {
                        let cell = cell(&name, field).1;
                        (name, cell)
                    });
                    return Ok(into.flat(&fields.collect())?);
                }
                let mut cells = vec![Cell::Null; layout.width()];
                for (name, field) in fields {
                    let (slot, cell) = cell(&name, field);
                    if let Some(place) = slot.and_then(|slot| cells.get_mut(slot)) {
                        *place = cell;
                    }
                }
                Ok(into.cells(cells)?)
            }
            Format::Protobuf(descriptor) => {
                let record = protobuf::read(descriptor, &bytes)?;
                let layout = into.layout;
                if into.flattener.is_some() {
                    let mut fields = Fields::new();
                    protobuf::fields(
                        &record,
                        descriptor,
                        |_| true,
                        |name, cell| {
                            fields.push((Cow::Owned(name.to_owned()), cell));
                        },
                    )?;
                    return Ok(into.flat(&fields)?);
                }
                let mut cells = vec![Cell::Null; layout.width()];
                let wanted = |name: &str| layout.slot(name).is_some();
                protobuf::fields(&record, descriptor, wanted, |name, cell| {
                    if let Some(place) = layout.slot(name).and_then(|s| cells.get_mut(s)) {
                        *place = cell;
                    }
                })?;
                Ok(into.cells(cells)?)
            }
        }
    }
}

/// Where a message's values go.
struct Sink<'d, 'm> {
    layout: &'d RowLayout,
    builder: &'d mut RowBuilder,
    flattener: Option<&'d mut Flattener>,
    /// Cells that the message has of itself.
    given: Vec<(usize, Cell<'m>)>,
}

impl<'m> Sink<'_, 'm> {
    /// One row of cells.
    fn cells<'c>(self, mut cells: Vec<Cell<'c>>) -> Result<(), String>
    where
        'm: 'c,
    {
        for (slot, cell) in self.given {
            if let Some(place) = cells.get_mut(slot) {
                *place = cell;
            }
        }
        self.builder.push(&mut cells).map_err(|e| e.to_string())
    }

    /// The rows of nested fields.
    fn flat(self, fields: &Fields<'_>) -> Result<(), String> {
        match self.flattener {
            Some(flattener) => flattener
                .push(fields, &self.given, self.builder)
                .map_err(|e| e.to_string()),
            None => Err("nested fields without a config for them".to_owned()),
        }
    }

    fn avro(self, reader: &AvroReader, bytes: &[u8]) -> Result<(), String> {
        let datum = reader.read(bytes)?;
        if self.flattener.is_some() {
            return self.flat(&reader.fields.all(&datum)?);
        }
        let mut cells = Vec::with_capacity(self.layout.width());
        reader
            .fields
            .fill(&datum, self.layout.width(), &mut cells)?;
        self.cells(cells)
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
