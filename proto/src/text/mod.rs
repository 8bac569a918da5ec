//! `TEXT_MATCH`: which texts a query in the classic syntax of Lucene's parser matches.
//!
//! The meaning stands here once: [`TextSettings`] say how text becomes words, [`TextQuery`] is what was asked of them, and
//! [`TextMatcher`] holds a text against it. An index gives the same answers faster; where there is none, and above a leaf,
//! the matcher itself answers.
//!
//! *Words* are those of Unicode's word boundaries (UAX #29) that hold a letter or a digit, in lower case unless the settings
//! say otherwise, those of more than 255 characters in pieces. Stop words are left out, and what stands behind one keeps its place,
//! so that a phrase with a stop word asks for a gap. The words of all of a row's values belong to it, but a phrase lies within one value.
//!
//! *Queries*: `word`, `"a phrase"`, `"near words"~3`, `pre*`, `w?ld*c*rd`, `fuzzy~` (two edits; `~1`: one), `/regex/` of whole words,
//! `AND OR NOT + - ( )`, words that nothing joins being joined by OR (or AND, by the settings). As in Lucene, `a AND b` makes both
//! needed, `-b` alone matches nothing, and a fuzzy word is less than its own or the found word's length away from it.

mod analysis;
mod matcher;
mod parse;
mod pattern;
mod query;
#[cfg(test)]
mod tests;

pub use analysis::{Analyzer, STOP_WORDS, TextSettings, VALUE_GAP};
pub use matcher::{TextMatcher, Words};
pub use pattern::TermPattern;
pub use query::{Phrase, TextQuery, positions_fit};
