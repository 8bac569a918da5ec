//! Paths into documents: `$.order.lines[*]['unit price']`.

use crate::{Error, Result};

/// Steps of the longest path.
const STEPS_MAX: usize = 256;

/// A path from a document's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    /// The steps in order.
    pub steps: Vec<Step>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into the field of an object.
    Field(String),
    /// Into elements of an array.
    Element(Index),
}

/// Which elements of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// `[*]`: all of them.
    Any,
    /// `[n]`: the one at this place, from 0.
    At(u32),
}

impl JsonPath {
    /// Reads `$.a.b[0]['c d'][*]`. The `$` may be left out.
    ///
    /// # Errors
    /// `InvalidArgument` naming the character that is wrong, `Unsupported` for filters, slices and recursion.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_at(text).map_err(|(at, what)| {
            let place = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
            let message = format!("the JSON path {text:?}: {what} at character {place}");
            match what.starts_with("not supported") {
                true => Error::unsupported(message),
                false => Error::invalid(message),
            }
        })
    }

    /// The same, with the byte of an error.
    pub(super) fn parse_at(text: &str) -> Result<Self, (usize, String)> {
        let wrong = |rest: &str, what: &str| (text.len() - rest.len(), what.to_owned());
        let mut steps = Vec::new();
        let mut rest = match text.strip_prefix('$') {
            Some(rest) => rest,
            // `a.b` stands for `$.a.b`.
            None if text.starts_with(['[', '.']) => text,
            None => {
                let (name, rest) = name(text);
                if name.is_empty() {
                    return Err(wrong(text, "it is empty; write it as $.a.b[0]['c d'][*]"));
                }
                steps.push(Step::Field(name.to_owned()));
                rest
            }
        };
        while !rest.is_empty() {
            if steps.len() == STEPS_MAX {
                return Err(wrong(rest, "it has more than 256 steps"));
            }
            if let Some(after) = rest.strip_prefix('[') {
                let (step, after) =
                    bracket(after).map_err(|(left, what)| (text.len() - left, what))?;
                steps.push(step);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                if after.starts_with('.') {
                    return Err(wrong(rest, "not supported: '..'; name each step"));
                }
                let (name, after) = name(after);
                match name {
                    "" => return Err(wrong(after, "a field name is missing")),
                    "*" => return Err(wrong(rest, "not supported: '.*'; name the field")),
                    name => steps.push(Step::Field(name.to_owned())),
                }
                rest = after;
            } else {
                return Err(wrong(rest, "expected '.' or '['"));
            }
        }
        Ok(Self { steps })
    }
}

/// The name that `text` begins with, and what follows it.
fn name(text: &str) -> (&str, &str) {
    text.split_at(text.find(['.', '[']).unwrap_or(text.len()))
}

/// What stands behind a `[`, and what follows its `]`; errors with the bytes that are left.
fn bracket(text: &str) -> Result<(Step, &str), (usize, String)> {
    let wrong = |rest: &str, what: &str| Err((rest.len(), what.to_owned()));
    if let Some(quote @ ('\'' | '"')) = text.chars().next() {
        let after = text.get(1..).unwrap_or_default();
        let Some((name, rest)) = after.split_once(quote) else {
            return wrong(text, "a quoted field name is not closed");
        };
        return match rest.strip_prefix(']') {
            Some(rest) => Ok((Step::Field(name.to_owned()), rest)),
            None => wrong(rest, "expected ']'"),
        };
    }
    let Some((inside, rest)) = text.split_once(']') else {
        return wrong(text, "expected ']'");
    };
    let inside = inside.trim();
    if inside == "*" {
        return Ok((Step::Element(Index::Any), rest));
    }
    if inside.starts_with(['?', '(', '-']) || inside.contains([':', ',']) {
        return wrong(
            text,
            "not supported: filters, slices and lists of elements; use [n] or [*]",
        );
    }
    match inside.parse() {
        Ok(n) if inside.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((Step::Element(Index::At(n)), rest))
        }
        _ => wrong(text, "expected a number, '*' or a quoted field name"),
    }
}
