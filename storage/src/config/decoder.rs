//! How a stream's messages are decoded: the decoder by its class, and its properties.
//!
//! ```text
//! stream.T.decoder.class.name              JSONMessageDecoder | SimpleAvroMessageDecoder
//!                                          | KafkaConfluentSchemaRegistryAvroMessageDecoder | CSVMessageDecoder | ProtoBufMessageDecoder
//! stream.T.decoder.prop.schema             an Avro schema
//! stream.T.decoder.prop.schema.registry.rest.url   http://host:8081, for the decoder of registered schemas
//! stream.T.decoder.prop.descriptorFile     a descriptor set on the server, under one of its load roots
//! stream.T.decoder.prop.descriptorSet      (ours) the same itself, in base64
//! stream.T.decoder.prop.protoClassName     the message in it
//! stream.T.decoder.prop.header, .delimiter, .multiValueDelimiter, .nullStringValue, .escapeCharacter, .fileFormat   of CSV
//! stream.T.decoder.prop.compression        (ours) gzip | zstd | lz4 | snappy: of each message as a whole
//! stream.T.metadata.populate               whether key, headers, offset, partition and time are fields
//! stream.T.message.bytes.max               (ours) bytes of a message, before and after it is decompressed
//! ```

use super::document::{Node, Object};
use super::stream::number;
use super::{DecoderConfig, DescriptorSet, MessageFormat};
use crate::decode;
use crate::decode::compression::Compression;
use crate::decode::csv_record::CsvRecordFormat;
use crate::decode::registry::RegistryUrl;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::path::PathBuf;
use strandline_proto::Result;

const MESSAGE_BYTES_DEFAULT: usize = 10 << 20;
const MESSAGE_BYTES_LIMIT: usize = 50 << 20;

/// The properties of one stream's decoder.
struct Properties<'o, 'd> {
    map: &'o mut Object<'d>,
    prefix: &'o str,
    node: &'o Node<'o>,
}

impl<'d> Properties<'_, 'd> {
    fn key(&self, name: &str) -> String {
        format!("{}.decoder.prop.{name}", self.prefix)
    }

    fn take(&mut self, name: &str) -> Option<Node<'d>> {
        let key = self.key(name);
        self.map.take(&key).filter(|node| !is_empty(node))
    }

    fn require(&mut self, name: &str, what: &str) -> Result<Node<'d>> {
        let key = self.key(name);
        self.take(name).ok_or_else(|| {
            self.node
                .wrong(format_args!("the key {key} ({what}) is missing"))
        })
    }

    /// One character of ASCII.
    fn character(&mut self, name: &str) -> Result<Option<u8>> {
        let Some(node) = self.take(name) else {
            return Ok(None);
        };
        match node.text()?.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\r' | b'\n') => Ok(Some(*byte)),
            b"\\t" => Ok(Some(b'\t')),
            _ => Err(node.unsupported("anything but one character of ASCII")),
        }
    }
}

fn is_empty(node: &Node<'_>) -> bool {
    node.text().is_ok_and(str::is_empty)
}

pub(super) fn read(map: &mut Object<'_>, prefix: &str, node: &Node<'_>) -> Result<DecoderConfig> {
    let class = map.take(&format!("{prefix}.decoder.class.name"));
    let message_bytes_max = match map.take(&format!("{prefix}.message.bytes.max")) {
        Some(n) => number(&n, 1_024, MESSAGE_BYTES_LIMIT as u64)? as usize,
        None => MESSAGE_BYTES_DEFAULT,
    };
    let metadata = match map.take(&format!("{prefix}.metadata.populate")) {
        Some(populate) => populate.boolean()?,
        None => false,
    };
    let class_name = class
        .as_ref()
        .map(Node::text)
        .transpose()?
        .unwrap_or("JSONMessageDecoder");
    let mut properties = Properties { map, prefix, node };
    let compression = match properties.take("compression") {
        Some(name) => Compression::parse(name.text()?).ok_or_else(|| {
            name.unsupported(format_args!(
                "the compression '{}'; there are gzip, zstd, lz4, snappy and none",
                name.text().unwrap_or_default().escape_debug()
            ))
        })?,
        None => Compression::None,
    };
    let simple_name = class_name.rsplit('.').next().unwrap_or(class_name);
    let format = match simple_name {
        "JSONMessageDecoder" | "KafkaJSONMessageDecoder" => MessageFormat::Json,
        "SimpleAvroMessageDecoder" | "KafkaAvroMessageDecoder" => avro(&mut properties)?,
        "KafkaConfluentSchemaRegistryAvroMessageDecoder" => {
            let url = properties.require("schema.registry.rest.url", "where the registry is")?;
            let registry = RegistryUrl::parse(url.text()?).map_err(|e| {
                match e.message().strip_prefix("not supported: ") {
                    Some(what) => url.unsupported(what),
                    None => e.at(url.path()),
                }
            })?;
            MessageFormat::RegisteredAvro { registry }
        }
        "CSVMessageDecoder" => MessageFormat::Csv(csv(&mut properties)?),
        "ProtoBufMessageDecoder" => protobuf(&mut properties)?,
        other => {
            let at = class.as_ref().unwrap_or(node);
            return Err(at.unsupported(format_args!(
                "the decoder {other}; there are JSONMessageDecoder, SimpleAvroMessageDecoder, \
                 KafkaConfluentSchemaRegistryAvroMessageDecoder, CSVMessageDecoder and ProtoBufMessageDecoder"
            )));
        }
    };
    Ok(DecoderConfig {
        format,
        compression,
        metadata,
        message_bytes_max,
    })
}

fn avro(properties: &mut Properties<'_, '_>) -> Result<MessageFormat> {
    if let Some(registry) = properties.take("schema.registry.rest.url") {
        return Err(registry.unsupported(
            "a schema registry for this decoder; use KafkaConfluentSchemaRegistryAvroMessageDecoder",
        ));
    }
    let schema = properties.require("schema", "the Avro schema")?;
    let text = match schema.text() {
        Ok(text) => text.to_owned(),
        Err(_) => schema.value().to_string(),
    };
    decode::check_avro_schema(&text).map_err(|reason| schema.wrong(reason))?;
    Ok(MessageFormat::Avro { schema: text })
}

fn csv(properties: &mut Properties<'_, '_>) -> Result<CsvRecordFormat> {
    let mut format = CsvRecordFormat::default();
    if let Some(node) = properties.take("fileFormat") {
        match node.word()?.as_str() {
            "DEFAULT" | "RFC4180" | "EXCEL" => {}
            "TDF" => format.delimiter = b'\t',
            "MYSQL" => {
                format = CsvRecordFormat {
                    delimiter: b'\t',
                    quote: None,
                    escape: Some(b'\\'),
                    null: Some("\\N".to_owned()),
                    ..format
                }
            }
            other => {
                return Err(node.unsupported(format_args!(
                    "the file format {other}; there are DEFAULT, RFC4180, EXCEL, TDF and MYSQL"
                )));
            }
        }
    }
    if let Some(delimiter) = properties.character("delimiter")? {
        format.delimiter = delimiter;
    }
    if let Some(escape) = properties.character("escapeCharacter")? {
        format.escape = Some(escape);
    }
    if let Some(delimiter) = properties.character("multiValueDelimiter")? {
        format.element_delimiter = char::from(delimiter);
    }
    if let Some(null) = properties.take("nullStringValue") {
        format.null = Some(null.text()?.to_owned());
    }
    if let Some(marker) = properties.take("commentMarker") {
        return Err(marker.unsupported("comments in messages; every message is a record"));
    }
    if Some(format.delimiter) == format.quote || Some(format.delimiter) == format.escape {
        return Err(properties
            .node
            .wrong("delimiter, quote and escape of CSV are not different characters"));
    }
    if let Some(node) = properties.take("header") {
        let names = node.text()?.split(char::from(format.delimiter));
        let names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
        let twice = |name: &String| names.iter().filter(|n| *n == name).count() > 1;
        if let Some(name) = names.iter().find(|n| n.is_empty() || twice(n)) {
            return Err(node.wrong(format_args!("the field '{name}' is empty or there twice")));
        }
        format.header = Some(names);
    }
    Ok(format)
}

fn protobuf(properties: &mut Properties<'_, '_>) -> Result<MessageFormat> {
    let message = properties
        .require("protoClassName", "the message in the descriptor set")?
        .text()?
        .to_owned();
    let file = properties.take("descriptorFile");
    let given = properties.take("descriptorSet");
    let descriptors = match (file, given) {
        (Some(file), None) => {
            let path = file.text()?;
            let path = path.strip_prefix("file://").unwrap_or(path);
            if path.contains("://") {
                return Err(file.unsupported(
                    "a descriptor set elsewhere than in a file of the server; put it, in base64, into ...decoder.prop.descriptorSet",
                ));
            }
            DescriptorSet::File(PathBuf::from(path))
        }
        (None, Some(given)) => {
            let bytes = BASE64
                .decode(given.text()?.trim())
                .map_err(|e| given.wrong(format_args!("not base64: {e}")))?;
            decode::check_descriptor_set(&bytes, &message).map_err(|why| given.wrong(why))?;
            DescriptorSet::Given(bytes)
        }
        (None, None) => {
            let key = properties.key("descriptorFile");
            return Err(properties
                .node
                .wrong(format_args!("the key {key} (a descriptor set) is missing")));
        }
        (Some(_), Some(given)) => {
            return Err(given.wrong("a descriptor file is given as well; keep one of the two"));
        }
    };
    Ok(MessageFormat::Protobuf {
        descriptors,
        message,
    })
}
