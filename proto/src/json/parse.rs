//! Reads the filters of JSON_MATCH:
//!
//! ```text
//! filter    = all { OR all }
//! all       = one { AND one }
//! one       = NOT one | ( filter ) | condition
//! condition = path ( = | != | <> | < | <= | > | >= ) value
//!           | path [NOT] IN ( value, ... ) | path [NOT] BETWEEN value AND value
//!           | path IS [NOT] NULL | [NOT] REGEXP_LIKE ( path, 'pattern' )
//! path      = "$.a[*]['b c']" | $.a.b        value = 'text' | number | true | false
//! ```
//!
//! Within quotes a quote is written twice.

use super::filter::{Atom, Condition, Test};
use super::number::{Number, canonical};
use super::path::JsonPath;
use regex::RegexBuilder;

/// Parentheses and NOTs within each other.
const DEPTH_MAX: usize = 64;
/// Bytes of the longest filter.
const BYTES_MAX: usize = 64 << 10;

/// What is wrong, and the byte where.
type Wrong = (usize, String);

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// In double quotes, or a bare word with `$`, `.` or `[`.
    Path(String),
    /// A bare word.
    Word(String),
    Text(String),
    Number(String),
    Sign(&'static str),
    End,
}

/// Reads a filter.
pub(super) fn parse(text: &str) -> Result<(Condition, Vec<Atom>), Wrong> {
    if text.len() > BYTES_MAX {
        return Err((0, format!("it is longer than {BYTES_MAX} bytes")));
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        atoms: Vec::new(),
    };
    let condition = parser.any(0)?;
    match parser.peek() {
        Token::End => Ok((condition, parser.atoms)),
        _ => Err(parser.wrong("expected AND, OR or the end")),
    }
}

const SIGNS: [&str; 10] = ["<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", ","];

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Wrong> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(first) = rest.chars().next() else {
            tokens.push((text.len(), Token::End));
            return Ok(tokens);
        };
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, len) = match first {
            '"' | '\'' => {
                let (inside, len) = quoted(rest, first).ok_or_else(|| {
                    let what = if first == '"' { "path" } else { "text" };
                    (at, format!("a quoted {what} is not closed"))
                })?;
                let token = if first == '"' {
                    Token::Path(inside)
                } else {
                    Token::Text(inside)
                };
                (token, len)
            }
            '-' | '+' | '0'..='9' => {
                let len = word_len(rest, |c| {
                    c.is_alphanumeric() || matches!(c, '.' | '-' | '+')
                });
                let written = rest.get(..len).unwrap_or_default();
                let number = written.strip_prefix('+').unwrap_or(written);
                if Number::parse(number).is_none() {
                    return Err((at, format!("{written:?} is not a number")));
                }
                (Token::Number(number.to_owned()), len)
            }
            c if c.is_alphabetic() || matches!(c, '_' | '$') => {
                let len = word_len(rest, |c| {
                    c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | '[' | ']' | '*')
                });
                let word = rest.get(..len).unwrap_or_default().to_owned();
                let token = if word.contains(['$', '.', '[']) {
                    Token::Path(word)
                } else {
                    Token::Word(word)
                };
                (token, len)
            }
            other => match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                Some(sign) => (
                    Token::Sign(if sign == "<>" { "!=" } else { sign }),
                    sign.len(),
                ),
                None => return Err((at, format!("unexpected {other:?}"))),
            },
        };
        tokens.push((at, token));
        at += len;
    }
}

fn word_len(text: &str, is_part: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_part(c)).unwrap_or(text.len())
}

/// What stands in the quotes that `text` begins with, and their length.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inside = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            inside.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == quote) {
            chars.next();
            inside.push(quote);
        } else {
            return Some((inside, at + 1));
        }
    }
    None
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    atoms: Vec<Atom>,
}

/// A value as it is compared.
enum Value {
    Number(String),
    Text(String),
}

impl Value {
    /// The text that equal values have.
    fn into_text(self) -> String {
        match self {
            Self::Number(text) => canonical(&text).into_owned(),
            Self::Text(text) => text,
        }
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens
            .get(self.at)
            .map_or(&Token::End, |(_, token)| token)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |(place, _)| *place)
    }

    fn wrong(&self, what: &str) -> Wrong {
        let found = match self.peek() {
            Token::Path(path) => format!("the path {path:?}"),
            Token::Word(word) => format!("{word:?}"),
            Token::Text(text) => format!("the text {text:?}"),
            Token::Number(number) => number.clone(),
            Token::Sign(sign) => format!("{sign:?}"),
            Token::End => "the end".to_owned(),
        };
        (self.place(), format!("{what}, found {found}"))
    }

    fn is_word(&self, keyword: &str) -> bool {
        matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let is = self.is_word(keyword);
        self.at += usize::from(is);
        is
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Token::Sign(s) if *s == sign);
        self.at += usize::from(is);
        is
    }

    fn need_sign(&mut self, sign: &str) -> Result<(), Wrong> {
        match self.take_sign(sign) {
            true => Ok(()),
            false => Err(self.wrong(&format!("expected {sign:?}"))),
        }
    }

    fn any(&mut self, depth: usize) -> Result<Condition, Wrong> {
        let mut parts = vec![self.all(depth)?];
        while self.take_word("OR") {
            parts.push(self.all(depth)?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Condition::Any(parts),
        })
    }

    fn all(&mut self, depth: usize) -> Result<Condition, Wrong> {
        let mut parts = vec![self.one(depth)?];
        while self.take_word("AND") {
            parts.push(self.one(depth)?);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Condition::All(parts),
        })
    }

    fn one(&mut self, depth: usize) -> Result<Condition, Wrong> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("not supported: more than 64 conditions within each other"));
        }
        if self.take_word("NOT") {
            return Ok(Condition::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take_sign("(") {
            let inner = self.any(depth + 1)?;
            self.need_sign(")")?;
            return Ok(inner);
        }
        self.condition()
    }

    fn atom(&mut self, path: &JsonPath, test: Test) -> Condition {
        self.atoms.push(Atom {
            path: path.steps.clone(),
            test,
        });
        Condition::Atom(self.atoms.len() - 1)
    }

    fn condition(&mut self) -> Result<Condition, Wrong> {
        let is_call = matches!(self.tokens.get(self.at + 1), Some((_, Token::Sign("("))));
        if is_call {
            if !self.take_word("REGEXP_LIKE") {
                return Err(self.wrong("not supported: functions other than REGEXP_LIKE"));
            }
            self.need_sign("(")?;
            let path = self.path()?;
            self.need_sign(",")?;
            let regex = self.regex()?;
            self.need_sign(")")?;
            return Ok(self.atom(&path, regex));
        }
        let path = self.path()?;
        for sign in ["=", "!=", "<=", ">=", "<", ">"] {
            if self.take_sign(sign) {
                let value = self.value()?;
                let test = match sign {
                    "=" => Test::In(vec![value.into_text()]),
                    "!=" => Test::NotIn(vec![value.into_text()]),
                    "<=" | "<" => range(None, Some((value, sign == "<="))),
                    _ => range(Some((value, sign == ">=")), None),
                };
                return Ok(self.atom(&path, test));
            }
        }
        if self.take_word("IS") {
            let negated = self.take_word("NOT");
            if !self.take_word("NULL") {
                return Err(self.wrong("expected NULL"));
            }
            let present = self.atom(&path, Test::Present);
            return Ok(match negated {
                true => present,
                false => Condition::Not(Box::new(present)),
            });
        }
        let negated = self.take_word("NOT");
        if self.take_word("IN") {
            self.need_sign("(")?;
            let mut values = vec![self.value()?.into_text()];
            while self.take_sign(",") {
                values.push(self.value()?.into_text());
            }
            self.need_sign(")")?;
            let test = match negated {
                true => Test::NotIn(values),
                false => Test::In(values),
            };
            return Ok(self.atom(&path, test));
        }
        if self.take_word("BETWEEN") {
            let low_at = self.place();
            let low = self.value()?;
            if !self.take_word("AND") {
                return Err(self.wrong("expected AND"));
            }
            let high = self.value()?;
            if matches!(low, Value::Number(_)) != matches!(high, Value::Number(_)) {
                return Err((
                    low_at,
                    "the bounds must be two numbers or two texts".to_owned(),
                ));
            }
            if !negated {
                return Ok(self.atom(&path, range(Some((low, true)), Some((high, true)))));
            }
            let below = self.atom(&path, range(None, Some((low, false))));
            let above = self.atom(&path, range(Some((high, false)), None));
            return Ok(Condition::Any(vec![below, above]));
        }
        Err(self.wrong("expected a comparison, IN, BETWEEN or IS NULL"))
    }

    fn path(&mut self) -> Result<JsonPath, Wrong> {
        let (text, quotes) = match self.tokens.get(self.at) {
            Some((at, Token::Path(text))) => (text.clone(), *at),
            Some((at, Token::Word(text))) => (text.clone(), *at),
            Some((_, Token::Text(_))) => {
                return Err(self.wrong("expected a path, which stands in double quotes: \"$.a\""));
            }
            _ => return Err(self.wrong("expected a path, such as \"$.a.b[*]\"")),
        };
        let path = JsonPath::parse_at(&text)
            .map_err(|(_, what)| (quotes, format!("{what} in the path {text:?}")))?;
        self.at += 1;
        Ok(path)
    }

    fn value(&mut self) -> Result<Value, Wrong> {
        let value = match self.peek() {
            Token::Number(number) => Value::Number(number.clone()),
            Token::Text(text) => Value::Text(text.clone()),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => {
                Value::Text("true".to_owned())
            }
            Token::Word(word) if word.eq_ignore_ascii_case("false") => {
                Value::Text("false".to_owned())
            }
            Token::Word(word) if word.eq_ignore_ascii_case("null") => {
                return Err(self.wrong("expected a value; write IS NULL or IS NOT NULL"));
            }
            _ => {
                return Err(self.wrong("expected a number, true, false or a text in single quotes"));
            }
        };
        self.at += 1;
        Ok(value)
    }

    fn regex(&mut self) -> Result<Test, Wrong> {
        let Token::Text(pattern) = self.peek() else {
            return Err(self.wrong("expected a pattern in single quotes"));
        };
        // Of the pattern alone first: the whole would close a group that it leaves open.
        let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(1 << 20).build();
        let regex = compile(pattern).and_then(|_| compile(&format!("^(?:{pattern})$")));
        match regex {
            Ok(regex) => {
                self.at += 1;
                Ok(Test::Regex(regex))
            }
            Err(error) => {
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default().to_owned();
                Err(self.wrong(&format!("not supported: the pattern, {reason}")))
            }
        }
    }
}

fn range(low: Option<(Value, bool)>, high: Option<(Value, bool)>) -> Test {
    let number = |bound: &Option<(Value, bool)>| match bound {
        Some((Value::Number(text), included)) => Number::parse(text).map(|n| (n, *included)),
        _ => None,
    };
    let (low_number, high_number) = (number(&low), number(&high));
    if low_number.is_some() || high_number.is_some() {
        return Test::Numbers {
            low: low_number,
            high: high_number,
        };
    }
    let text = |bound: Option<(Value, bool)>| bound.map(|(v, included)| (v.into_text(), included));
    Test::Texts {
        low: text(low),
        high: text(high),
    }
}
