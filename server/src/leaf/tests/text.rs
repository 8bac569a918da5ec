//! TEXT_MATCH and patterns over segments of thousands of rows: by an index, by a dictionary and by reading, the rows are those that
//! the matcher finds one by one.

use super::generate::text_query;
use super::memory::Storage;
use super::stored::ToStore;
use crate::leaf::filter::{Compiler, PlannedFilter, Scratch};
use crate::leaf::segment::SegmentView;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use strandline_index::{CHUNK_DOCS, DocBits, DocId};
use strandline_proto::ids::{Half, OffsetRange, StreamPartition};
use strandline_proto::leaf::*;
use strandline_proto::schema::{Column, DataType, Schema};
use strandline_proto::text::{TextMatcher, TextSettings, Words};
use strandline_proto::value::Value;
use strandline_storage::segment::SegmentReader;

const WORDS: [&str; 16] = [
    "a", "ab", "abc", "Abd", "abd", "b", "bb", "zürich", "Zurich", "the", "azb", "aaz", "ca",
    "cab", "日本", "b%",
];

fn sentence(rng: &mut StdRng) -> String {
    let words: Vec<&str> = (0..rng.random_range(0..7))
        .map(|_| *WORDS.choose(rng).unwrap())
        .collect();
    words.join(*[" ", ", ", "-", "  "].choose(rng).unwrap())
}

/// Columns of text with and without a dictionary, of single values and of lists.
fn columns(rng: &mut StdRng, docs: usize, indexed: bool) -> Vec<(Column, Storage, Vec<Value>)> {
    let shapes = [(false, true), (false, false), (true, true), (true, false)];
    let column = |(number, (multi_value, dictionary)): (usize, (bool, bool))| {
        let column = Column {
            multi_value,
            ..Column::dimension(format!("c{number}"), DataType::String)
        };
        let storage = Storage {
            dictionary,
            sorted_dictionary: true,
            inverted: dictionary && number == 0,
            range: false,
            bloom: false,
            text: indexed,
            json: false,
        };
        let element = |rng: &mut StdRng| match rng.random_bool(0.1) {
            true => Value::Null,
            false => Value::String(sentence(rng)),
        };
        let value = |rng: &mut StdRng| match multi_value && rng.random_bool(0.9) {
            true => Value::List((0..rng.random_range(0..4)).map(|_| element(rng)).collect()),
            false if multi_value => Value::Null,
            false => element(rng),
        };
        (column, storage, (0..docs).map(|_| value(rng)).collect())
    };
    shapes.into_iter().enumerate().map(column).collect()
}

fn to_store(rng: &mut StdRng, docs: usize, indexed: bool, sorted: bool) -> ToStore {
    let partition = StreamPartition {
        stream: "log".into(),
        topic: "t".into(),
        partition: 0,
    };
    let range = OffsetRange {
        start: 5,
        end: 5 + docs as u64,
    };
    let mut columns = columns(rng, docs, indexed);
    if sorted {
        // The tests' rows are as a segment that is sorted has them.
        if let Some((_, _, values)) = columns.first_mut() {
            values
                .iter_mut()
                .filter(|v| v.is_null())
                .for_each(|v| *v = Value::String(String::new()));
            values.sort_by_key(super::naive::rank);
        }
    }
    ToStore {
        name: "s".to_owned(),
        half: Half::Realtime,
        origin: Some((partition, range)),
        columns,
        sorted_column: sorted.then(|| "c0".to_owned()),
        docs,
    }
}

struct Segment {
    view: SegmentView,
    schema: Arc<Schema>,
    rows: Vec<Vec<Value>>,
}

impl Segment {
    fn new(stored: &ToStore, reader: Arc<dyn SegmentReader>) -> Self {
        let schema = Arc::new(Schema {
            name: "t".to_owned(),
            version: 1,
            columns: stored.columns.iter().map(|(c, ..)| c.clone()).collect(),
            primary_key: Vec::new(),
        });
        Self {
            view: SegmentView::new(reader, Half::Realtime, true, Arc::clone(&schema)),
            schema,
            rows: stored
                .columns
                .iter()
                .map(|(.., values)| values.clone())
                .collect(),
        }
    }

    /// The documents that pass, and what answered.
    fn documents(&self, predicate: &ColumnPredicate) -> (Vec<DocId>, &'static str) {
        let filter = LeafFilter::Column(predicate.clone());
        let query = LeafQuery {
            version: LEAF_QUERY_VERSION,
            query_id: 0,
            table: "t".into(),
            schema: Arc::clone(&self.schema),
            lineage: Default::default(),
            work: Arc::new(LeafWork {
                filter: filter.clone(),
                output: LeafOutput::Rows {
                    project: Vec::new(),
                    limit: None,
                    order: Vec::new(),
                },
                schema: Arc::new(arrow::datatypes::Schema::empty()),
            }),
            parameters: Vec::new(),
            segments: Vec::new(),
            tails: Vec::new(),
            coverage: None,
            keys_version: None,
            batch_rows_max: 1,
        };
        let planned = PlannedFilter::new(&filter, &query, true).unwrap();
        let mut compiler = Compiler::new(&self.view);
        let node = compiler.compile(&planned).unwrap();
        let by = compiler.paths[0].1;
        let mut scratch = Scratch::default();
        let mut passed = Vec::new();
        for chunk in 0..self.view.num_chunks() {
            let mut left = DocBits::new();
            left.insert_range(0, self.view.chunk_docs(chunk));
            node.narrow(chunk, &mut left, &mut scratch).unwrap();
            left.append_docs(chunk * CHUNK_DOCS, &mut passed);
        }
        assert!(passed.len() as u64 <= node.docs_max(self.view.num_docs().into()));
        (passed, by)
    }

    /// The documents whose value passes, one by one.
    fn expected(
        &self,
        column: usize,
        negated: bool,
        passes: impl Fn(&[&str]) -> bool,
    ) -> Vec<DocId> {
        let value_passes = |value: &Value| match value {
            Value::Null => false,
            Value::List(elements) => {
                let texts: Vec<&str> = elements.iter().filter_map(text).collect();
                passes(&texts) != negated
            }
            single => passes(&[text(single).unwrap()]) != negated,
        };
        let rows = self.rows[column].iter().enumerate();
        rows.filter(|(_, value)| value_passes(value))
            .map(|(doc, _)| doc as DocId)
            .collect()
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[test]
fn words_are_found_alike_with_and_without_an_index_stored_and_consuming() {
    let mut rng = StdRng::seed_from_u64(11);
    let mut segments = Vec::new();
    for (docs, indexed, sorted) in [(3_000, true, false), (700, true, true), (500, false, false)] {
        let stored = to_store(&mut rng, docs, indexed, sorted);
        segments.push((indexed, Segment::new(&stored, stored.immutable())));
        if !sorted {
            segments.push((indexed, Segment::new(&stored, stored.consuming())));
        }
    }
    let mut matched = 0;
    for number in 0..150 {
        let query = text_query(&mut rng, 0);
        let settings = TextSettings {
            case_sensitive: number % 10 == 9,
            all_needed: number % 5 == 4,
            ..TextSettings::default()
        };
        let matcher = TextMatcher::new(&query, &settings).unwrap();
        for (indexed, segment) in &segments {
            for column in 0..segment.rows.len() {
                let negated = rng.random_bool(0.3);
                let predicate = ColumnPredicate {
                    column: format!("c{column}"),
                    test: ColumnTest::TextMatch {
                        query: Operand::Literal(Value::String(query.clone())),
                        settings: settings.clone(),
                    },
                    negated,
                };
                let (found, by) = segment.documents(&predicate);
                let expected = segment.expected(column, negated, |texts| {
                    matcher.matches(texts.iter().copied(), &mut Words::default())
                });
                assert_eq!(
                    found, expected,
                    "{query} on c{column}, negated: {negated}, by {by}"
                );
                matched += found.len();
                let by_index = *indexed && !settings.case_sensitive;
                // Where the index found nothing, all that is not null fails the query.
                let told = by == "text" || by_index && negated && by == "null bitmap";
                assert_eq!(told, by_index, "{query} on c{column}: by {by}");
            }
        }
    }
    assert!(matched > 100_000, "{matched}: the queries match something");
}

#[test]
fn patterns_find_the_same_texts_through_an_fst_index() {
    let mut rng = StdRng::seed_from_u64(12);
    let indexed = to_store(&mut rng, 900, true, false);
    let segment = Segment::new(&indexed, indexed.immutable());
    let like = |pattern: &str, case_insensitive| ColumnTest::Like {
        pattern: Operand::Literal(Value::String(pattern.to_owned())),
        case_insensitive,
    };
    let regex = |pattern: &str, case_insensitive| ColumnTest::Regex {
        pattern: Operand::Literal(Value::String(pattern.to_owned())),
        case_insensitive,
    };
    let mut by_fst = 0;
    for (test, as_regex, fst) in [
        (like("ABC%", true), "(?is)^abc", true),
        (like("_b%", false), "(?s)^.b", true),
        (like("Z_RICH", true), "(?is)^z.rich$", true),
        (like("b\\%%", true), "(?is)^b%", true),
        (like("A, b%", true), "(?is)^a, b", true),
        (like("", true), "^$", true),
        (like("ab%", false), "^ab", false),
        (like("%ab", true), "(?is)ab$", false),
        (regex("^[ab]b.*c", false), "^[ab]b.*c", true),
        (regex("^(zürich|日)", true), "(?i)^(zürich|日)", true),
        (regex("^$", false), "^$", true),
        (regex("ab", false), "ab", false),
        (regex("^ab\\b", false), "^ab\\b", false),
    ] {
        let matches = regex::Regex::new(as_regex).unwrap();
        for (column, negated) in [(0, false), (0, true), (2, false), (2, true), (1, false)] {
            let predicate = ColumnPredicate {
                column: format!("c{column}"),
                test: test.clone(),
                negated,
            };
            let (found, by) = segment.documents(&predicate);
            let expected = segment.expected(column, negated, |texts| {
                texts.iter().any(|text| matches.is_match(text))
            });
            assert_eq!(
                found, expected,
                "{as_regex} on c{column}, negated: {negated}, by {by}"
            );
            assert_eq!(
                by.starts_with("fst"),
                fst && column != 1,
                "{as_regex} on c{column}: by {by}"
            );
            by_fst += usize::from(by.starts_with("fst"));
        }
    }
    assert!(by_fst > 30);
}
