//! Protobuf messages by a descriptor set (`ProtoBufMessageDecoder`), as `protoc --include_imports --descriptor_set_out` makes it.
//!
//! A field's column has its name. What was not sent is null where the schema tells it apart (`optional`, messages, members
//! of a oneof), and else the type's default, as Protobuf means it. An enum is its value's name; `google.protobuf.Timestamp` is
//! a time, its wrappers (`Int64Value`) are what they wrap; other messages and maps are JSON.

use crate::convert::{Cell, json, scalar};
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use std::borrow::Cow;

/// Messages inside of messages that are written as JSON.
const DEPTH_MAX: usize = 100;

/// The message type in a descriptor set.
pub(super) fn message_type(set: &[u8], name: &str) -> Result<MessageDescriptor, String> {
    let pool = super::guarded(|| DescriptorPool::decode(set))?.map_err(|e| {
        format!("not a descriptor set of Protobuf, or one without its imports: {e}")
    })?;
    let found = pool.get_message_by_name(name);
    // A name without its package, when it is the only one.
    let by_end = || {
        let mut all = (pool.all_messages()).filter(|m| m.name() == name);
        all.next().filter(|_| all.next().is_none())
    };
    found.or_else(by_end).ok_or_else(|| {
        let all: Vec<String> = (pool.all_messages())
            .filter(|m| !m.is_map_entry())
            .take(20)
            .map(|m| m.full_name().to_owned())
            .collect();
        format!(
            "the descriptor set has no message {name}; it has {}",
            all.join(", ")
        )
    })
}

/// The record in a message's bytes.
pub(super) fn read(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, String> {
    let read = || DynamicMessage::decode(descriptor.clone(), bytes);
    super::guarded(read)?.map_err(|e| format!("not a {} in Protobuf: {e}", descriptor.full_name()))
}

/// A record's fields; `wanted` says of which.
pub(super) fn fields<'m>(
    record: &'m DynamicMessage,
    descriptor: &'m MessageDescriptor,
    wanted: impl Fn(&str) -> bool,
    mut each: impl FnMut(&str, Cell<'static>),
) -> Result<(), String> {
    for field in descriptor.fields().filter(|f| wanted(f.name())) {
        if field.supports_presence() && !record.has_field(&field) {
            continue;
        }
        let value = record.get_field(&field);
        let cell = cell(&value, &field.kind(), DEPTH_MAX)
            .map_err(|reason| format!("column {}: {reason}", field.name()))?;
        each(field.name(), cell);
    }
    Ok(())
}

fn cell(value: &Value, kind: &Kind, depth: usize) -> Result<Cell<'static>, String> {
    let text = |text: String| Cell::Text(Cow::Owned(text));
    Ok(match value {
        Value::Bool(v) => Cell::Boolean(*v),
        Value::I32(v) => Cell::Integer(i64::from(*v)),
        Value::I64(v) => Cell::Integer(*v),
        Value::U32(v) => Cell::Integer(i64::from(*v)),
        Value::U64(v) => match i64::try_from(*v) {
            Ok(v) => Cell::Integer(v),
            Err(_) => Cell::Decimal {
                unscaled: i128::from(*v),
                scale: 0,
            },
        },
        Value::F32(v) => Cell::Float(*v),
        Value::F64(v) => Cell::Double(*v),
        Value::String(v) => text(v.clone()),
        Value::Bytes(v) => Cell::Bytes(Cow::Owned(v.to_vec())),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(values) => match values.get_value(*number) {
                Some(value) => text(value.name().to_owned()),
                None => Cell::Integer(i64::from(*number)),
            },
            _ => Cell::Integer(i64::from(*number)),
        },
        Value::Message(inner) => match known(inner)? {
            Some(cell) => cell,
            None => {
                let mut out = String::new();
                write_message(inner, &mut out, depth)?;
                Cell::Document(Cow::Owned(out))
            }
        },
        Value::List(list) => Cell::List(
            list.iter()
                .map(|element| cell(element, kind, depth))
                .collect::<Result<_, _>>()?,
        ),
        Value::Map(_) => {
            let mut out = String::new();
            write_value(value, kind, &mut out, depth)?;
            Cell::Document(Cow::Owned(out))
        }
    })
}

/// Well-known messages that stand for one value.
fn known(message: &DynamicMessage) -> Result<Option<Cell<'static>>, String> {
    let descriptor = message.descriptor();
    let number = |name: &str| {
        let value = message.get_field_by_name(name);
        value.and_then(|v| v.as_i64().or(v.as_i32().map(i64::from)))
    };
    Ok(Some(match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let (Some(seconds), Some(nanos)) = (number("seconds"), number("nanos")) else {
                return Ok(None);
            };
            let ms = seconds
                .checked_mul(1_000)
                .and_then(|ms| ms.checked_add(nanos.div_euclid(1_000_000)));
            Cell::Timestamp(ms.ok_or("the time is outside the range of milliseconds")?)
        }
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => {
            let field = descriptor.get_field_by_name("value");
            let Some(field) = field else {
                return Ok(None);
            };
            cell(&message.get_field(&field), &field.kind(), 0)?
        }
        _ => return Ok(None),
    }))
}

fn write_message(message: &DynamicMessage, out: &mut String, depth: usize) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or("messages are nested too deep")?;
    out.push('{');
    let mut first = true;
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        json::write_string(field.name(), out);
        out.push(':');
        write_value(&message.get_field(&field), &field.kind(), out, depth)?;
    }
    out.push('}');
    Ok(())
}

fn write_value(value: &Value, kind: &Kind, out: &mut String, depth: usize) -> Result<(), String> {
    match value {
        Value::Message(inner) => match known(inner)? {
            Some(cell) => scalar::write_json(&cell, out),
            None => write_message(inner, out, depth)?,
        },
        Value::List(list) => {
            out.push('[');
            for (at, element) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_value(element, kind, out, depth)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            let kind = match kind {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other.clone(),
            };
            // A map has no order of its own; text must have one.
            let mut entries: Vec<(String, &Value)> = map
                .iter()
                .map(|(key, value)| (key_text(key), value))
                .collect();
            entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                json::write_string(&key, out);
                out.push(':');
                write_value(value, &kind, out, depth)?;
            }
            out.push('}');
        }
        plain => scalar::write_json(&cell(plain, kind, depth)?, out),
    }
    Ok(())
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(v) => v.to_string(),
        MapKey::I32(v) => v.to_string(),
        MapKey::I64(v) => v.to_string(),
        MapKey::U32(v) => v.to_string(),
        MapKey::U64(v) => v.to_string(),
        MapKey::String(v) => v.clone(),
    }
}
