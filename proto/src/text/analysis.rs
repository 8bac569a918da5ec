//! From text to words.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use unicode_segmentation::{UNICODE_VERSION, UnicodeSegmentation};

/// The stop words of a column that names none: those that Pinot leaves out.
pub const STOP_WORDS: [&str; 35] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "than", "that", "the", "their", "then", "there",
    "these", "they", "this", "those", "to", "was", "will", "with",
];

/// Places between the last word of a row's value and the first of its next: wider than any distance a phrase can ask for.
pub const VALUE_GAP: u32 = 1_000;

/// The last place that is counted: words behind it share it.
const PLACE_MAX: u32 = 1 << 30;

/// Characters of the longest word; longer ones are cut in pieces of so many.
const WORD_CHARS_MAX: usize = 255;

/// How a column's text is searched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSettings {
    /// Whether `Word` and `word` differ.
    #[serde(default)]
    pub case_sensitive: bool,
    /// Words that are left out, in lower case.
    pub stop_words: BTreeSet<String>,
    /// Whether words that no operator joins are all needed.
    #[serde(default)]
    pub all_needed: bool,
}

impl Default for TextSettings {
    fn default() -> Self {
        Self {
            case_sensitive: false,
            stop_words: STOP_WORDS.iter().map(|&word| word.to_owned()).collect(),
            all_needed: false,
        }
    }
}

impl TextSettings {
    /// The settings as text, as queries carry them.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What `TEXT_MATCH` was given as its third argument: settings as [`TextSettings::to_json`] writes them, or Pinot's
    /// options, `name=value` with commas between them, on top of these.
    ///
    /// # Errors
    /// `InvalidArgument` for an option that is not known, `Unsupported` for one that would change the answer.
    pub fn with_options(self, options: &str) -> Result<Self> {
        if options.trim_start().starts_with('{') {
            return serde_json::from_str(options)
                .map_err(|e| Error::invalid(format!("the settings of TEXT_MATCH: {e}")));
        }
        let mut settings = self;
        for option in options.split(',').filter(|o| !o.trim().is_empty()) {
            let (name, value) = option.split_once('=').ok_or_else(|| {
                Error::invalid(format!(
                    "the option {:?} of TEXT_MATCH is not of the form name=value",
                    option.trim()
                ))
            })?;
            let (name, value) = (name.trim(), value.trim());
            let known = match name.to_ascii_lowercase().as_str() {
                "parser" => value.eq_ignore_ascii_case("classic"),
                "defaultoperator" => {
                    settings.all_needed = value.eq_ignore_ascii_case("and");
                    settings.all_needed || value.eq_ignore_ascii_case("or")
                }
                "allowleadingwildcard" => value.eq_ignore_ascii_case("true"),
                _ => false,
            };
            if !known {
                return Err(Error::unsupported(format!(
                    "not supported: the option {name}={value} of TEXT_MATCH; there are parser=CLASSIC, defaultOperator=AND or OR, \
                     and allowLeadingWildcard=true"
                )));
            }
        }
        Ok(settings)
    }

    /// Names how text becomes words: an index that was built under another name holds other words.
    pub fn words_key(&self) -> String {
        let (major, minor, patch) = UNICODE_VERSION;
        let case = if self.case_sensitive { "kept" } else { "lower" };
        let stop: Vec<&str> = self.stop_words.iter().map(String::as_str).collect();
        format!(
            "unicode {major}.{minor}.{patch} words, case {case}, without {}",
            stop.join(" ")
        )
    }
}

/// Makes words of text.
#[derive(Clone, Debug)]
pub struct Analyzer {
    case_sensitive: bool,
    stop_words: HashSet<String>,
    stop_bytes_max: usize,
}

impl Analyzer {
    /// The analyzer that settings ask for.
    pub fn new(settings: &TextSettings) -> Self {
        Self {
            case_sensitive: settings.case_sensitive,
            stop_words: settings.stop_words.iter().cloned().collect(),
            stop_bytes_max: settings
                .stop_words
                .iter()
                .map(String::len)
                .max()
                .unwrap_or(0),
        }
    }

    /// Calls `sink` with the words of `text` and their places, the first word's being `from`, and gives the place behind the last.
    pub fn words(&self, text: &str, from: u32, sink: &mut dyn FnMut(u32, &str)) -> u32 {
        let mut place = from;
        let mut folded = String::new();
        for word in text.unicode_words() {
            let mut rest = word;
            while !rest.is_empty() {
                let cut = match rest.char_indices().nth(WORD_CHARS_MAX) {
                    Some((cut, _)) if rest.len() > WORD_CHARS_MAX => cut,
                    _ => rest.len(),
                };
                let (piece, later) = rest.split_at(cut);
                self.fold_into(piece, &mut folded);
                if !self.is_stop_word(&folded) {
                    sink(place, &folded);
                }
                place = place.saturating_add(1).min(PLACE_MAX);
                rest = later;
            }
        }
        place
    }

    /// Calls `sink` with the words of all of a row's values.
    pub fn words_of<'a>(
        &self,
        values: impl IntoIterator<Item = &'a str>,
        sink: &mut dyn FnMut(u32, &str),
    ) {
        let mut place = 0;
        for value in values {
            place = (self.words(value, place, sink) + VALUE_GAP).min(PLACE_MAX);
        }
    }

    /// Whether words keep their case.
    pub(super) fn is_case_sensitive(&self) -> bool {
        self.case_sensitive
    }

    /// Text as words have it.
    pub fn fold(&self, text: &str) -> String {
        let mut folded = String::new();
        self.fold_into(text, &mut folded);
        folded
    }

    fn fold_into(&self, text: &str, folded: &mut String) {
        folded.clear();
        if self.case_sensitive {
            folded.push_str(text);
        } else if text.is_ascii() {
            folded.push_str(text);
            folded.make_ascii_lowercase();
        } else {
            // Character by character, so that a word's form doesn't depend on where it was cut.
            folded.extend(text.chars().flat_map(char::to_lowercase));
        }
    }

    fn is_stop_word(&self, folded: &str) -> bool {
        if folded.len() > self.stop_bytes_max {
            return false;
        }
        if self.case_sensitive {
            let lower: String = folded.chars().flat_map(char::to_lowercase).collect();
            return self.stop_words.contains(&lower);
        }
        self.stop_words.contains(folded)
    }
}
