//! Avro values as cells, for files and for messages.

use super::cell::Cell;
use super::decimal;
use super::flatten::Fields;
use super::row::RowLayout;
use apache_avro::Schema as AvroSchema;
use apache_avro::schema::{Name, RecordSchema};
use apache_avro::types::Value;
use std::borrow::Cow;
use std::sync::Once;

/// Bytes of one block, text or count that a decoder believes before it has read them.
const ALLOCATION_BYTES_MAX: usize = 128 << 20;

/// Sets the decoder's limit, once for the process.
pub(crate) fn limit_allocation() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        apache_avro::util::max_allocation_bytes(ALLOCATION_BYTES_MAX);
    });
}

/// The record that a schema describes. Schemas that contain themselves are refused (a datum could nest
/// without end), and so are arrays of nothing (a few bytes could claim any number of elements).
pub(crate) fn record(schema: &AvroSchema) -> Result<&RecordSchema, String> {
    check(schema, &mut Vec::new())?;
    match schema {
        AvroSchema::Record(record) => Ok(record),
        _ => Err("the Avro schema is no record".to_owned()),
    }
}

fn check<'s>(schema: &'s AvroSchema, within: &mut Vec<&'s Name>) -> Result<(), String> {
    match schema {
        AvroSchema::Record(record) => {
            within.push(&record.name);
            record
                .fields
                .iter()
                .try_for_each(|field| check(&field.schema, within))?;
            within.pop();
            Ok(())
        }
        AvroSchema::Ref { name } if within.contains(&name) => Err(format!(
            "not supported: the Avro record {name} contains itself"
        )),
        AvroSchema::Array(array) => {
            if matches!(*array.items, AvroSchema::Null) {
                return Err("not supported: an Avro array of nulls".to_owned());
            }
            if matches!(&*array.items, AvroSchema::Record(record) if record.fields.is_empty()) {
                return Err("not supported: an Avro array of empty records".to_owned());
            }
            check(&array.items, within)
        }
        AvroSchema::Map(map) => check(&map.types, within),
        AvroSchema::Union(union) => union
            .variants()
            .iter()
            .try_for_each(|variant| check(variant, within)),
        _ => Ok(()),
    }
}

/// Where each field of a record goes, with its schema.
#[derive(Debug)]
pub(crate) struct AvroFields {
    slots: Vec<Option<usize>>,
    schemas: Vec<AvroSchema>,
}

impl AvroFields {
    pub(crate) fn new(record: &RecordSchema, layout: &RowLayout) -> Self {
        Self {
            slots: record
                .fields
                .iter()
                .map(|field| layout.slot(&field.name))
                .collect(),
            schemas: record
                .fields
                .iter()
                .map(|field| field.schema.clone())
                .collect(),
        }
    }

    /// Whether no field goes anywhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    /// All of a record's values, by name.
    pub(crate) fn all<'v>(&self, datum: &'v Value) -> Result<Fields<'v>, String> {
        let Value::Record(fields) = datum else {
            return Err("the Avro datum is no record".to_owned());
        };
        let fields = fields.iter().zip(&self.schemas);
        fields
            .map(|((name, value), schema)| {
                let cell = cell(value, schema).map_err(|why| format!("column {name}: {why}"))?;
                Ok((Cow::Borrowed(name.as_str()), cell))
            })
            .collect()
    }

    /// A record's values as cells of the layout.
    pub(crate) fn fill<'v>(
        &self,
        datum: &'v Value,
        width: usize,
        cells: &mut Vec<Cell<'v>>,
    ) -> Result<(), String> {
        cells.clear();
        cells.resize(width, Cell::Null);
        let Value::Record(fields) = datum else {
            return Err("the Avro datum is no record".to_owned());
        };
        for (((name, value), slot), schema) in fields.iter().zip(&self.slots).zip(&self.schemas) {
            if let Some(target) = slot.and_then(|slot| cells.get_mut(slot)) {
                *target =
                    cell(value, schema).map_err(|reason| format!("column {name}: {reason}"))?;
            }
        }
        Ok(())
    }
}

/// One value, by its writer's schema (which alone knows a decimal's scale).
fn cell<'v>(value: &'v Value, schema: &AvroSchema) -> Result<Cell<'v>, String> {
    Ok(match value {
        Value::Null => Cell::Null,
        Value::Boolean(v) => Cell::Boolean(*v),
        Value::Int(v) | Value::TimeMillis(v) => Cell::Integer(i64::from(*v)),
        Value::Long(v) | Value::TimeMicros(v) => Cell::Integer(*v),
        Value::Float(v) => Cell::Float(*v),
        Value::Double(v) => Cell::Double(*v),
        Value::Bytes(v) | Value::Fixed(_, v) => Cell::Bytes(Cow::Borrowed(v)),
        Value::String(v) | Value::Enum(_, v) => Cell::Text(Cow::Borrowed(v)),
        Value::Union(at, inner) => {
            let variant = match schema {
                AvroSchema::Union(union) => union.variants().get(*at as usize).unwrap_or(schema),
                _ => schema,
            };
            cell(inner, variant)?
        }
        Value::Array(list) => {
            let items = match schema {
                AvroSchema::Array(array) => &array.items,
                _ => schema,
            };
            Cell::List(
                list.iter()
                    .map(|element| cell(element, items))
                    .collect::<Result<_, _>>()?,
            )
        }
        Value::Date(day) => Cell::Date(*day),
        Value::Decimal(v) => {
            let AvroSchema::Decimal(spec) = schema else {
                return Err(
                    "not supported: a decimal whose Avro type is defined elsewhere in the schema"
                        .to_owned(),
                );
            };
            let bytes =
                Vec::<u8>::try_from(v).map_err(|e| format!("a decimal can't be read: {e}"))?;
            let scale = i8::try_from(spec.scale)
                .map_err(|_| "a decimal with more than 127 digits after the point")?;
            Cell::Decimal {
                unscaled: big_endian(&bytes)?,
                scale,
            }
        }
        Value::BigDecimal(v) => {
            let text = v.to_string();
            let (unscaled, scale) =
                decimal::parse(&text).ok_or("a decimal of more than 38 digits")?;
            let scale = i8::try_from(scale)
                .map_err(|_| "a decimal with more than 127 digits after the point")?;
            Cell::Decimal { unscaled, scale }
        }
        Value::TimestampMillis(ms) | Value::LocalTimestampMillis(ms) => Cell::Timestamp(*ms),
        Value::TimestampMicros(us) | Value::LocalTimestampMicros(us) => {
            Cell::Timestamp(us.div_euclid(1_000))
        }
        Value::TimestampNanos(ns) | Value::LocalTimestampNanos(ns) => {
            Cell::Timestamp(ns.div_euclid(1_000_000))
        }
        Value::Uuid(v) => Cell::Text(Cow::Owned(v.to_string())),
        Value::Map(_) | Value::Record(_) => {
            let mut out = String::new();
            write_json(value, schema, &mut out)?;
            Cell::Document(Cow::Owned(out))
        }
        Value::Duration(_) => return Err("not supported: Avro durations".to_owned()),
    })
}

fn write_json(value: &Value, schema: &AvroSchema, out: &mut String) -> Result<(), String> {
    let mut fields: Vec<(&str, &Value, &AvroSchema)> = match (value, schema) {
        (Value::Union(at, inner), AvroSchema::Union(union)) => {
            return write_json(
                inner,
                union.variants().get(*at as usize).unwrap_or(schema),
                out,
            );
        }
        (Value::Array(list), AvroSchema::Array(array)) => {
            out.push('[');
            for (i, element) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(element, &array.items, out)?;
            }
            out.push(']');
            return Ok(());
        }
        (Value::Map(map), AvroSchema::Map(types)) => map
            .iter()
            .map(|(name, value)| (name.as_str(), value, &*types.types))
            .collect(),
        (Value::Record(fields), AvroSchema::Record(record)) => fields
            .iter()
            .zip(&record.fields)
            .map(|((name, value), field)| (name.as_str(), value, &field.schema))
            .collect(),
        _ => {
            super::scalar::write_json(&cell_of_leaf(value, schema)?, out);
            return Ok(());
        }
    };
    if matches!(value, Value::Map(_)) {
        // A map has no order of its own; text must have one.
        fields.sort_by_key(|(name, ..)| *name);
    }
    out.push('{');
    for (i, (name, value, schema)) in fields.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        super::json::write_string(name, out);
        out.push(':');
        write_json(value, schema, out)?;
    }
    out.push('}');
    Ok(())
}

fn cell_of_leaf<'v>(value: &'v Value, schema: &AvroSchema) -> Result<Cell<'v>, String> {
    match value {
        // Their schema is a reference by name, which is not followed.
        Value::Map(_) | Value::Record(_) => Err(
            "not supported: nested Avro types that are defined elsewhere in the schema".to_owned(),
        ),
        _ => cell(value, schema),
    }
}

/// A two's complement number, largest byte first.
fn big_endian(bytes: &[u8]) -> Result<i128, String> {
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    let (high, low) = bytes.split_at(extra);
    if high.iter().any(|b| *b != fill)
        || (extra > 0 && low.first().is_some_and(|b| (b & 0x80 != 0) != negative))
    {
        return Err("a decimal of more than 38 digits".to_owned());
    }
    let mut padded = [fill; 16];
    for (to, from) in padded.iter_mut().rev().zip(low.iter().rev()) {
        *to = *from;
    }
    Ok(i128::from_be_bytes(padded))
}
