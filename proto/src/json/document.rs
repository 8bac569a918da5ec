//! A document as a tree of what it holds: nulls, and objects and arrays without content, are left out.

use super::number::canonical;
use super::reader::{DEPTH_MAX, JsonReader};
use std::borrow::Cow;

/// A value that is there.
#[derive(Clone, Debug, PartialEq)]
pub enum Document<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A number as it is written.
    Number(&'a str),
    /// True or false.
    Boolean(bool),
    /// Elements with their places, ascending; at least one.
    Array(Vec<(u32, Document<'a>)>),
    /// Fields by name, ascending, each once; at least one.
    Object(Vec<(Cow<'a, str>, Document<'a>)>),
}

impl<'a> Document<'a> {
    /// Reads a document; none when it has no content. Of a field that is there twice the last counts.
    ///
    /// # Errors
    /// What is wrong with the text, and at which byte.
    pub fn parse(text: &'a str) -> Result<Option<Self>, String> {
        let mut reader = JsonReader::new(text);
        let document = read(&mut reader, 0)?;
        reader.end()?;
        Ok(document)
    }

    /// The text that a scalar is compared by: a string's own, a number's canonical one.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Number(number) => Some(canonical(number)),
            Self::Boolean(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
            Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The field of an object.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else {
            return None;
        };
        let at = fields
            .binary_search_by(|(field, _)| field.as_ref().cmp(name))
            .ok()?;
        fields.get(at).map(|(_, value)| value)
    }
}

fn read<'a>(reader: &mut JsonReader<'a>, depth: usize) -> Result<Option<Document<'a>>, String> {
    if depth > DEPTH_MAX {
        return Err(format!(
            "not supported: JSON nested more than {DEPTH_MAX} deep"
        ));
    }
    reader.skip_space();
    let start = reader.at();
    Ok(match reader.peek() {
        Some(b'"') => Some(Document::Text(reader.string()?)),
        Some(b'-' | b'0'..=b'9') => {
            reader.skip_number()?;
            Some(Document::Number(reader.since(start)))
        }
        Some(b'{') => {
            reader.step();
            let mut fields: Vec<(Cow<'a, str>, Option<Document<'a>>)> = Vec::new();
            let mut ended = reader.is_first_end(b'}');
            while !ended {
                let name = reader.key()?;
                fields.push((name, read(reader, depth + 1)?));
                ended = reader.is_end(b'}')?;
            }
            // Of equal names the last comes first, and stays.
            fields.reverse();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            fields.dedup_by(|(a, _), (b, _)| a == b);
            let held = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            let held: Vec<_> = held.collect();
            (!held.is_empty()).then_some(Document::Object(held))
        }
        Some(b'[') => {
            reader.step();
            let mut elements = Vec::new();
            let mut place = 0u32;
            let mut ended = reader.is_first_end(b']');
            while !ended {
                if let Some(element) = read(reader, depth + 1)? {
                    elements.push((place, element));
                }
                place = place.saturating_add(1);
                ended = reader.is_end(b']')?;
            }
            (!elements.is_empty()).then_some(Document::Array(elements))
        }
        Some(b't') => reader
            .word("true")
            .map(|()| Some(Document::Boolean(true)))?,
        Some(b'f') => reader
            .word("false")
            .map(|()| Some(Document::Boolean(false)))?,
        Some(b'n') => reader.word("null").map(|()| None)?,
        _ => return Err(reader.wrong("expected a value")),
    })
}
