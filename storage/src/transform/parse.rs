//! The text of an expression.
//!
//! ```text
//! either     := both ('OR' both)*
//! both       := negation ('AND' negation)*
//! negation   := 'NOT'* predicate
//! predicate  := joined ( ('=' | '==' | '<>' | '!=' | '<' | '<=' | '>' | '>=') joined
//!                      | 'IS' ['NOT'] ('NULL' | 'TRUE' | 'FALSE' | 'DISTINCT' 'FROM' joined)
//!                      | ['NOT'] 'IN' '(' either (',' either)* ')'
//!                      | ['NOT'] 'BETWEEN' joined 'AND' joined
//!                      | ['NOT'] ('LIKE' | 'ILIKE') 'pattern' ['ESCAPE' 'c'] )*
//! joined     := sum ('||' sum)*
//! sum        := product (('+' | '-') product)*
//! product    := unary (('*' | '/' | '%') unary)*
//! unary      := '-' unary | primary ('::' type)*
//! primary    := number | 'text' | "field" | field | function '(' [either (',' either)*] ')' | '(' either ')'
//!             | 'CASE' [either] ('WHEN' either 'THEN' either)+ ['ELSE' either] 'END'
//!             | 'CAST' '(' either 'AS' type ')' | ('TIMESTAMP' | 'DATE') 'text'
//! ```
//!
//! Words are keywords only where the grammar has them, so that a field may be called `end` or `like`; `not`, `case` and
//! the constants need double quotes as fields.

use super::expression::Expression;
use super::form::{Comparison, Form, data_type};
use super::function::{self, Function};
use super::pattern::Pattern;
use crate::convert::{Cell, scalar};
use std::borrow::Cow;
use strandline_proto::{Error, Result};

/// Nesting of calls and parentheses.
const DEPTH_MAX: usize = 64;
/// Operators and calls: a chain of them nests as deep as it is long.
const PARTS_MAX: usize = 256;

/// Reads a whole expression.
pub(super) fn expression(text: &str) -> Result<Expression> {
    let trimmed = text.trim_start();
    if trimmed
        .get(..6)
        .is_some_and(|start| start.eq_ignore_ascii_case("groovy"))
    {
        return Err(Error::unsupported(
            "not supported: Groovy; write it in SQL, as upper(a) || '-' || b or a > 5 AND b IS NOT NULL, or with Pinot's functions",
        ));
    }
    let mut parser = Parser {
        text,
        at: 0,
        parts: 0,
    };
    let parsed = parser.either(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(parsed),
        Some(c) => Err(parser.wrong(&format!("'{c}' is not expected here"))),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// Operators and calls so far.
    parts: usize,
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

    fn take_text(&mut self, wanted: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    /// Takes a keyword, in any case.
    fn keyword(&mut self, wanted: &str) -> bool {
        self.skip_space();
        let rest = self.rest();
        let found = rest
            .get(..wanted.len())
            .is_some_and(|word| word.eq_ignore_ascii_case(wanted))
            && !rest
                .get(wanted.len()..)
                .is_some_and(|after| after.starts_with(is_name));
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn expect(&mut self, wanted: char) -> Result<()> {
        match self.take(wanted) {
            true => Ok(()),
            false => Err(self.wrong(&format!("expected '{wanted}'"))),
        }
    }

    fn expect_keyword(&mut self, wanted: &str) -> Result<()> {
        match self.keyword(wanted) {
            true => Ok(()),
            false => Err(self.wrong(&format!("expected {}", wanted.to_ascii_uppercase()))),
        }
    }

    /// Counts an operator or call.
    fn part(&mut self) -> Result<()> {
        self.parts += 1;
        match self.parts > PARTS_MAX {
            true => Err(self.wrong(&format!("more than {PARTS_MAX} operators and calls"))),
            false => Ok(()),
        }
    }

    fn form(&mut self, form: Form, args: Vec<Expression>) -> Result<Expression> {
        self.part()?;
        Ok(Expression::form(form, args))
    }

    fn call(&mut self, function: Function, args: Vec<Expression>) -> Result<Expression> {
        self.part()?;
        Ok(Expression::Call { function, args })
    }

    fn either(&mut self, depth: usize) -> Result<Expression> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        let first = self.both(depth)?;
        let mut all = vec![first];
        while self.keyword("or") {
            self.part()?;
            all.push(self.both(depth)?);
        }
        Ok(one_or(Form::Or, all))
    }

    fn both(&mut self, depth: usize) -> Result<Expression> {
        let first = self.negation(depth)?;
        let mut all = vec![first];
        while self.keyword("and") {
            self.part()?;
            all.push(self.negation(depth)?);
        }
        Ok(one_or(Form::And, all))
    }

    fn negation(&mut self, depth: usize) -> Result<Expression> {
        let mut negated = false;
        let mut any = false;
        while self.keyword("not") {
            (any, negated) = (true, !negated);
        }
        let inner = self.predicate(depth)?;
        match (any, negated) {
            (_, true) => self.form(Form::Not, vec![inner]),
            // Twice negated it is a truth value still.
            (true, false) => {
                let once = self.form(Form::Not, vec![inner])?;
                self.form(Form::Not, vec![once])
            }
            (false, false) => Ok(inner),
        }
    }

    fn predicate(&mut self, depth: usize) -> Result<Expression> {
        let mut left = self.joined(depth)?;
        let mut compared = false;
        loop {
            if let Some(comparison) = self.comparison() {
                if compared {
                    return Err(self.wrong("comparisons can't be chained; join them by AND"));
                }
                compared = true;
                let right = self.joined(depth)?;
                left = self.form(Form::Compare(comparison), vec![left, right])?;
                continue;
            }
            let (negated, form, args) = if self.keyword("is") {
                let negated = self.keyword("not");
                if self.keyword("null") {
                    (negated, Form::IsNull, vec![left])
                } else if self.keyword("true") {
                    (negated, Form::Is(true), vec![left])
                } else if self.keyword("false") {
                    (negated, Form::Is(false), vec![left])
                } else if self.keyword("distinct") {
                    self.expect_keyword("from")?;
                    let right = self.joined(depth)?;
                    (!negated, Form::Same, vec![left, right])
                } else {
                    return Err(self.wrong("expected NULL, TRUE, FALSE or DISTINCT FROM"));
                }
            } else {
                let negated = self.keyword("not");
                if self.keyword("in") {
                    self.expect('(')?;
                    let mut args = vec![left];
                    args.extend(self.arguments(depth)?);
                    (negated, Form::In, args)
                } else if self.keyword("between") {
                    let low = self.joined(depth)?;
                    self.expect_keyword("and")?;
                    (negated, Form::Between, vec![left, low, self.joined(depth)?])
                } else if self.keyword("like") {
                    (negated, self.like(false)?, vec![left])
                } else if self.keyword("ilike") {
                    (negated, self.like(true)?, vec![left])
                } else if negated {
                    return Err(self.wrong("expected IN, BETWEEN or LIKE"));
                } else {
                    return Ok(left);
                }
            };
            left = self.form(form, args)?;
            if negated {
                left = self.form(Form::Not, vec![left])?;
            }
        }
    }

    fn comparison(&mut self) -> Option<Comparison> {
        [
            ("<>", Comparison::NotEqual),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("==", Comparison::Equal),
            ("=", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ]
        .into_iter()
        .find_map(|(text, comparison)| self.take_text(text).then_some(comparison))
    }

    /// The pattern behind `LIKE`.
    fn like(&mut self, fold: bool) -> Result<Form> {
        self.skip_space();
        let start = self.at;
        if self.peek() != Some('\'') {
            return Err(self.wrong("expected a pattern in single quotes"));
        }
        let text = self.quoted('\'')?;
        let mut escape = Some('\\');
        if self.keyword("escape") {
            self.skip_space();
            let quoted = match self.peek() {
                Some('\'') => self.quoted('\'')?,
                _ => return Err(self.wrong("expected an escape character in single quotes")),
            };
            let mut chars = quoted.chars();
            escape = chars.next();
            if chars.next().is_some() {
                return Err(self.wrong("the escape must be one character"));
            }
        }
        let pattern = Pattern::like(&text, escape, fold).map_err(|e| {
            self.at = start;
            self.wrong(e.message())
        })?;
        Ok(Form::Matches(pattern))
    }

    fn joined(&mut self, depth: usize) -> Result<Expression> {
        let first = self.sum(depth)?;
        let mut all = vec![first];
        while self.take_text("||") {
            self.part()?;
            all.push(self.sum(depth)?);
        }
        Ok(one_or(Form::Join, all))
    }

    fn sum(&mut self, depth: usize) -> Result<Expression> {
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
            left = self.call(function, vec![left, right])?;
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
            left = self.call(function, vec![left, right])?;
        }
    }

    fn unary(&mut self, depth: usize) -> Result<Expression> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deep"));
        }
        if !self.take('-') {
            let mut inner = self.primary(depth)?;
            while self.take_text("::") {
                let to = self.data_type()?;
                inner = self.form(to, vec![inner])?;
            }
            return Ok(inner);
        }
        Ok(match self.unary(depth + 1)? {
            Expression::Literal(Cell::Integer(v)) if v != i64::MIN => {
                Expression::Literal(Cell::Integer(-v))
            }
            Expression::Literal(Cell::Double(v)) => Expression::Literal(Cell::Double(-v)),
            inner => self.call(Function::Negate, vec![inner])?,
        })
    }

    /// A type's name, perhaps of two words or with digits in parentheses.
    fn data_type(&mut self) -> Result<Form> {
        self.skip_space();
        let start = self.at;
        let name = self.word();
        let mut end = self.at;
        if name.eq_ignore_ascii_case("double") && self.keyword("precision") {
            end = self.at;
        }
        if self.take('(') {
            match self.rest().find(')') {
                Some(close) => end = self.at + close + 1,
                None => return Err(self.wrong("expected ')'")),
            }
        }
        self.at = start;
        let text = self.text.get(start..end).unwrap_or_default();
        let found = data_type(text).map_err(|e| self.placed(e))?;
        self.at = end;
        Ok(Form::Cast(found))
    }

    /// The letters and digits that come next.
    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// An error at this place.
    fn placed(&self, error: Error) -> Error {
        let place = self.wrong("");
        error.at(place.message().trim_end_matches(": "))
    }

    fn primary(&mut self, depth: usize) -> Result<Expression> {
        self.skip_space();
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.either(depth + 1)?;
                self.expect(')')?;
                Ok(inner)
            }
            Some('\'') => Ok(Expression::Literal(Cell::Text(Cow::Owned(
                self.quoted('\'')?,
            )))),
            Some('"') => Ok(Expression::field(self.quoted('"')?)),
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
        let start = self.at;
        let name = self.word();
        let is = |word: &str| name.eq_ignore_ascii_case(word);
        if is("case") {
            return self.case(depth);
        }
        if !self.take('(') {
            self.skip_space();
            if self.peek() == Some('\'') && (is("timestamp") || is("date")) {
                let text = Cell::Text(Cow::Owned(self.quoted('\'')?));
                let ms = scalar::timestamp(&text).map_err(|reason| {
                    self.at = start;
                    self.wrong(&reason)
                })?;
                return Ok(Expression::Literal(Cell::Timestamp(ms)));
            }
            return Ok(match name {
                _ if is("null") => Expression::Literal(Cell::Null),
                _ if is("true") => Expression::Literal(Cell::Boolean(true)),
                _ if is("false") => Expression::Literal(Cell::Boolean(false)),
                _ => Expression::field(name),
            });
        }
        if is("cast") {
            let of = self.either(depth + 1)?;
            if self.keyword("as") {
                let to = self.data_type()?;
                self.expect(')')?;
                return self.form(to, vec![of]);
            }
            self.expect(',')?;
            let mut args = vec![of];
            args.extend(self.arguments(depth)?);
            return self.function(name, start, args);
        }
        let args = match self.take(')') {
            true => Vec::new(),
            false => self.arguments(depth)?,
        };
        self.function(name, start, args)
    }

    fn function(&mut self, name: &str, start: usize, args: Vec<Expression>) -> Result<Expression> {
        self.part()?;
        function::call(name, args).map_err(|e| {
            self.at = start;
            self.placed(e)
        })
    }

    /// At least one expression, up to and with the closing parenthesis.
    fn arguments(&mut self, depth: usize) -> Result<Vec<Expression>> {
        let mut args = Vec::new();
        loop {
            args.push(self.either(depth + 1)?);
            if self.take(')') {
                return Ok(args);
            }
            if !self.take(',') {
                return Err(self.wrong("expected ',' or ')'"));
            }
        }
    }

    /// What follows `CASE`.
    fn case(&mut self, depth: usize) -> Result<Expression> {
        let mut operand = None;
        if !self.keyword("when") {
            operand = Some(self.either(depth + 1)?);
            self.expect_keyword("when")?;
        }
        let mut args = Vec::new();
        loop {
            let condition = self.either(depth + 1)?;
            args.push(match &operand {
                Some(operand) => {
                    for _ in 0..operand.parts() {
                        self.part()?;
                    }
                    let both = vec![operand.clone(), condition];
                    self.form(Form::Compare(Comparison::Equal), both)?
                }
                None => condition,
            });
            self.expect_keyword("then")?;
            args.push(self.either(depth + 1)?);
            if !self.keyword("when") {
                break;
            }
        }
        if self.keyword("else") {
            args.push(self.either(depth + 1)?);
        }
        self.expect_keyword("end")?;
        self.form(Form::Case, args)
    }
}

/// A character of a name.
fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '$')
}

fn one_or(form: Form, mut all: Vec<Expression>) -> Expression {
    match (all.len(), all.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            all.extend(last);
            Expression::form(form, all)
        }
    }
}
