//! An FST index: the distinct texts of a column as a finite-state transducer to their dictionary ids, searched by patterns.
//!
//! A pattern's automaton walks the transducer's arcs and leaves out at once all texts that begin in a way it can't match. That pays for
//! patterns that must match from a text's beginning on, but begin with more than one literal: a range of the sorted dictionary answers a
//! literal, and of a pattern that may match anywhere the transducer leaves out no text: that is left to a scan of the dictionary.
//!
//! # Layout of the section
//!
//! ```text
//! | format u32 = 1 | values u32 | CRC32C of the transducer u32 | 0 u32 | transducer |
//! ```
//!
//! The transducer is checked when it is first asked.

use crate::reader::{DictId, IndexError, ValueBuffer};
use crate::wire::{corrupt, part, u32_at};
use bytes::Bytes;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::util::start;
use regex_automata::util::syntax;
use regex_automata::{Anchored, util::primitives::StateID};
use std::sync::OnceLock;
use tantivy_fst::raw::Fst;
use tantivy_fst::{Automaton, IntoStreamer, MapBuilder, Streamer};

const FORMAT: u32 = 1;
const HEADER: usize = 16;
/// Memory of the largest automaton that is made of a pattern, and while it is made.
const AUTOMATON_BYTES_MAX: usize = 2 << 20;

/// A pattern as the index takes it: a regular expression that must match from the beginning of a text on.
#[derive(Clone, Debug)]
pub struct FstPattern {
    dfa: dense::DFA<Vec<u32>>,
    start: StateID,
}

impl FstPattern {
    /// The pattern of a regular expression (the `regex` crate's syntax) found anywhere in a text. None: it is no regular
    /// expression, can match elsewhere than at the beginning, or an automaton can't express it, or only a large one.
    pub fn new(regex: &str) -> Option<Self> {
        let parsed = syntax::parse(regex).ok()?;
        let looks = parsed.properties();
        let from_start = looks.look_set_prefix().contains_anchor_haystack();
        if !from_start || looks.look_set().contains_word() {
            return None;
        }
        let config = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(AUTOMATON_BYTES_MAX))
            .determinize_size_limit(Some(AUTOMATON_BYTES_MAX));
        let dfa = dense::Builder::new().configure(config).build(regex).ok()?;
        let from = start::Config::new().anchored(Anchored::No);
        let start = dfa.start_state(&from).ok()?;
        Some(Self { dfa, start })
    }
}

/// A pattern as the transducer walks along it.
struct Walker<'a>(&'a FstPattern);

/// Where a pattern is in a text.
#[derive(Clone, Copy)]
enum At {
    /// It has matched, whatever follows.
    Matched,
    State(StateID),
}

impl Automaton for Walker<'_> {
    type State = At;

    fn start(&self) -> At {
        At::State(self.0.start)
    }

    fn is_match(&self, state: &At) -> bool {
        match *state {
            At::Matched => true,
            At::State(state) => {
                let end = self.0.dfa.next_eoi_state(state);
                self.0.dfa.is_match_state(end)
            }
        }
    }

    fn can_match(&self, state: &At) -> bool {
        match *state {
            At::Matched => true,
            At::State(state) => !self.0.dfa.is_dead_state(state),
        }
    }

    fn will_always_match(&self, state: &At) -> bool {
        matches!(state, At::Matched)
    }

    fn accept(&self, state: &At, byte: u8) -> At {
        match *state {
            At::Matched => At::Matched,
            At::State(state) => {
                // A match is told one byte late.
                let next = self.0.dfa.next_state(state, byte);
                match self.0.dfa.is_match_state(next) {
                    true => At::Matched,
                    false => At::State(next),
                }
            }
        }
    }
}

/// An FST index over its section.
#[derive(Debug)]
pub struct FstIndex {
    values: u32,
    crc32c: u32,
    bytes: Bytes,
    opened: OnceLock<Result<Transducer, IndexError>>,
}

struct Transducer(Fst<Bytes>);

impl std::fmt::Debug for Transducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transducer")
    }
}

impl FstIndex {
    /// Writes the index of a dictionary of texts, strictly ascending.
    ///
    /// # Errors
    /// When they aren't.
    pub fn write(dictionary: &ValueBuffer, out: &mut Vec<u8>) -> Result<(), IndexError> {
        let failed = |e: tantivy_fst::Error| corrupt(format!("an FST index: {e}"));
        let mut builder = MapBuilder::memory();
        for id in 0..dictionary.len() {
            let text = dictionary.bytes(id).unwrap_or_default();
            builder.insert(text, id as u64).map_err(failed)?;
        }
        let bytes = builder.into_inner().map_err(failed)?;
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(dictionary.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&bytes);
        Ok(())
    }

    /// An index over its section.
    ///
    /// # Errors
    /// When the section is cut, or of a layout that a later version writes.
    pub(crate) fn open(section: Bytes) -> Result<Self, IndexError> {
        let format = u32_at(&section, 0)?;
        if format != FORMAT {
            return Err(corrupt(format!(
                "FST index format {format} is not known: a later version may have written it"
            )));
        }
        let len = section.len().saturating_sub(HEADER);
        Ok(Self {
            values: u32_at(&section, 4)?,
            crc32c: u32_at(&section, 8)?,
            bytes: part(&section, HEADER, len)?,
            opened: OnceLock::new(),
        })
    }

    /// How many texts.
    pub(crate) fn len(&self) -> u32 {
        self.values
    }

    fn transducer(&self) -> Result<&Fst<Bytes>, IndexError> {
        let opened = self.opened.get_or_init(|| {
            if crc32c::crc32c(&self.bytes) != self.crc32c {
                return Err(corrupt("the transducer of an FST index fails its check"));
            }
            let fst = Fst::new(self.bytes.clone());
            let fst = fst.map_err(|e| corrupt(format!("an FST index: {e}")))?;
            if fst.len() != self.values as usize {
                return Err(corrupt("an FST index has another number of texts"));
            }
            Ok(Transducer(fst))
        });
        opened
            .as_ref()
            .map(|opened| &opened.0)
            .map_err(Clone::clone)
    }

    /// Calls `sink` with the ids of the texts that match, ascending.
    ///
    /// # Errors
    /// When stored bytes are damaged.
    pub fn search(
        &self,
        pattern: &FstPattern,
        mut sink: impl FnMut(DictId),
    ) -> Result<(), IndexError> {
        let mut found = self.transducer()?.search(Walker(pattern)).into_stream();
        while let Some((_, id)) = found.next() {
            sink(id.value() as DictId);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex_automata::meta::Regex;

    fn index(texts: &std::collections::BTreeSet<String>) -> FstIndex {
        let mut dictionary = ValueBuffer::new(crate::PhysicalType::Bytes);
        for text in texts {
            dictionary.push_bytes(text.as_bytes());
        }
        let mut section = Vec::new();
        FstIndex::write(&dictionary, &mut section).unwrap();
        FstIndex::open(section.into()).unwrap()
    }

    fn found(index: &FstIndex, pattern: &FstPattern) -> Vec<DictId> {
        let mut ids = Vec::new();
        index.search(pattern, |id| ids.push(id)).unwrap();
        ids
    }

    fn regex() -> impl Strategy<Value = String> {
        let atom = prop::sample::select(vec![
            "a", "b", "é", "日", ".", "[ab]", "[^a]", "(?i:A)", "(?s:.)", "\\w", "\\PL", "$",
            "(?m:$)", "\n", "()", "(?m:^)",
        ]);
        let piece = (
            atom,
            prop::sample::select(vec!["", "", "*", "+", "?", "{2}", "*?"]),
        )
            .prop_map(|(atom, times)| format!("(?:{atom}){times}"));
        let branch = prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat());
        prop::collection::vec(branch, 1..3)
            .prop_map(|branches| format!("^(?:{})", branches.join("|")))
    }

    proptest! {
        #[test]
        fn patterns_find_the_texts_that_regular_expressions_match(
            texts in prop::collection::btree_set("[abA\né日]{0,5}", 0..40),
            patterns in prop::collection::vec(regex(), 6),
            flags in prop::sample::select(vec!["", "(?i)", "(?s)"]),
        ) {
            let index = index(&texts);
            for pattern in patterns {
                let pattern = format!("{flags}{pattern}");
                let regex = Regex::new(&pattern).unwrap();
                let expected: Vec<DictId> = texts.iter().enumerate()
                    .filter(|(_, text)| regex.is_match(text.as_str()))
                    .map(|(id, _)| id as DictId)
                    .collect();
                // Some automata are too large.
                if let Some(made) = FstPattern::new(&pattern) {
                    prop_assert_eq!(found(&index, &made), expected, "{}", pattern);
                }
            }
        }
    }

    #[test]
    fn what_may_match_elsewhere_or_takes_much_memory_is_left_to_the_scan() {
        for pattern in [
            "a",
            "a$",
            ".*",
            "(^a|b)",
            "(?m)^a",
            "^a\\b",
            "^[",
            "^\\w{400}x",
            "(^)?a",
        ] {
            assert!(FstPattern::new(pattern).is_none(), "{pattern}");
        }
        for pattern in ["^a", "(^a|^b)c", "(?i)^ab.*c$", "\\Aab", "^$"] {
            assert!(FstPattern::new(pattern).is_some(), "{pattern}");
        }
    }

    #[test]
    fn damaged_sections_give_errors() {
        let texts = (0..200).map(|i| format!("text {}", i * 7)).collect();
        let index = index(&texts);
        let mut section = vec![1, 0, 0, 0];
        section.extend_from_slice(&index.values.to_le_bytes());
        section.extend_from_slice(&index.crc32c.to_le_bytes());
        section.extend_from_slice(&[0; 4]);
        section.extend_from_slice(&index.bytes);
        let pattern = FstPattern::new("^text 1.*").unwrap();
        let ask = |section: Vec<u8>| FstIndex::open(section.into())?.search(&pattern, |_| {});
        assert_eq!(ask(section.clone()), Ok(()));
        for at in (0..section.len()).filter(|at| !(12..16).contains(at)) {
            let mut damaged = section.clone();
            damaged[at] ^= 4;
            assert!(ask(damaged).is_err(), "byte {at}");
        }
        assert!((0..section.len()).all(|len| ask(section[..len].to_vec()).is_err()));
    }
}
