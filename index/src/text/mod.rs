//! Text indexes: the documents that hold a word, and the places where it stands in each.
//!
//! What a word is, and what is asked of words, is the caller's: writers are given words with their places, readers give documents
//! by word. [`ImmutableText`] keeps them as a tantivy index of one segment whose document numbers are the column's; [`MutableText`],
//! of a consuming column, in pieces of its own. Both are read through [`TextPostings`], and [`DocSet`] holds what was found.
//!
//! # Layout of the section
//!
//! ```text
//! | head length u32 | CRC32C of the head u32 | head | the files' bytes, one after the other |
//! head: | format u32 = 1 | documents u32 | key length u32 | key | files u32 |, then for each file
//!       | name length u32 | name | length u64 | CRC32C u32 |
//! ```
//!
//! The key names how text became words; whoever asks for words of another kind must not ask this index. The files are tantivy's, with the
//! segment's random name replaced by zeros, so that the same rows give the same bytes. Opening a column checks the head; the files
//! are checked when they are first asked.

mod directory;
mod pieces;
mod read;
#[cfg(test)]
mod tests;
mod write;

use crate::doc_set::DocSet;
use crate::reader::{DocId, IndexError};
use crate::wire::corrupt;

pub use pieces::{MutableText, TextView, WordsOf};
pub use read::ImmutableText;
pub use write::TextIndexWriter;

/// Documents by word.
pub trait TextPostings: Send + Sync {
    /// How text became words.
    fn key(&self) -> &str;
    /// The documents below this number are in the index.
    fn num_docs(&self) -> u32;
    /// Adds the documents that hold `word`.
    ///
    /// # Errors
    /// When stored bytes are damaged; likewise below.
    fn fill(&self, word: &str, out: &mut DocSet) -> Result<(), IndexError>;
    /// Adds the documents that hold a word which begins with `prefix` and which `matches`.
    fn fill_matching(
        &self,
        prefix: &str,
        matches: &dyn Fn(&str) -> bool,
        out: &mut DocSet,
    ) -> Result<(), IndexError>;
    /// A walk over the documents that hold `word`, ascending.
    fn walk(&self, word: &str) -> Result<Box<dyn WordWalk + '_>, IndexError>;
}

/// The documents of a word and its places in them.
pub trait WordWalk {
    /// The document the walk is at; none at the end.
    fn doc(&self) -> Option<DocId>;
    /// Goes to the first document that is not below `doc`.
    fn seek(&mut self, doc: DocId);
    /// Appends the places of the word in the document, ascending.
    fn places(&mut self, out: &mut Vec<u32>);
}

/// What tantivy says, as an error of the index.
fn failed(error: &tantivy::TantivyError) -> IndexError {
    corrupt(format!("a text index: {error}"))
}
