//! A text query held against texts, word by word.

use super::analysis::{Analyzer, TextSettings};
use super::query::{TextQuery, positions_fit};
use crate::Result;

/// A query made ready, with the settings it is asked under.
#[derive(Clone, Debug)]
pub struct TextMatcher {
    analyzer: Analyzer,
    query: TextQuery,
}

/// The words of one text; kept to be filled again.
#[derive(Debug, Default)]
pub struct Words {
    text: String,
    /// Where each word ends in `text`, and its place.
    ends: Vec<(usize, u32)>,
}

impl Words {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn push(&mut self, place: u32, word: &str) {
        self.text.push_str(word);
        self.ends.push((self.text.len(), place));
    }

    fn iter(&self) -> impl Iterator<Item = (u32, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, place)| {
            let word = self.text.get(start..end).unwrap_or_default();
            start = end;
            (place, word)
        })
    }

    fn matches(&self, query: &TextQuery) -> bool {
        match query {
            TextQuery::Nothing => false,
            TextQuery::Term(term) => self.iter().any(|(_, word)| word == term),
            TextQuery::Pattern(pattern) => self.iter().any(|(_, word)| pattern.matches(word)),
            TextQuery::Phrase(phrase) => {
                let mut places = Vec::with_capacity(phrase.words.len());
                for (offset, term) in &phrase.words {
                    let of_term = self.iter().filter(|(_, word)| word == term);
                    let list: Vec<i64> = of_term
                        .map(|(place, _)| i64::from(place) - i64::from(*offset))
                        .collect();
                    if list.is_empty() {
                        return false;
                    }
                    places.push(list);
                }
                positions_fit(&places, phrase.slop)
            }
            TextQuery::Boolean {
                must,
                should,
                must_not,
            } => {
                let wanted = if must.is_empty() {
                    should.iter().any(|q| self.matches(q))
                } else {
                    must.iter().all(|q| self.matches(q))
                };
                wanted && !must_not.iter().any(|q| self.matches(q))
            }
        }
    }
}

impl TextMatcher {
    /// Parses `query`.
    ///
    /// # Errors
    /// `InvalidArgument` or `Unsupported`, naming the place in the query.
    pub fn new(query: &str, settings: &TextSettings) -> Result<Self> {
        let analyzer = Analyzer::new(settings);
        let query = TextQuery::parse(query, &analyzer, settings.all_needed)?;
        Ok(Self { analyzer, query })
    }

    /// What is asked.
    pub fn query(&self) -> &TextQuery {
        &self.query
    }

    /// Whether the row of these values matches.
    pub fn matches<'a>(
        &self,
        values: impl IntoIterator<Item = &'a str>,
        words: &mut Words,
    ) -> bool {
        words.clear();
        self.analyzer
            .words_of(values, &mut |place, word| words.push(place, word));
        words.matches(&self.query)
    }
}
