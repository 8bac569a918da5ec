//! Patterns on text, with the meaning that Arrow's kernels (and so the plan above the leaf) give them.

use arrow::array::{BooleanArray, Scalar, StringArray};
use arrow::compute::kernels::comparison::{ilike, like};
use arrow::compute::regexp_is_match_scalar;
use std::sync::{Arc, OnceLock};
use strandline_index::fst::FstPattern;
use strandline_proto::{Error, Result};

/// LIKE, ILIKE, `~` or `~*` against a fixed pattern.
#[derive(Clone, Debug)]
pub(in crate::leaf) struct TextTest {
    pattern: String,
    kind: Kind,
    case_insensitive: bool,
    /// The pattern for FST indexes, made when one is met.
    fst: Arc<OnceLock<Option<FstPattern>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Like,
    Regex,
}

impl TextTest {
    /// LIKE or ILIKE.
    pub(super) fn like(pattern: &str, case_insensitive: bool) -> Result<Self> {
        Ok(Self {
            pattern: pattern.to_owned(),
            kind: Kind::Like,
            case_insensitive,
            fst: Arc::default(),
        })
    }

    /// `~` or `~*`; an error when the pattern is not a regular expression.
    pub(super) fn regex(pattern: &str, case_insensitive: bool) -> Result<Self> {
        let test = Self {
            pattern: pattern.to_owned(),
            kind: Kind::Regex,
            case_insensitive,
            fst: Arc::default(),
        };
        test.matches(&StringArray::from(vec![""]))?;
        Ok(test)
    }

    /// Which of `values` match.
    pub(super) fn matches(&self, values: &StringArray) -> Result<BooleanArray> {
        let matches = match (self.kind, self.case_insensitive) {
            (Kind::Like, false) => like(
                values,
                &Scalar::new(StringArray::from(vec![self.pattern.as_str()])),
            ),
            (Kind::Like, true) => ilike(
                values,
                &Scalar::new(StringArray::from(vec![self.pattern.as_str()])),
            ),
            (Kind::Regex, insensitive) => {
                regexp_is_match_scalar(values, &self.pattern, insensitive.then_some("i"))
            }
        };
        matches.map_err(|error| {
            Error::invalid(format!(
                "the pattern {:?} can't be used: {error}",
                self.pattern
            ))
        })
    }

    /// The pattern for an FST index, where one answers it faster than a look at each text: it must match from the beginning of a text
    /// on, and begins with no literal, by which a sorted dictionary is faster still.
    pub(super) fn fst_pattern(&self) -> Option<&FstPattern> {
        self.fst.get_or_init(|| self.new_fst_pattern()).as_ref()
    }

    fn new_fst_pattern(&self) -> Option<FstPattern> {
        let flags = if self.case_insensitive { "i" } else { "" };
        match self.kind {
            Kind::Like if self.prefix().is_some() => None,
            Kind::Like => FstPattern::new(&format!("(?s{flags}){}", like_regex(&self.pattern)?)),
            Kind::Regex if flags.is_empty() => FstPattern::new(&self.pattern),
            Kind::Regex => FstPattern::new(&format!("(?{flags}){}", self.pattern)),
        }
    }

    /// For a case-sensitive LIKE: the literal text that every match begins with, and whether any text that
    /// begins with it matches.
    pub(super) fn prefix(&self) -> Option<(&str, bool)> {
        if self.kind != Kind::Like || self.case_insensitive {
            return None;
        }
        let end = self
            .pattern
            .find(['%', '_', '\\'])
            .unwrap_or(self.pattern.len());
        (end > 0).then(|| (&self.pattern[..end], &self.pattern[end..] == "%"))
    }
}

/// The regular expression of a LIKE pattern; none for one that begins with `%`.
fn like_regex(pattern: &str) -> Option<String> {
    let mut regex = String::from("^");
    let mut chars = pattern.chars();
    if pattern.starts_with('%') {
        return None;
    }
    while let Some(c) = chars.next() {
        match c {
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '\\' => {
                let escaped = chars.next().unwrap_or('\\');
                push_literal(&mut regex, escaped);
            }
            c => push_literal(&mut regex, c),
        }
    }
    // What follows the beginning doesn't matter then.
    match regex.strip_suffix(".*") {
        Some(beginning) => Some(beginning.to_owned()),
        None => Some(regex + "$"),
    }
}

fn push_literal(regex: &mut String, c: char) {
    // Before these two a backslash gives a meaning.
    if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
        regex.push('\\');
    }
    regex.push(c);
}
