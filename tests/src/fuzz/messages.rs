//! Messages of a stream, by every decoder. The first byte of the data says which one, and whether the rest is compressed here:
//! else what is behind a decompression is hardly reached.

use super::{UNNESTED, table};
use apache_avro::types::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};
use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use strandline_storage::config::{MessageFormat, TableConfig};
use strandline_storage::decode::registry::SchemaRegistry;
use strandline_storage::decode::{Decoder, Stopped};
use strandline_storage::environment::Environment;
use strandline_storage::stream::Message;

const AVRO: &str = r#"{"type": "record", "name": "r", "fields": [{"name": "day", "type": "int"}, {"name": "name", "type": ["null", "string"]},
    {"name": "tags", "type": {"type": "array", "items": "string"}}, {"name": "doc", "type": {"type": "map", "values": "long"}},
    {"name": "raw", "type": {"type": "fixed", "name": "f", "size": 3}}, {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
    {"name": "flag", "type": "boolean"}, {"name": "color", "type": {"type": "enum", "name": "e", "symbols": ["A", "B"]}},
    {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "i", "fields": [{"name": "n", "type": "int"}]}}}]}"#;
/// The schema of the registry.
const SCHEMA_ID: u32 = 7;

/// What messages are: the decoder's properties, and what else the table's ingestion has.
fn decoders() -> [(String, &'static str); 9] {
    let class =
        |name: &str, more: &str| format!(r#", "stream.log.decoder.class.name": "x.{name}" {more}"#);
    let avro = serde_json::json!(AVRO);
    let descriptors = BASE64.encode(descriptors());
    [
        (String::new(), ""),
        (
            r#", "stream.log.metadata.populate": "true""#.to_owned(),
            UNNESTED,
        ),
        (
            class(
                "SimpleAvroMessageDecoder",
                &format!(r#", "stream.log.decoder.prop.schema": {avro}"#),
            ),
            "",
        ),
        (
            class(
                "SimpleAvroMessageDecoder",
                &format!(r#", "stream.log.decoder.prop.schema": {avro}"#),
            ),
            UNNESTED,
        ),
        (
            class(
                "KafkaConfluentSchemaRegistryAvroMessageDecoder",
                r#", "stream.log.decoder.prop.schema.registry.rest.url": "http://REGISTRY""#,
            ),
            "",
        ),
        (
            class(
                "CSVMessageDecoder",
                r#", "stream.log.decoder.prop.header": "day,name,tags,n,ratio,date""#,
            ),
            "",
        ),
        (
            class(
                "CSVMessageDecoder",
                r#", "stream.log.decoder.prop.fileFormat": "MYSQL", "stream.log.decoder.prop.header": "day\tname\ttags""#,
            ),
            "",
        ),
        (
            class(
                "ProtoBufMessageDecoder",
                &format!(
                    r#", "stream.log.decoder.prop.descriptorSet": "{descriptors}", "stream.log.decoder.prop.protoClassName": "p.Row""#
                ),
            ),
            "",
        ),
        (
            class(
                "ProtoBufMessageDecoder",
                &format!(
                    r#", "stream.log.decoder.prop.descriptorSet": "{descriptors}", "stream.log.decoder.prop.protoClassName": "p.Row""#
                ),
            ),
            UNNESTED,
        ),
    ]
}

const COMPRESSIONS: [&str; 5] = ["none", "gzip", "zstd", "lz4", "snappy"];

fn descriptors() -> Vec<u8> {
    let field = |name: &str, number: i32, kind: Type| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(Label::Optional.into()),
        ..FieldDescriptorProto::default()
    };
    let repeated = |field: FieldDescriptorProto| FieldDescriptorProto {
        label: Some(Label::Repeated.into()),
        ..field
    };
    let of_type = |field: FieldDescriptorProto, name: &str| FieldDescriptorProto {
        type_name: Some(name.to_owned()),
        ..field
    };
    let inner = DescriptorProto {
        name: Some("Inner".to_owned()),
        field: vec![
            field("n", 1, Type::Int64),
            field("a", 2, Type::String),
            // A message within itself, as deep as it likes.
            of_type(field("inner", 3, Type::Message), ".p.Inner"),
        ],
        ..DescriptorProto::default()
    };
    let row = DescriptorProto {
        name: Some("Row".to_owned()),
        field: vec![
            field("day", 1, Type::Int32),
            field("name", 2, Type::String),
            repeated(field("tags", 3, Type::String)),
            of_type(field("doc", 4, Type::Message), ".p.Inner"),
            field("ratio", 5, Type::Double),
            repeated(of_type(field("items", 6, Type::Message), ".p.Inner")),
            field("raw", 7, Type::Bytes),
            repeated(field("codes", 8, Type::Sint64)),
        ],
        ..DescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("row.proto".to_owned()),
        package: Some("p".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![inner, row],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

/// A registry that holds one schema, asked once.
fn registry() -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let place = listener
        .local_addr()
        .expect("it has an address")
        .to_string();
    let answering = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("it is asked");
        let mut request = [0; 4_096];
        let _ = socket.read(&mut request);
        let body = serde_json::json!({"schema": AVRO}).to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = socket.write_all(answer.as_bytes());
    });
    (place, answering)
}

fn config(properties: &str, compression: &str, more: &str) -> TableConfig {
    let stream = format!(
        r#", "streamIngestionConfig": {{"streamConfigMaps": [{{"streamType": "log", "stream.log.decoder.prop.compression": "{compression}",
            "stream.log.message.bytes.max": 100000 {properties}}}]}} {more}"#
    );
    table("REALTIME", &stream)
}

fn all_decoders() -> Vec<Decoder> {
    let mut all = Vec::new();
    let (place, answering) = registry();
    let mut registry = None;
    for (properties, more) in decoders() {
        let properties = properties.replace("REGISTRY", &place);
        for compression in COMPRESSIONS {
            let config = config(&properties, compression, more);
            let stream = &config.streams[0];
            if let MessageFormat::RegisteredAvro { registry: url } = &stream.decoder.format
                && registry.is_none()
            {
                let made = Arc::new(SchemaRegistry::new(url.clone(), Environment::real()));
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let runtime = runtime.expect("a runtime");
                runtime
                    .block_on(made.fetch(SCHEMA_ID))
                    .expect("the schema is there");
                registry = Some(made);
            }
            let decoder = Decoder::new(&config, stream, 0, registry.clone());
            all.push(decoder.expect("the decoder's properties are right"));
        }
    }
    answering.join().expect("the registry was asked");
    all
}

thread_local! {
    static DECODERS: RefCell<Vec<Decoder>> = RefCell::new(all_decoders());
}

/// The decoder that the first byte names decodes the rest.
pub fn messages(data: &[u8]) -> bool {
    let Some((which, payload)) = data.split_first() else {
        return false;
    };
    DECODERS.with_borrow_mut(|decoders| {
        let count = decoders.len();
        let number = usize::from(*which & 0x7f) % count;
        let decoder = &mut decoders[number];
        let payload = match which & 0x80 {
            0 => payload.to_vec(),
            _ => compressed(COMPRESSIONS[number % COMPRESSIONS.len()], payload),
        };
        let message = |offset, payload: &[u8]| Message {
            offset,
            key: Some(vec![1, 2].into()),
            payload: payload.to_vec().into(),
            timestamp_ms: 5,
            headers: vec![("h".into(), vec![0xff].into())],
        };
        let messages = [message(3, &payload), message(4, &payload)];
        let decoded = decoder.decode(&messages);
        assert_eq!(decoded.batch.num_rows(), decoded.offsets.len());
        assert!(decoded.offsets.is_sorted());
        let is_stopped = match &decoded.stopped {
            None => false,
            Some(Stopped::Schema(id)) => {
                assert_ne!(*id, SCHEMA_ID);
                true
            }
            Some(Stopped::Wrong(_)) => panic!("none of them is strict"),
        };
        assert_eq!(decoded.read, if is_stopped { 0 } else { 2 });
        // The same bytes end in the same way.
        let of = |offset| decoded.offsets.iter().filter(|o| **o == offset).count();
        assert_eq!(of(3), of(4));
        assert_ne!(decoded.rejected.len(), 1);
        for column in decoded.batch.columns() {
            column
                .to_data()
                .validate_full()
                .expect("the rows are whole");
        }
        decoded.rejected.is_empty() && decoded.read == 2
    })
}

fn compressed(compression: &str, bytes: &[u8]) -> Vec<u8> {
    match compression {
        "gzip" => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            to.write_all(bytes).expect("it is compressed");
            to.finish().expect("it is compressed")
        }
        "zstd" => zstd::encode_all(bytes, 1).expect("it is compressed"),
        "lz4" => {
            let mut to = lz4_flex::frame::FrameEncoder::new(Vec::new());
            to.write_all(bytes).expect("it is compressed");
            to.finish().expect("it is compressed")
        }
        "snappy" => snap::raw::Encoder::new()
            .compress_vec(bytes)
            .expect("it is compressed"),
        _ => bytes.to_vec(),
    }
}

/// A right message for each decoder and compression.
pub fn seeds_of_messages() -> Vec<Vec<u8>> {
    let json = br#"{"day": 16092, "name": "a\"b\u00e9", "n": 1, "price": 12345678901234567890.123456, "tags": ["x", null, "y"], "codes": [1, 2], "ratio": 1e-3,
        "doc": {"k": [1, {"a": null}]}, "flag": true, "raw": "00ff", "date": "2026-01-02", "items": [{"n": 1, "parts": [{"p": 1}, {"p": 2}]}, {"n": 2}]}"#;
    let schema = apache_avro::Schema::parse_str(AVRO).expect("the schema is right");
    let record = Value::Record(vec![
        ("day".into(), Value::Int(16_092)),
        (
            "name".into(),
            Value::Union(1, Box::new(Value::String("a".into()))),
        ),
        ("tags".into(), Value::Array(vec![Value::String("x".into())])),
        (
            "doc".into(),
            Value::Map([("k".to_owned(), Value::Long(1))].into()),
        ),
        ("raw".into(), Value::Fixed(3, vec![1, 2, 3])),
        ("price".into(), Value::Decimal(vec![1, 2].into())),
        ("flag".into(), Value::Boolean(true)),
        ("color".into(), Value::Enum(1, "B".into())),
        (
            "items".into(),
            Value::Array(vec![Value::Record(vec![("n".into(), Value::Int(1))])]),
        ),
    ]);
    let avro = apache_avro::to_avro_datum(&schema, record).expect("the record fits");
    let framed = [&[0][..], &SCHEMA_ID.to_be_bytes(), &avro].concat();
    let proto = [
        &[
            0x08, 0xdc, 0x7d, 0x12, 1, b'a', 0x1a, 1, b'x', 0x1a, 1, b'y',
        ][..],
        &[
            0x22, 4, 0x08, 5, 0x12, 0, 0x29, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f,
        ],
        &[
            0x32, 2, 0x08, 1, 0x32, 4, 0x1a, 2, 0x08, 2, 0x3a, 2, 0, 0xff, 0x42, 2, 3, 4,
        ],
    ]
    .concat();
    let payloads: [&[u8]; 9] = [
        json,
        json,
        &avro,
        &avro,
        &framed,
        b"16092,\"a,\"\"b\",x;y,1,0.5,2026-01-02",
        b"16092\ta\\tb\tx;y",
        &proto,
        &proto,
    ];
    let numbered = payloads
        .iter()
        .flat_map(|payload| COMPRESSIONS.map(|by| (payload, by)));
    let seeds = |(number, (payload, by)): (u8, (&&[u8], &str))| {
        let here = [&[number | 0x80][..], payload].concat();
        [here, [&[number][..], &compressed(by, payload)].concat()]
    };
    (0..).zip(numbered).flat_map(seeds).collect()
}
