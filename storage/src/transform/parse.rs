//! Text of a transform function to an expression.
//!
//! ```text
//! sum     := product (('+' | '-') product)*
//! product := unary (('*' | '/' | '%') unary)*
//! unary   := '-' unary | primary
//! primary := number | 'text' | "field" | field | function '(' [sum (',' sum)*] ')' | '(' sum ')'
//! ```

use super::Expression;
use super::function::Function;
use crate::convert::Cell;
use std::borrow::Cow;
use strandline_proto::{Error, Result};

/// Nesting of calls and parentheses.
const DEPTH_MAX: usize = 64;

/// Reads a whole expression.
pub(super) fn expression(text: &str) -> Result<Expression> {
    let trimmed = text.trim_start();
    if trimmed
        .get(..6)
        .is_some_and(|start| start.eq_ignore_ascii_case("groovy"))
    {
        return Err(Error::unsupported(
            "not supported: Groovy; write the transform with built-in functions",
        ));
    }
    let mut parser = Parser { text, at: 0 };
    let parsed = parser.sum(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(parsed),
        Some(c) => Err(parser.wrong(&format!("'{c}' is not expected here"))),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn wrong(&self, what: &str) -> Error {
        Error::invalid(format!(
            "in '{}' at character {}: {what}",
            self.text,
            self.text[..self.at].chars().count() + 1
        ))
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip_space();
        let found = self.peek() == Some(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn sum(&mut self, depth: usize) -> Result<Expression> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        let mut left = self.product(depth)?;
        loop {
            let function = if self.take('+') {
                Function::Plus
            } else if self.take('-') {
                Function::Minus
            } else {
                return Ok(left);
            };
            let right = self.product(depth)?;
            left = Expression::Call {
                function,
                args: vec![left, right],
            };
        }
    }

    fn product(&mut self, depth: usize) -> Result<Expression> {
        let mut left = self.unary(depth)?;
        loop {
            let function = if self.take('*') {
                Function::Times
            } else if self.take('/') {
                Function::Divide
            } else if self.take('%') {
                Function::Modulo
            } else {
                return Ok(left);
            };
            let right = self.unary(depth)?;
            left = Expression::Call {
                function,
                args: vec![left, right],
            };
        }
    }

    fn unary(&mut self, depth: usize) -> Result<Expression> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        if !self.take('-') {
            return self.primary(depth);
        }
        Ok(match self.unary(depth + 1)? {
            Expression::Literal(Cell::Integer(v)) if v != i64::MIN => {
                Expression::Literal(Cell::Integer(-v))
            }
            Expression::Literal(Cell::Double(v)) => Expression::Literal(Cell::Double(-v)),
            inner => Expression::Call {
                function: Function::Negate,
                args: vec![inner],
            },
        })
    }

    fn primary(&mut self, depth: usize) -> Result<Expression> {
        self.skip_space();
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.sum(depth + 1)?;
                if !self.take(')') {
                    return Err(self.wrong("expected ')'"));
                }
                Ok(inner)
            }
            Some('\'') => Ok(Expression::Literal(Cell::Text(Cow::Owned(
                self.quoted('\'')?,
            )))),
            Some('"') => Ok(Expression::Field {
                name: self.quoted('"')?,
                slot: usize::MAX,
            }),
            Some('0'..='9' | '.') => self.number(),
            Some(c) if c.is_alphabetic() || c == '_' => self.name(depth),
            Some(c) => Err(self.wrong(&format!("'{c}' is not expected here"))),
            None => Err(self.wrong("the expression ends too early")),
        }
    }

    /// A text in quotes; a doubled quote stands for one.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.peek() {
            self.at += c.len_utf8();
            if c != quote {
                out.push(c);
            } else if self.peek() == Some(quote) {
                self.at += 1;
                out.push(quote);
            } else {
                return Ok(out);
            }
        }
        self.at = start;
        Err(self.wrong("the quote is not closed"))
    }

    fn number(&mut self) -> Result<Expression> {
        let mut end = self
            .rest()
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
            .unwrap_or(self.rest().len());
        // 1e-3: the sign belongs to the exponent.
        let digits = self.rest().get(..end).unwrap_or_default();
        if digits.ends_with(['e', 'E'])
            && self
                .rest()
                .get(end..)
                .is_some_and(|r| r.starts_with(['+', '-']))
        {
            let tail = self.rest().get(end + 1..).unwrap_or_default();
            end += 1 + tail
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(tail.len());
        }
        let text = self.rest().get(..end).unwrap_or_default();
        let plain = text
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
        let literal = match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(v), _) => Cell::Integer(v),
            (Err(_), Ok(v)) if plain && v.is_finite() => Cell::Double(v),
            _ => return Err(self.wrong(&format!("'{text}' is not a number"))),
        };
        self.at += end;
        Ok(Expression::Literal(literal))
    }

    fn name(&mut self, depth: usize) -> Result<Expression> {
        let end = self
            .rest()
            .find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.' && c != '$');
        let name = self
            .rest()
            .get(..end.unwrap_or(self.rest().len()))
            .unwrap_or_default();
        let start = self.at;
        self.at += name.len();
        if !self.take('(') {
            return Ok(match name {
                _ if name.eq_ignore_ascii_case("null") => Expression::Literal(Cell::Null),
                _ if name.eq_ignore_ascii_case("true") => Expression::Literal(Cell::Boolean(true)),
                _ if name.eq_ignore_ascii_case("false") => {
                    Expression::Literal(Cell::Boolean(false))
                }
                _ => Expression::Field {
                    name: name.to_owned(),
                    slot: usize::MAX,
                },
            });
        }
        let mut args = Vec::new();
        if !self.take(')') {
            loop {
                args.push(self.sum(depth + 1)?);
                if self.take(')') {
                    break;
                }
                if !self.take(',') {
                    return Err(self.wrong("expected ',' or ')'"));
                }
            }
        }
        let (function, args) = Function::resolve(name, args).map_err(|e| {
            self.at = start;
            let place = self.wrong("");
            e.at(place.message().trim_end_matches(": "))
        })?;
        Ok(Expression::Call { function, args })
    }
}
