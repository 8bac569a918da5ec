//! What is asked of a text's words.

use super::pattern::TermPattern;

/// A text query.
#[derive(Clone, Debug)]
pub enum TextQuery {
    /// Matches no text: nothing was left of what was asked but stop words.
    Nothing,
    /// A word.
    Term(String),
    /// Words at distances.
    Phrase(Phrase),
    /// Any of the words that a pattern matches.
    Pattern(TermPattern),
    /// All of `must`, none of `must_not`; and, when there is no `must`, any of `should`.
    Boolean {
        /// What a text has to match.
        must: Vec<TextQuery>,
        /// Of which it has to match one when there is no `must`.
        should: Vec<TextQuery>,
        /// What it may not match.
        must_not: Vec<TextQuery>,
    },
}

/// Words that stand near each other.
#[derive(Clone, Debug)]
pub struct Phrase {
    /// Two or more words, each with its distance behind the first, ascending.
    pub words: Vec<(u32, String)>,
    /// How far all words together may be moved from those distances; then no word comes twice.
    pub slop: u32,
}

/// Whether places can be taken from `places`, one of each list, that differ by at most `slop`. Each list is of one word of a
/// phrase, ascending: its places in a text, less its distance behind the first (so they may be below zero).
pub fn positions_fit(places: &[Vec<i64>], slop: u32) -> bool {
    let mut at = vec![0usize; places.len()];
    loop {
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        let mut lowest = 0;
        for (number, (list, &at)) in places.iter().zip(&at).enumerate() {
            let Some(&place) = list.get(at) else {
                return false;
            };
            if place < low {
                low = place;
                lowest = number;
            }
            high = high.max(place);
        }
        if places.is_empty() || high - low <= i64::from(slop) {
            return !places.is_empty();
        }
        // Nothing fits with the lowest place: the others only get larger.
        if let Some(at) = at.get_mut(lowest) {
            *at += 1;
        }
    }
}
