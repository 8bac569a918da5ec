//! The classic syntax of Lucene's query parser.
//!
//! ```text
//! query   = clause { [AND | && | OR | ||] clause }
//! clause  = [+ | - | ! | NOT] (word | "phrase" | (query) | /regex/ | wild*card?) [~number] [^number]
//! ```
//!
//! A backslash takes the meaning from the character behind it. `^` weighs matches in Lucene; here, where nothing is ranked, it
//! changes nothing. AND makes the clauses on both of its sides needed, and doesn't bind stronger than OR: parentheses do.

use super::analysis::Analyzer;
use super::pattern::{Glob, TermPattern};
use super::query::{Phrase, TextQuery};
use crate::{Error, Result};

/// Parentheses within each other.
const DEPTH_MAX: usize = 64;
/// The largest distance of a phrase's words.
const SLOP_MAX: f64 = 500.0;
/// The most edits of a fuzzy word.
const EDITS_MAX: f64 = 2.0;

impl TextQuery {
    /// Parses a query; `all_needed`: clauses that nothing joins are joined by AND.
    pub(super) fn parse(text: &str, analyzer: &Analyzer, all_needed: bool) -> Result<Self> {
        let mut parser = Parser {
            chars: text.chars().collect(),
            at: 0,
            analyzer,
            all_needed,
            depth: 0,
        };
        let query = parser.query()?;
        match parser.peek() {
            None => Ok(query.unwrap_or(Self::Nothing)),
            Some(c) => Err(parser.error(
                parser.at,
                &format!("a {c} that nothing opens; for the character itself write \\{c}"),
            )),
        }
    }
}

/// How a clause takes part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occur {
    Must,
    Should,
    MustNot,
}

/// What stands between a clause and the one before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    Nothing,
    And,
    Or,
}

struct Parser<'a> {
    chars: Vec<char>,
    at: usize,
    analyzer: &'a Analyzer,
    all_needed: bool,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn peek_at(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    /// Takes an operator that is written as a word, or a doubled sign.
    fn eat_word(&mut self, word: &str) -> bool {
        let len = word.chars().count();
        let found = word
            .chars()
            .enumerate()
            .all(|(i, c)| self.peek_at(i) == Some(c))
            && !self
                .peek_at(len)
                .is_some_and(|c| is_word_char(c) || matches!(c, '\\' | '*' | '?'));
        if found {
            self.at += len;
        }
        found
    }

    fn error(&self, at: usize, what: &str) -> Error {
        Error::invalid(format!("the text query, at character {}: {what}", at + 1))
    }

    fn unsupported(&self, at: usize, what: &str) -> Error {
        Error::unsupported(format!(
            "the text query, at character {}: not supported: {what}",
            at + 1
        ))
    }

    /// Clauses up to the end or a closing parenthesis; none when no words are left of them.
    fn query(&mut self) -> Result<Option<TextQuery>> {
        let start = self.at;
        let mut clauses: Vec<(Occur, TextQuery)> = Vec::new();
        let mut number = 0;
        // The only clause, if it is without a sign: it is the query itself.
        let mut only = false;
        loop {
            self.skip_space();
            if matches!(self.peek(), None | Some(')')) {
                break;
            }
            let joined_at = self.at;
            let joined = if self.eat_word("AND") || self.eat_word("&&") {
                Joined::And
            } else if self.eat_word("OR") || self.eat_word("||") {
                Joined::Or
            } else {
                Joined::Nothing
            };
            self.skip_space();
            if joined != Joined::Nothing && number == 0 {
                return Err(self.error(joined_at, "AND or OR without anything before it"));
            }
            let sign_at = self.at;
            let sign = self.sign();
            if let Some(sign) = sign
                && sign != Occur::Should
            {
                self.skip_space();
            }
            if matches!(self.peek(), None | Some(')')) {
                return Err(self.error(
                    if joined == Joined::Nothing { sign_at } else { joined_at },
                    "an operator without anything behind it; for a sign itself write a \\ before it",
                ));
            }
            let operand_at = self.at;
            if ["AND", "OR", "NOT", "&&", "||"]
                .iter()
                .any(|word| self.eat_word(word))
            {
                let what =
                    "an operator where a word may stand; for the word itself write it in quotes";
                return Err(self.error(operand_at, what));
            }
            let clause = match sign {
                // A sign by itself is a word without letters.
                Some(Occur::Should) => None,
                _ => self.clause()?,
            };
            number += 1;
            only = number == 1 && sign.is_none();
            if joined == Joined::And
                && let Some((occur, _)) = clauses.last_mut()
                && *occur == Occur::Should
            {
                *occur = Occur::Must;
            }
            if self.all_needed
                && joined == Joined::Or
                && let Some((occur, _)) = clauses.last_mut()
                && *occur == Occur::Must
            {
                *occur = Occur::Should;
            }
            let Some(clause) = clause else { continue };
            let needed = if self.all_needed {
                joined != Joined::Or
            } else {
                joined == Joined::And
            };
            let occur = match sign {
                Some(Occur::MustNot) => Occur::MustNot,
                Some(Occur::Must) if !self.all_needed => Occur::Must,
                _ if needed => Occur::Must,
                _ => Occur::Should,
            };
            clauses.push((occur, clause));
        }
        if number == 0 {
            let what = "words, a \"phrase\" or a /pattern/ are missing";
            return Err(self.error(start, what));
        }
        if clauses.is_empty() {
            return Ok(None);
        }
        if only && clauses.len() == 1 {
            return Ok(clauses.pop().map(|(_, query)| query));
        }
        let (mut must, mut should, mut must_not) = (Vec::new(), Vec::new(), Vec::new());
        for (occur, query) in clauses {
            match occur {
                Occur::Must => must.push(query),
                Occur::Should => should.push(query),
                Occur::MustNot => must_not.push(query),
            }
        }
        Ok(Some(TextQuery::Boolean {
            must,
            should,
            must_not,
        }))
    }

    /// The sign before a clause; `Should` for one that stands by itself.
    fn sign(&mut self) -> Option<Occur> {
        if self.eat_word("NOT") {
            return Some(Occur::MustNot);
        }
        let occur = match self.peek()? {
            '+' => Occur::Must,
            '-' | '!' => Occur::MustNot,
            _ => return None,
        };
        self.at += 1;
        Some(if self.peek().is_none_or(is_space) {
            Occur::Should
        } else {
            occur
        })
    }

    fn clause(&mut self) -> Result<Option<TextQuery>> {
        let start = self.at;
        let found = match self.peek() {
            Some('(') => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    let what = format!("more than {DEPTH_MAX} parentheses within each other");
                    return Err(self.error(start, &what));
                }
                self.at += 1;
                let query = self.query()?;
                if !self.eat(')') {
                    return Err(self.error(
                        start,
                        "a ( that nothing closes; for the character itself write \\(",
                    ));
                }
                self.depth -= 1;
                query
            }
            Some('"') => self.phrase()?,
            Some('/') => self.regex()?,
            _ => self.word()?,
        };
        if self.peek() == Some('~') {
            return Err(self.error(
                self.at,
                "~ belongs behind a word or a phrase; for the character itself write \\~",
            ));
        }
        if self.eat('^') && self.number()?.is_none() {
            return Err(self.error(
                self.at,
                "a number is missing behind ^; for the character itself write \\^",
            ));
        }
        Ok(found)
    }

    fn phrase(&mut self) -> Result<Option<TextQuery>> {
        let start = self.at;
        let text = self.quoted('"')?;
        let mut words: Vec<(u32, String)> = Vec::new();
        self.analyzer.words(&text, 0, &mut |place, word| {
            words.push((place, word.to_owned()))
        });
        let slop_at = self.at;
        let slop = if self.eat('~') {
            let slop = self.number()?.unwrap_or(0.0);
            if slop.fract() != 0.0 || slop > SLOP_MAX {
                let what = format!("the distance of a phrase is a whole number up to {SLOP_MAX}");
                return Err(self.error(slop_at, &what));
            }
            slop as u32
        } else {
            0
        };
        let first = words.first().map_or(0, |(place, _)| *place);
        words.iter_mut().for_each(|(place, _)| *place -= first);
        if slop > 0 {
            let mut distinct: Vec<&String> = words.iter().map(|(_, word)| word).collect();
            distinct.sort_unstable();
            if distinct.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(
                    self.unsupported(start, "a distance for a phrase in which a word comes twice")
                );
            }
        }
        Ok(match words.len() {
            0 => None,
            1 => words.pop().map(|(_, word)| TextQuery::Term(word)),
            _ => Some(TextQuery::Phrase(Phrase { words, slop })),
        })
    }

    fn regex(&mut self) -> Result<Option<TextQuery>> {
        let start = self.at;
        let mut pattern = String::new();
        self.at += 1;
        loop {
            match self.peek() {
                None => {
                    return Err(self.error(
                        start,
                        "a / that nothing closes; for the character itself write \\/",
                    ));
                }
                Some('/') => break,
                Some('\\') if self.peek_at(1) == Some('/') => {
                    pattern.push('/');
                    self.at += 1;
                }
                Some('\\') => {
                    pattern.push('\\');
                    if let Some(c) = self.peek_at(1) {
                        pattern.push(c);
                        self.at += 1;
                    }
                }
                Some(c) => pattern.push(c),
            }
            self.at += 1;
        }
        self.at += 1;
        let pattern = TermPattern::regex(&pattern, self.analyzer.is_case_sensitive())
            .map_err(|e| self.error(start, &format!("not a regular expression: {e}")))?;
        Ok(Some(TextQuery::Pattern(pattern)))
    }

    /// A word, or what a wildcard makes of it.
    fn word(&mut self) -> Result<Option<TextQuery>> {
        let start = self.at;
        let mut parts = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                '*' => parts.push(Glob::Any),
                '?' => parts.push(Glob::One),
                '\\' => {
                    let Some(escaped) = self.peek_at(1) else {
                        return Err(self.error(
                            self.at,
                            "a \\ with nothing behind it; for the character itself write \\\\",
                        ));
                    };
                    parts.push(Glob::Is(escaped));
                    self.at += 1;
                }
                '+' | '-' if !parts.is_empty() => parts.push(Glob::Is(c)),
                c if is_word_char(c) => parts.push(Glob::Is(c)),
                _ => break,
            }
            self.at += 1;
        }
        match self.peek() {
            Some(':') => {
                return Err(self.unsupported(
                    self.at,
                    "a field's name before a colon, since TEXT_MATCH names its column; for the character itself write \\:",
                ));
            }
            Some(c @ ('[' | ']' | '{' | '}')) => {
                return Err(self.unsupported(
                    self.at,
                    &format!("a range of words; for the character itself write \\{c}"),
                ));
            }
            Some(c) if parts.is_empty() => {
                return Err(self.error(
                    self.at,
                    &format!("a {c} where a word may stand; for the character itself write \\{c}"),
                ));
            }
            _ => {}
        }
        let is_pattern = parts.iter().any(|part| !matches!(part, Glob::Is(_)));
        if is_pattern {
            if self.peek() == Some('~') {
                return Err(self.unsupported(self.at, "a fuzzy pattern"));
            }
            let fold = |part: Glob| match part {
                Glob::Is(c) => {
                    let folded = self.analyzer.fold(c.encode_utf8(&mut [0; 4]));
                    folded.chars().map(Glob::Is).collect()
                }
                other => vec![other],
            };
            let parts = parts.into_iter().flat_map(fold).collect();
            return Ok(Some(TextQuery::Pattern(TermPattern::wildcard(parts))));
        }
        let text: String = parts
            .iter()
            .filter_map(|part| match part {
                Glob::Is(c) => Some(*c),
                _ => None,
            })
            .collect();
        if self.eat('~') {
            return self.fuzzy(start, &text).map(Some);
        }
        let mut words = Vec::new();
        self.analyzer.words(&text, 0, &mut |_, word| {
            words.push(TextQuery::Term(word.to_owned()))
        });
        Ok(match words.len() {
            0 => None,
            1 => words.pop(),
            _ => {
                let (must, should) = match self.all_needed {
                    true => (words, Vec::new()),
                    false => (Vec::new(), words),
                };
                Some(TextQuery::Boolean {
                    must,
                    should,
                    must_not: Vec::new(),
                })
            }
        })
    }

    fn fuzzy(&mut self, start: usize, text: &str) -> Result<TextQuery> {
        let word = self.analyzer.fold(text);
        let given = self.number()?.unwrap_or(EDITS_MAX);
        let edits = if given >= 1.0 {
            if given.fract() != 0.0 || given > EDITS_MAX {
                let what = "a fuzzy word takes ~1 or ~2 edits, or a likeness between 0 and 1";
                return Err(self.error(start, what));
            }
            given
        } else if given == 0.0 {
            0.0
        } else {
            // The likeness that old queries name: the share of characters that stay.
            ((1.0 - given) * word.chars().count() as f64 + 1e-6)
                .floor()
                .min(EDITS_MAX)
        };
        Ok(TextQuery::Pattern(TermPattern::fuzzy(&word, edits as u32)))
    }

    /// The text up to a closing mark, without the backslashes before escaped characters.
    fn quoted(&mut self, mark: char) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => {
                    return Err(self.error(
                        start,
                        "a \" that nothing closes; for the character itself write \\\"",
                    ));
                }
                Some(c) if c == mark => break,
                Some('\\') => {
                    self.at += 1;
                    text.extend(self.peek());
                }
                Some(c) => text.push(c),
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(text)
    }

    /// The number here, if there is one.
    fn number(&mut self) -> Result<Option<f64>> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit() || c == '.') {
            self.at += 1;
        }
        let digits: String = self
            .chars
            .get(start..self.at)
            .unwrap_or_default()
            .iter()
            .collect();
        if digits.is_empty() {
            return Ok(None);
        }
        match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.error(start, &format!("{digits} is not a number"))),
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{3000}')
}

/// Whether a character may begin a word as it is.
fn is_word_char(c: char) -> bool {
    !is_space(c)
        && !matches!(
            c,
            '+' | '-'
                | '!'
                | '('
                | ')'
                | ':'
                | '^'
                | '['
                | ']'
                | '"'
                | '{'
                | '}'
                | '~'
                | '*'
                | '?'
                | '\\'
                | '/'
        )
}
