//! Statements that are known by their text: what is outside their literals was seen before, so that neither parsing nor
//! planning is needed to find the kept plan.
//!
//! [`Outline`] reads only what it is sure to cut at the same places as the parser; all else (comments, escapes, prefixed
//! strings, numbers with exponents, ...) has no outline and is parsed. Whether it does is checked against the parser's own
//! tokens before a text is remembered.

use super::{Shape, moment, number};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use std::fmt::Write as _;

/// Bytes of the longest text that is remembered.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Literals of a text that is remembered, at most.
const LITERALS_MAX: usize = 256;
/// Digits of a whole number that surely fits 64 bits.
const DIGITS_MAX: usize = 18;

/// Where a literal that was taken out of a query stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source<At> {
    /// A number, perhaps behind a minus.
    Number { at: At, negated: bool },
    /// A quoted text.
    Text { at: At },
    /// A quoted text that is a date or a timestamp.
    Moment { at: At, data_type: SqlType },
    /// A parameter of the request, by its index.
    Parameter(usize),
}

/// A text cut at its literals.
#[derive(Debug, PartialEq)]
pub(super) struct Outline<'a> {
    /// The text; in place of each literal a mark of its kind that no text holds.
    pub(super) text: String,
    /// The literals: bytes into the text, and digits or what stands between the quotes.
    literals: Vec<(usize, &'a str)>,
}

/// What is known of an outline.
#[derive(Debug)]
pub(super) struct Known {
    /// Where the plan's literals come from, in order.
    sources: Vec<Source<usize>>,
    /// Literals that are part of the plan.
    fixed: Vec<usize>,
}

impl<'a> Outline<'a> {
    /// The outline of a text; none where it might not be cut as the parser does.
    pub(super) fn of(sql: &'a str) -> Option<Self> {
        if sql.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = sql.as_bytes();
        let at = |i: usize| bytes.get(i).copied().unwrap_or(b' ');
        let mut text = String::with_capacity(sql.len());
        let mut literals = Vec::new();
        let mut i = 0;
        while i < bytes.len() {
            let from = i;
            match bytes[i] {
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                    while matches!(at(i), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_') {
                        i += 1;
                    }
                    // A prefixed string, or letters that are not known here.
                    if matches!(at(i), b'\'' | b'"' | b'&' | b'$' | b'#' | b'@' | 0x80..) {
                        return None;
                    }
                    text.push_str(&sql[from..i]);
                }
                b'0'..=b'9' => {
                    i += run_of_digits(&bytes[i..]);
                    let mut mark = '\u{1}';
                    if at(i) == b'.' {
                        let digits = run_of_digits(&bytes[i + 1..]);
                        if digits == 0 {
                            return None;
                        }
                        i += 1 + digits;
                        mark = '\u{2}';
                    } else if i - from > DIGITS_MAX {
                        return None;
                    }
                    if matches!(at(i), b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.' | b'$' | b'#' | b'@' | b'\'' | b'"' | 0x80..)
                    {
                        return None;
                    }
                    text.push(mark);
                    literals.push((from, &sql[from..i]));
                }
                quote @ (b'\'' | b'"') => {
                    i += 1;
                    while at(i) != quote {
                        if i >= bytes.len() || at(i) == b'\\' || is_control(at(i)) {
                            return None;
                        }
                        i += 1;
                    }
                    i += 1;
                    // A quote within, or another text.
                    if matches!(at(i), b'\'' | b'"') {
                        return None;
                    }
                    if quote == b'\'' {
                        text.push('\u{3}');
                        literals.push((from, &sql[from + 1..i - 1]));
                    } else {
                        text.push_str(&sql[from..i]);
                    }
                }
                // A parameter.
                b'$' => {
                    i += 1 + run_of_digits(&bytes[i + 1..]);
                    if i == from + 1
                        || matches!(at(i), b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'.' | 0x80..)
                    {
                        return None;
                    }
                    text.push_str(&sql[from..i]);
                }
                b'-' if at(i + 1) == b'-' => return None,
                b'/' if at(i + 1) == b'*' => return None,
                b'.' if at(i + 1).is_ascii_digit() => return None,
                b' ' | b'\t' | b'\n' | b'\r' | b'(' | b')' | b',' | b'.' | b'*' | b'+' | b'-'
                | b'/' | b'%' | b'=' | b'<' | b'>' => {
                    i += 1;
                    text.push(char::from(bytes[from]));
                }
                b'!' | b':' if matches!((bytes[i], at(i + 1)), (b'!', b'=') | (b':', b':')) => {
                    i += 2;
                    text.push_str(&sql[from..i]);
                }
                b';' if sql[i + 1..].bytes().all(|b| b.is_ascii_whitespace()) => {
                    text.push_str(&sql[i..]);
                    i = bytes.len();
                }
                _ => return None,
            }
        }
        (literals.len() <= LITERALS_MAX).then_some(Self { text, literals })
    }

    /// What there is to know of this outline, from the text's parsed shape; none where the parser saw other literals.
    pub(super) fn know(
        &self,
        sql: &str,
        shape: &Shape,
        parameters: &[ScalarValue],
    ) -> Option<Known> {
        let places = self.places(sql)?;
        let index = |at: &Location| places.binary_search(at).ok();
        let sources = shape
            .sources
            .iter()
            .map(|source| {
                Some(match source {
                    Source::Number { at, negated } => Source::Number {
                        at: index(at)?,
                        negated: *negated,
                    },
                    Source::Text { at } => Source::Text { at: index(at)? },
                    Source::Moment { at, data_type } => Source::Moment {
                        at: index(at)?,
                        data_type: data_type.clone(),
                    },
                    Source::Parameter(index) => Source::Parameter(*index),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        let taken: Vec<usize> = sources.iter().filter_map(Source::literal).collect();
        let known = Known {
            fixed: (0..self.literals.len())
                .filter(|i| !taken.contains(i))
                .collect(),
            sources,
        };
        (known.literals(self, parameters)? == shape.literals).then_some(known)
    }

    /// The places of the literals, if they are those that the parser sees.
    fn places(&self, sql: &str) -> Option<Vec<Location>> {
        let tokens = Tokenizer::new(&GenericDialect {}, sql)
            .tokenize_with_location()
            .ok()?;
        let mut seen = tokens.iter().filter_map(|t| match &t.token {
            Token::Number(digits, false) => Some((t.span.start, digits)),
            Token::SingleQuotedString(text) => Some((t.span.start, text)),
            _ => None,
        });
        let mut places = Vec::with_capacity(self.literals.len());
        let (mut line, mut column, mut before) = (1, 1, 0);
        for (offset, literal) in &self.literals {
            for c in sql[before..*offset].chars() {
                (line, column) = match c {
                    '\n' => (line + 1, 1),
                    _ => (line, column + 1),
                };
            }
            before = *offset;
            let place = Location::new(line, column);
            let (start, value) = seen.next()?;
            if start != place || value != literal {
                return None;
            }
            places.push(place);
        }
        seen.next().is_none().then_some(places)
    }
}

impl Known {
    /// The plan's literals; none where one of them is not of a kind to be taken out.
    pub(super) fn literals(
        &self,
        outline: &Outline<'_>,
        parameters: &[ScalarValue],
    ) -> Option<Vec<ScalarValue>> {
        let raw = |at: &usize| outline.literals.get(*at).map(|(_, text)| *text);
        self.sources
            .iter()
            .map(|source| match source {
                Source::Number { at, negated: false } => number(raw(at)?),
                Source::Number { at, negated: true } => number(raw(at)?)?.arithmetic_negate().ok(),
                Source::Text { at } => Some(ScalarValue::from(raw(at)?)),
                Source::Moment { at, data_type } => {
                    moment(&Value::SingleQuotedString(raw(at)?.to_owned()), data_type)
                }
                Source::Parameter(index) => super::parameter(parameters, *index),
            })
            .collect()
    }

    /// Adds to a key what of the text is part of the plan.
    pub(super) fn add_to(&self, key: &mut String, outline: &Outline<'_>) {
        key.push_str(&outline.text);
        for at in &self.fixed {
            let text = outline.literals.get(*at).map_or("", |(_, text)| *text);
            let _ = write!(key, "\u{4}{text}");
        }
    }
}

impl Source<usize> {
    fn literal(&self) -> Option<usize> {
        match self {
            Self::Number { at, .. } | Self::Text { at } | Self::Moment { at, .. } => Some(*at),
            Self::Parameter(_) => None,
        }
    }
}

fn run_of_digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// The marks in place of literals, and what else is not printed; lines may be broken.
fn is_control(byte: u8) -> bool {
    byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(sql: &str) -> Option<Vec<&str>> {
        let outline = Outline::of(sql)?;
        Some(outline.literals.iter().map(|(_, text)| *text).collect())
    }

    #[test]
    fn texts_that_differ_in_literals_have_one_outline() {
        let one =
            Outline::of("SELECT a1, sum(b) FROM t WHERE c = 'Ж' AND d > -1.5 LIMIT 10;").unwrap();
        let other =
            Outline::of("SELECT a1, sum(b) FROM t WHERE c = '' AND d > -22.25 LIMIT 7;").unwrap();
        assert_eq!(one.text, other.text);
        assert_eq!(
            one.literals.iter().map(|l| l.1).collect::<Vec<_>>(),
            ["Ж", "1.5", "10"]
        );
        // Whole numbers and others are planned differently.
        assert_ne!(
            Outline::of("SELECT 1").unwrap().text,
            Outline::of("SELECT 1.0").unwrap().text
        );
        assert_ne!(
            Outline::of("SELECT 1").unwrap().text,
            Outline::of("SELECT '1'").unwrap().text
        );
    }

    #[test]
    fn what_might_be_read_otherwise_has_no_outline() {
        for sql in [
            "SELECT 'it''s'",
            r"SELECT 'a\'b'",
            "SELECT E'a'",
            "SELECT x'ff'",
            "SELECT 1e5",
            "SELECT 0x10",
            "SELECT 1_000",
            "SELECT .5",
            "SELECT 1.",
            "SELECT 1 -- one",
            "SELECT /* one */ 1",
            "SELECT $$a$$",
            "SELECT $tag$a$tag$",
            "SET a = 1; SELECT 1",
            "SELECT 'open",
            "SELECT \"open",
            "SELECT 'a\u{1}'",
            "SELECT größe",
            "SELECT a[1]",
            "SELECT 1234567890123456789",
            "SELECT `a`",
        ] {
            assert_eq!(literals(sql), None, "{sql}");
        }
        assert_eq!(
            literals("SELECT \"a'b\", t.x1 FROM t WHERE a=5 AND b='x' AND c=$1"),
            Some(vec!["5", "x"])
        );
    }

    #[test]
    fn literals_stand_where_the_parser_sees_them() {
        for sql in [
            "SELECT 1,\n 'ä', 2.5\r\n\tFROM t WHERE a IN (1,2,'Ж')  AND b<>-3",
            "SELECT count(*) FROM t WHERE \"c d\"='x'AND y=1",
        ] {
            assert!(Outline::of(sql).unwrap().places(sql).is_some(), "{sql}");
        }
    }
}
