//! A filter of JSON_MATCH, as alternatives of conditions, and its evaluation on a document.
//!
//! A filter is a combination of conditions on one record. It is kept in disjunctive form, because the conditions of one
//! alternative can be told apart by the array that they are about, and elements of different arrays are chosen
//! independently: so no record is ever made, and the cost is that of one walk over the document for each alternative.
//!
//! `NOT` and `IS NULL` at the top are about the document instead: no record of it has what follows.

use super::document::Document;
use super::number::Number;
use super::parse::parse;
use super::path::{Index, Step};
use crate::{Error, Result};
use regex::Regex;

/// Conditions in all alternatives together.
const LITERALS_MAX: usize = 4_096;

/// A filter, ready to be evaluated.
#[derive(Clone, Debug)]
pub struct JsonFilter {
    text: String,
    negated: bool,
    atoms: Vec<Atom>,
    alternatives: Vec<Vec<(usize, bool)>>,
}

/// A condition on the value at a path.
#[derive(Clone, Debug)]
pub struct Atom {
    /// Where the value stands.
    pub path: Vec<Step>,
    /// What it must be.
    pub test: Test,
}

/// A test of a scalar by its text. It fails where no scalar is.
#[derive(Clone, Debug)]
pub enum Test {
    /// A value is there.
    Present,
    /// The value is one of these.
    In(Vec<String>),
    /// A value is there, and none of these.
    NotIn(Vec<String>),
    /// A number between bounds; other texts fail.
    Numbers {
        /// The lower bound, and whether it is itself included.
        low: Option<(Number, bool)>,
        /// The upper bound, and whether it is itself included.
        high: Option<(Number, bool)>,
    },
    /// A text between bounds, bytewise.
    Texts {
        /// The lower bound, and whether it is itself included.
        low: Option<(String, bool)>,
        /// The upper bound, and whether it is itself included.
        high: Option<(String, bool)>,
    },
    /// The whole text matches.
    Regex(Regex),
}

impl Test {
    /// Whether a value of this text passes.
    pub fn passes(&self, text: &str) -> bool {
        match self {
            Self::Present => true,
            Self::In(values) => values.iter().any(|v| v == text),
            Self::NotIn(values) => values.iter().all(|v| v != text),
            Self::Numbers { low, high } => {
                Number::parse(text).is_some_and(|number| within(&number, low, high))
            }
            Self::Texts { low, high } => within(text, low, high),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

fn within<T: Ord + ?Sized, B: std::borrow::Borrow<T>>(
    value: &T,
    low: &Option<(B, bool)>,
    high: &Option<(B, bool)>,
) -> bool {
    let above = low
        .as_ref()
        .is_none_or(|(low, included)| value > low.borrow() || *included && value == low.borrow());
    above
        && high.as_ref().is_none_or(|(high, included)| {
            value < high.borrow() || *included && value == high.borrow()
        })
}

/// A combination of conditions, as it is written.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// By its number among the atoms.
    Atom(usize),
}

impl JsonFilter {
    /// Reads a filter, such as `"$.a.b[*].c" = 'x' AND NOT "$.d" > 3`.
    ///
    /// # Errors
    /// `InvalidArgument` naming the character that is wrong; `Unsupported` for what can't be evaluated.
    pub fn parse(text: &str) -> Result<Self> {
        let at_character = |(at, what): (usize, String)| {
            let place = text.get(..at).map_or(0, |before| before.chars().count()) + 1;
            let message = format!("the JSON_MATCH filter {text:?}: {what} at character {place}");
            match what.starts_with("not supported") {
                true => Error::unsupported(message),
                false => Error::invalid(message),
            }
        };
        let (mut condition, atoms) = parse(text).map_err(at_character)?;
        let mut negated = false;
        while let Condition::Not(inner) = condition {
            negated = !negated;
            condition = *inner;
        }
        let alternatives = alternatives(&condition, false).ok_or_else(|| {
            Error::unsupported(format!(
                "not supported: the JSON_MATCH filter {text:?} has too many combinations of conditions: split it into several JSON_MATCH"
            ))
        })?;
        Ok(Self {
            text: text.to_owned(),
            negated,
            atoms,
            alternatives,
        })
    }

    /// The filter as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a document matches when none of its records satisfies an alternative, instead of one.
    pub fn negated(&self) -> bool {
        self.negated
    }

    /// The conditions that the alternatives are made of.
    pub fn atoms(&self) -> &[Atom] {
        &self.atoms
    }

    /// The alternatives: of each the conditions by number, and whether they must fail.
    pub fn alternatives(&self) -> &[Vec<(usize, bool)>] {
        &self.alternatives
    }

    /// Whether the document in `text` matches; false for a text that is no document.
    pub fn matches(&self, text: &str) -> bool {
        match Document::parse(text) {
            Ok(document) => {
                let found = document.is_some_and(|d| self.satisfied_by(&d));
                found != self.negated
            }
            Err(_) => false,
        }
    }

    /// Whether a record of a document satisfies an alternative.
    fn satisfied_by(&self, document: &Document<'_>) -> bool {
        let mut open = Vec::new();
        self.alternatives.iter().any(|alternative| {
            open.clear();
            open.extend(alternative.iter().filter_map(|&(atom, negated)| {
                let atom = self.atoms.get(atom)?;
                let rest = atom.path.as_slice();
                Some(Literal {
                    rest,
                    test: &atom.test,
                    negated,
                })
            }));
            satisfiable(document, &open)
        })
    }
}

/// A condition seen from a value on its path.
#[derive(Clone, Copy)]
struct Literal<'a> {
    rest: &'a [Step],
    test: &'a Test,
    /// Whether it must fail.
    negated: bool,
}

/// Whether one record of `value` satisfies all of `literals`.
fn satisfiable(value: &Document<'_>, literals: &[Literal<'_>]) -> bool {
    // A condition whose value is not there fails, which is what a negated one wants.
    match value {
        Document::Text(_) | Document::Number(_) | Document::Boolean(_) => {
            let text = value.text().unwrap_or_default();
            literals
                .iter()
                .all(|l| (l.rest.is_empty() && l.test.passes(&text)) != l.negated)
        }
        Document::Object(_) => fields(value, literals),
        Document::Array(elements) => {
            let indexed = |l: &&Literal<'_>| matches!(l.rest.first(), Some(Step::Element(_)));
            let mut others = literals.iter().filter(|l| !indexed(l));
            if others.any(|l| !l.negated) {
                return false;
            }
            let mut inner = Vec::with_capacity(literals.len());
            elements.iter().any(|(place, element)| {
                inner.clear();
                for literal in literals.iter().filter(indexed) {
                    let Some((step, rest)) = literal.rest.split_first() else {
                        continue;
                    };
                    let is_elsewhere =
                        matches!(step, Step::Element(Index::At(wanted)) if wanted != place);
                    match (is_elsewhere, literal.negated) {
                        (false, _) => inner.push(Literal { rest, ..*literal }),
                        (true, true) => {}
                        (true, false) => return false,
                    }
                }
                satisfiable(element, &inner)
            })
        }
    }
}

/// The same for an object: its fields are independent of each other.
fn fields(object: &Document<'_>, literals: &[Literal<'_>]) -> bool {
    let mut left: Vec<&Literal<'_>> = Vec::with_capacity(literals.len());
    for literal in literals {
        match literal.rest.first() {
            Some(Step::Field(_)) => left.push(literal),
            _ if literal.negated => {}
            _ => return false,
        }
    }
    while let Some(first) = left.first() {
        let Some(Step::Field(name)) = first.rest.first() else {
            return false;
        };
        let same = |l: &&Literal<'_>| matches!(l.rest.first(), Some(Step::Field(n)) if n == name);
        let of_field: Vec<Literal<'_>> = left
            .iter()
            .copied()
            .filter(same)
            .map(|l| Literal {
                rest: l.rest.get(1..).unwrap_or_default(),
                ..*l
            })
            .collect();
        let passes = match object.field(name) {
            Some(value) => satisfiable(value, &of_field),
            None => of_field.iter().all(|l| l.negated),
        };
        if !passes {
            return false;
        }
        left.retain(|l| !same(l));
    }
    true
}

/// The disjunctive form; none when it is too long.
fn alternatives(condition: &Condition, negated: bool) -> Option<Vec<Vec<(usize, bool)>>> {
    let (all, parts) = match condition {
        Condition::Atom(atom) => return Some(vec![vec![(*atom, negated)]]),
        Condition::Not(inner) => return alternatives(inner, !negated),
        Condition::All(parts) => (!negated, parts),
        Condition::Any(parts) => (negated, parts),
    };
    let mut found = if all { vec![Vec::new()] } else { Vec::new() };
    for part in parts {
        let more = alternatives(part, negated)?;
        if all {
            let literals = |list: &[Vec<(usize, bool)>]| list.iter().map(Vec::len).sum::<usize>();
            let long = literals(&found) * more.len() + literals(&more) * found.len();
            if long > LITERALS_MAX {
                return None;
            }
            found = found
                .iter()
                .flat_map(|a| more.iter().map(|b| [a.as_slice(), b.as_slice()].concat()))
                .collect();
        } else {
            found.extend(more);
        }
    }
    (found.iter().map(Vec::len).sum::<usize>() <= LITERALS_MAX).then_some(found)
}
