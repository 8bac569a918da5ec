//! Patterns of single words.

use regex::Regex;

/// Which words match: of a prefix, a wildcard pattern, a fuzzy word or a regular expression.
#[derive(Clone, Debug)]
pub struct TermPattern {
    prefix: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// All that begin with the prefix.
    Prefix,
    Wildcard(Vec<Glob>),
    Fuzzy {
        word: Vec<char>,
        edits: u32,
    },
    Regex(Regex),
}

/// A part of a wildcard pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glob {
    /// This character.
    Is(char),
    /// `?`: any one.
    One,
    /// `*`: any number of any.
    Any,
}

impl TermPattern {
    /// A wildcard pattern; one that is plain text but for a last `*` is a prefix.
    pub(super) fn wildcard(parts: Vec<Glob>) -> Self {
        let literal = parts.iter().map_while(|part| match part {
            Glob::Is(c) => Some(*c),
            _ => None,
        });
        let prefix: String = literal.collect();
        let is_prefix =
            parts.last() == Some(&Glob::Any) && parts.len() == prefix.chars().count() + 1;
        let kind = if is_prefix {
            Kind::Prefix
        } else {
            Kind::Wildcard(parts)
        };
        Self { prefix, kind }
    }

    /// Words within so many edits: a character put in, taken out or replaced, or two neighbours swapped.
    pub(super) fn fuzzy(word: &str, edits: u32) -> Self {
        Self {
            prefix: String::new(),
            kind: Kind::Fuzzy {
                word: word.chars().collect(),
                edits,
            },
        }
    }

    /// Whole words that a regular expression matches; an error when it is none.
    pub(super) fn regex(pattern: &str, case_sensitive: bool) -> Result<Self, regex::Error> {
        let flags = if case_sensitive { "s" } else { "si" };
        // The pattern by itself first, so that it can't close the group that is put around it.
        Regex::new(pattern)?;
        Ok(Self {
            prefix: String::new(),
            kind: Kind::Regex(Regex::new(&format!("^(?{flags}:{pattern})$"))?),
        })
    }

    /// What every matching word begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether `word` matches.
    pub fn matches(&self, word: &str) -> bool {
        match &self.kind {
            Kind::Prefix => word.starts_with(&self.prefix),
            Kind::Wildcard(parts) => word.starts_with(&self.prefix) && glob(parts, word),
            Kind::Fuzzy { word: asked, edits } => fuzzy(asked, *edits, word),
            Kind::Regex(regex) => regex.is_match(word),
        }
    }
}

/// Whether a word matches a wildcard pattern: forward, and back to the last `*` when it doesn't go on.
fn glob(parts: &[Glob], word: &str) -> bool {
    let mut chars = word.chars();
    let mut at = 0;
    // Behind the last `*`, and the characters from where it stopped taking any.
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        match parts.get(at) {
            Some(Glob::Any) => {
                at += 1;
                retry = Some((at, chars.clone()));
                continue;
            }
            Some(part) => {
                if let Some(c) = chars.next()
                    && (*part == Glob::One || *part == Glob::Is(c))
                {
                    at += 1;
                    continue;
                }
            }
            None if chars.as_str().is_empty() => return true,
            None => {}
        }
        let Some((behind, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        at = *behind;
        chars = from.clone();
    }
}

/// Whether the least number of edits between the words is at most `edits`, and zero or below the length of the shorter.
fn fuzzy(asked: &[char], edits: u32, word: &str) -> bool {
    let edits = edits as usize;
    // A character takes four bytes at most.
    if word.len() + edits < asked.len() || word.len() / 4 > asked.len() + edits {
        return false;
    }
    let found: Vec<char> = word.chars().collect();
    if found.len().abs_diff(asked.len()) > edits {
        return false;
    }
    let shorter = found.len().min(asked.len());
    match distance(asked, &found, edits) {
        Some(0) => true,
        Some(distance) => distance < shorter,
        None => false,
    }
}

/// The optimal string alignment distance, when it is at most `most`.
fn distance(a: &[char], b: &[char], most: usize) -> Option<usize> {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        let mut least = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                cost = cost.min(before[j - 1] + 1);
            }
            least = least.min(cost);
            row.push(cost);
        }
        if least > most {
            return None;
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().filter(|&distance| distance <= most)
}
