//! What a message says of itself, as fields of its row, by Pinot's names.
//!
//! ```text
//! __key                       the message's key
//! __header$NAME               the header NAME, the last one of this name (Kafka only)
//! __metadata$offset           its offset
//! __metadata$partition        its partition
//! __metadata$recordTimestamp  when it was produced, in milliseconds; null when that is not known
//! ```
//!
//! They are filled when the stream's `metadata.populate` is true, can be columns of the schema, and can be read by transforms
//! and the filter. They take the place of fields of the same name in the message. A key or header is text, which must be
//! UTF-8, or bytes in a column of type BYTES.

use crate::convert::{Cell, RowLayout};
use crate::stream::Message;
use std::borrow::Cow;
use strandline_proto::schema::DataType;

const KEY: &str = "__key";
const HEADER: &str = "__header$";
const METADATA: &str = "__metadata$";

/// Whether the name is one of these fields.
pub(crate) fn is_metadata(name: &str) -> bool {
    Field::parse(name).is_some()
}

/// Whether the name begins as one of these fields does.
pub(crate) fn looks_like_metadata(name: &str) -> bool {
    name == KEY || name.starts_with(HEADER) || name.starts_with(METADATA)
}

#[derive(Clone, Debug)]
enum Field {
    Key,
    Header(String),
    Offset,
    Partition,
    Timestamp,
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        if name == KEY {
            return Some(Self::Key);
        }
        if let Some(header) = name.strip_prefix(HEADER) {
            return (!header.is_empty()).then(|| Self::Header(header.to_owned()));
        }
        match name.strip_prefix(METADATA)? {
            "offset" => Some(Self::Offset),
            "partition" => Some(Self::Partition),
            "recordTimestamp" => Some(Self::Timestamp),
            _ => None,
        }
    }
}

/// The cells of a layout that are filled from what messages say of themselves.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    /// Cell, field, and whether it takes bytes.
    fields: Vec<(usize, Field, bool)>,
    partition: u32,
}

impl Metadata {
    pub(super) fn new(layout: &RowLayout, partition: u32) -> Self {
        let names = layout.names().iter().enumerate();
        let fields = names.filter_map(|(slot, name)| {
            let field = Field::parse(name)?;
            let data_type = layout.place(name).and_then(|place| place.data_type);
            Some((slot, field, data_type == Some(DataType::Bytes)))
        });
        Self {
            fields: fields.collect(),
            partition,
        }
    }

    /// A message's cells.
    pub(super) fn cells<'m>(&self, message: &'m Message) -> Result<Vec<(usize, Cell<'m>)>, String> {
        let mut cells = Vec::with_capacity(self.fields.len());
        for (slot, field, takes_bytes) in &self.fields {
            let raw = |bytes: &'m [u8], what: &str| match std::str::from_utf8(bytes) {
                _ if *takes_bytes => Ok(Cell::Bytes(Cow::Borrowed(bytes))),
                Ok(text) => Ok(Cell::Text(Cow::Borrowed(text))),
                Err(_) => Err(format!(
                    "the {what} is not UTF-8; give its column the type BYTES"
                )),
            };
            let cell = match field {
                Field::Key => match &message.key {
                    Some(key) => raw(key, "message's key")?,
                    None => Cell::Null,
                },
                Field::Header(name) => {
                    let mut headers = message.headers.iter().rev();
                    match headers.find(|(n, _)| **n == **name) {
                        Some((_, value)) => raw(value, &format!("header {name}"))?,
                        None => Cell::Null,
                    }
                }
                Field::Offset => Cell::Integer(i64::try_from(message.offset).unwrap_or(i64::MAX)),
                Field::Partition => Cell::Integer(i64::from(self.partition)),
                Field::Timestamp if message.timestamp_ms == 0 => Cell::Null,
                Field::Timestamp => Cell::Timestamp(message.timestamp_ms),
            };
            cells.push((*slot, cell));
        }
        Ok(cells)
    }
}
