//! The values that a path leads to, found in one pass over the text; what lies beside the path is checked and skipped.

use super::path::{Index, JsonPath, Step};
use super::reader::{DEPTH_MAX, JsonReader};
use std::borrow::Cow;

/// One value of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonValue<'a> {
    /// `null`.
    Null,
    /// True or false.
    Boolean(bool),
    /// A number as it is written.
    Number(&'a str),
    /// A string.
    Text(Cow<'a, str>),
    /// An object or array as it is written.
    Nested(&'a str),
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'a> {
    /// Nothing is there.
    Missing,
    /// A path without `[*]`.
    One(JsonValue<'a>),
    /// A path with `[*]`, of which at least one array is there.
    Many(Vec<JsonValue<'a>>),
}

/// What `path` leads to in the document `text`. Of a field that is there twice the last counts.
///
/// # Errors
/// What is wrong with the text, and at which byte.
pub fn extract<'a>(text: &'a str, path: &JsonPath) -> Result<Found<'a>, String> {
    let mut reader = JsonReader::new(text);
    let found = find(&mut reader, &path.steps, 0)?;
    reader.end()?;
    Ok(found)
}

fn find<'a>(
    reader: &mut JsonReader<'a>,
    steps: &[Step],
    depth: usize,
) -> Result<Found<'a>, String> {
    let Some((step, rest)) = steps.split_first() else {
        return value(reader, depth).map(Found::One);
    };
    if depth > DEPTH_MAX {
        return Err(format!(
            "not supported: JSON nested more than {DEPTH_MAX} deep"
        ));
    }
    reader.skip_space();
    let mut found = Found::Missing;
    match (step, reader.peek()) {
        (Step::Field(wanted), Some(b'{')) => {
            reader.step();
            let mut ended = reader.is_first_end(b'}');
            while !ended {
                if reader.key()? == wanted.as_str() {
                    found = find(reader, rest, depth + 1)?;
                } else {
                    reader.skip_value(depth + 1)?;
                }
                ended = reader.is_end(b'}')?;
            }
        }
        (Step::Element(index), Some(b'[')) => {
            reader.step();
            let mut many = Vec::new();
            let mut place = 0u64;
            let mut ended = reader.is_first_end(b']');
            while !ended {
                match index {
                    Index::Any => match find(reader, rest, depth + 1)? {
                        Found::Missing => {}
                        Found::One(value) => many.push(value),
                        Found::Many(values) => many.extend(values),
                    },
                    Index::At(wanted) if u64::from(*wanted) == place => {
                        found = find(reader, rest, depth + 1)?;
                    }
                    Index::At(_) => reader.skip_value(depth + 1)?,
                }
                place += 1;
                ended = reader.is_end(b']')?;
            }
            if *index == Index::Any {
                found = Found::Many(many);
            }
        }
        _ => reader.skip_value(depth)?,
    }
    Ok(found)
}

fn value<'a>(reader: &mut JsonReader<'a>, depth: usize) -> Result<JsonValue<'a>, String> {
    reader.skip_space();
    let start = reader.at();
    match reader.peek() {
        Some(b'"') => reader.string().map(JsonValue::Text),
        first => {
            reader.skip_value(depth)?;
            let text = reader.since(start);
            Ok(match first {
                Some(b't') => JsonValue::Boolean(true),
                Some(b'f') => JsonValue::Boolean(false),
                Some(b'n') => JsonValue::Null,
                Some(b'{' | b'[') => JsonValue::Nested(text),
                _ => JsonValue::Number(text),
            })
        }
    }
}

/// A document's text without spaces between its tokens.
pub fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if matches!(c, ' ' | '\n' | '\t' | '\r') {
            continue;
        } else {
            quoted = c == '"';
        }
        out.push(c);
    }
    out
}

impl<'a> Found<'a> {
    /// The elements of a list: of an array, or what `[*]` leads to; none when it is a single value or nothing.
    ///
    /// # Errors
    /// Never for what [`extract`] found.
    pub fn elements(self) -> Result<Option<Vec<JsonValue<'a>>>, String> {
        match self {
            Self::Many(values) => Ok(Some(values)),
            Self::One(JsonValue::Nested(text)) if text.starts_with('[') => {
                let any = JsonPath {
                    steps: vec![Step::Element(Index::Any)],
                };
                match extract(text, &any)? {
                    Found::Many(values) => Ok(Some(values)),
                    _ => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}
