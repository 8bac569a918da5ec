//! Patterns of texts: `LIKE`, and regular expressions in linear time.

use regex::{Regex, RegexBuilder};
use strandline_proto::{Error, Result};

/// Memory of a compiled regular expression.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A compiled pattern; two are equal when their texts are.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Like { parts: Vec<Part>, fold: bool },
    Regular(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// `%`: any characters.
    Any,
    /// `_`: one character.
    One,
    Char(char),
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        let fold = |kind: &Kind| match kind {
            Kind::Like { fold, .. } => Some(*fold),
            Kind::Regular(_) => None,
        };
        self.text == other.text && fold(&self.kind) == fold(&other.kind) && {
            match (&self.kind, &other.kind) {
                // The escape character may be another.
                (Kind::Like { parts: a, .. }, Kind::Like { parts: b, .. }) => a == b,
                _ => true,
            }
        }
    }
}

impl Pattern {
    /// The pattern of `LIKE`; `fold` compares without regard to case.
    pub(super) fn like(text: &str, escape: Option<char>, fold: bool) -> Result<Self> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let part = if Some(c) == escape {
                let next = chars.next().ok_or_else(|| {
                    Error::invalid(format!("the pattern '{text}' ends in its escape character"))
                })?;
                Part::Char(next)
            } else {
                match c {
                    '%' => Part::Any,
                    '_' => Part::One,
                    c => Part::Char(c),
                }
            };
            match part {
                Part::Any if parts.last() == Some(&Part::Any) => {}
                Part::Char(c) if fold => parts.extend(c.to_lowercase().map(Part::Char)),
                part => parts.push(part),
            }
        }
        Ok(Self {
            text: text.to_owned(),
            kind: Kind::Like { parts, fold },
        })
    }

    /// A regular expression that is looked for anywhere in a text.
    pub(super) fn regular(text: &str) -> Result<Self> {
        let regex = RegexBuilder::new(text)
            .size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|e| {
                let e = e.to_string();
                let last = e.lines().last().unwrap_or_default().trim().to_owned();
                Error::invalid(format!("the regular expression '{text}': {last}"))
            })?;
        Ok(Self {
            text: text.to_owned(),
            kind: Kind::Regular(regex),
        })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Regular(regex) => regex.is_match(text),
            Kind::Like { parts, fold: true } => matches_like(parts, &text.to_lowercase()),
            Kind::Like { parts, fold: false } => matches_like(parts, text),
        }
    }
}

/// Goes back to the last `%` only, so the time is at most the product of the lengths.
fn matches_like(parts: &[Part], text: &str) -> bool {
    let (mut at, mut rest) = (0, text.chars());
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let before = rest.clone();
        match (parts.get(at), rest.next()) {
            (Some(Part::Any), _) => {
                at += 1;
                rest = before.clone();
                retry = Some((at, before));
                continue;
            }
            (None, None) => return true,
            (Some(Part::One), Some(_)) => {
                at += 1;
                continue;
            }
            (Some(Part::Char(wanted)), Some(found)) if *wanted == found => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        at = *after;
        rest = from.clone();
    }
}
