//! JSON objects and arrays as cells that borrow from their text.
//!
//! Numbers stay text until a column's type is known, nested objects and arrays stay text as well.

use super::cell::Cell;
use std::borrow::Cow;
use strandline_proto::json::JsonReader;
pub(crate) use strandline_proto::json::{check, write_string};

/// Reads the fields of one JSON object, in order, each as `(name, value)`; duplicates are all handed over.
pub fn read_object<'a>(text: &'a str, mut field: impl FnMut(&str, Cell<'a>)) -> Result<(), String> {
    read_members(text, |reader, _| {
        let name = reader.key()?;
        field(&name, value(reader)?);
        Ok(())
    })
}

/// Reads the members of one JSON object, in order. `member` is called where one begins, with its position, and moves past
/// its name, the colon and the value.
#[inline]
pub(crate) fn read_members<'a>(
    text: &'a str,
    mut member: impl FnMut(&mut JsonReader<'a>, usize) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = JsonReader::new(text);
    reader.skip_space();
    if reader.peek() != Some(b'{') {
        return Err(reader.wrong("expected a JSON object"));
    }
    reader.step();
    if reader.is_first_end(b'}') {
        return reader.end();
    }
    for position in 0.. {
        reader.skip_space();
        member(&mut reader, position)?;
        if reader.is_end(b'}')? {
            break;
        }
    }
    reader.end()
}

/// Reads the elements of a JSON array's text.
pub(crate) fn read_array<'a>(
    text: &'a str,
    mut element: impl FnMut(Cell<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = JsonReader::new(text);
    reader.skip_space();
    if reader.peek() != Some(b'[') {
        return Err(reader.wrong("expected a JSON array"));
    }
    reader.step();
    if reader.is_first_end(b']') {
        return reader.end();
    }
    loop {
        let value = value(&mut reader)?;
        element(value)?;
        if reader.is_end(b']')? {
            return reader.end();
        }
    }
}

/// The value that comes next.
pub(crate) fn value<'a>(reader: &mut JsonReader<'a>) -> Result<Cell<'a>, String> {
    reader.skip_space();
    let start = reader.at();
    match reader.peek() {
        Some(b'"') => Ok(Cell::Text(reader.string()?)),
        Some(b'-' | b'0'..=b'9') => {
            reader.skip_number()?;
            Ok(Cell::Number(reader.since(start)))
        }
        Some(b'{') => {
            reader.skip_value(0)?;
            Ok(Cell::Document(Cow::Borrowed(reader.since(start))))
        }
        Some(b'[') => {
            reader.skip_value(0)?;
            Ok(Cell::JsonArray(reader.since(start)))
        }
        Some(b't') => reader.word("true").map(|()| Cell::Boolean(true)),
        Some(b'f') => reader.word("false").map(|()| Cell::Boolean(false)),
        Some(b'n') => reader.word("null").map(|()| Cell::Null),
        _ => Err(reader.wrong("expected a value")),
    }
}
