//! Paths into JSON documents: `$.order.lines[0]['unit price']`. No wildcards, filters or recursion: a path
//! names one value.

use crate::convert::{Cell, json, scalar};
use std::borrow::Cow;
use strandline_proto::{Error, Result};

/// A path to one value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Element(usize),
}

impl JsonPath {
    /// Reads a path's text.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let unsupported = || {
            Error::unsupported(format!(
                "not supported: the JSON path '{text}'; write it as $.a.b[0] or $['a b']"
            ))
        };
        let mut rest = text.trim().strip_prefix('$').ok_or_else(unsupported)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("['") {
                let (name, after) = after.split_once("']").ok_or_else(unsupported)?;
                steps.push(Step::Field(name.to_owned()));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (index, after) = after.split_once(']').ok_or_else(unsupported)?;
                steps.push(Step::Element(
                    index.trim().parse().map_err(|_| unsupported())?,
                ));
                rest = after;
            } else {
                let after = rest.strip_prefix('.').ok_or_else(unsupported)?;
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let (name, after) = after.split_at(end);
                if name.is_empty() || name.contains(['*', '?', '(', '@']) {
                    return Err(unsupported());
                }
                steps.push(Step::Field(name.to_owned()));
                rest = after;
            }
        }
        Ok(Self(steps))
    }

    /// The value in a document; none when the path leads nowhere or to null. Text that is no document is an error.
    pub(super) fn find(&self, document: &Cell<'_>) -> Result<Option<Cell<'static>>, String> {
        let mut text: Cow<'_, str> = match document {
            Cell::Text(text) | Cell::Document(text) => Cow::Borrowed(text),
            Cell::JsonArray(text) => Cow::Borrowed(text),
            other => {
                let mut out = String::new();
                scalar::write_json(other, &mut out);
                Cow::Owned(out)
            }
        };
        json::check(&text)?;
        for step in &self.0 {
            let mut found = None;
            let start = text.trim_start().as_bytes().first().copied();
            match (step, start) {
                (Step::Field(wanted), Some(b'{')) => json::read_object(&text, |name, value| {
                    if name == wanted {
                        found = Some(to_text(&value));
                    }
                })?,
                (Step::Element(wanted), Some(b'[')) => {
                    let mut at = 0;
                    json::read_array(&text, |value| {
                        if at == *wanted {
                            found = Some(to_text(&value));
                        }
                        at += 1;
                        Ok(())
                    })?;
                }
                _ => {}
            }
            match found {
                Some(inner) => text = Cow::Owned(inner),
                None => return Ok(None),
            }
        }
        // One value as the only element of an array is read by the one reader there is.
        let mut value = None;
        json::read_array(&format!("[{text}]"), |cell| {
            value = match cell {
                Cell::Null => None,
                Cell::Text(text) => Some(Cell::Text(Cow::Owned(text.into_owned()))),
                Cell::Boolean(v) => Some(Cell::Boolean(v)),
                Cell::Number(text) => Some(Cell::Text(Cow::Owned(text.to_owned()))),
                nested => Some(Cell::Document(Cow::Owned(to_text(&nested)))),
            };
            Ok(())
        })?;
        Ok(value)
    }
}

fn to_text(cell: &Cell<'_>) -> String {
    let mut out = String::new();
    scalar::write_json(cell, &mut out);
    out
}
