//! Patterns on text, with the meaning that Arrow's kernels (and so the plan above the leaf) give them.

use arrow::array::{BooleanArray, Scalar, StringArray};
use arrow::compute::kernels::comparison::{ilike, like};
use arrow::compute::regexp_is_match_scalar;
use strandline_proto::{Error, Result};

/// LIKE, ILIKE, `~` or `~*` against a fixed pattern.
#[derive(Clone, Debug)]
pub(in crate::leaf) struct TextTest {
    pattern: String,
    kind: Kind,
    case_insensitive: bool,
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
        })
    }

    /// `~` or `~*`; an error when the pattern is not a regular expression.
    pub(super) fn regex(pattern: &str, case_insensitive: bool) -> Result<Self> {
        let test = Self {
            pattern: pattern.to_owned(),
            kind: Kind::Regex,
            case_insensitive,
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
