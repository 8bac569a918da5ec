use super::matching;
use crate::environment::Environment;
use crate::segment::SegmentReader;
use crate::segment::builder::SegmentBuilder;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::json::JsonSpec;
use crate::segment::spec::{ColumnSpec, Encoding, SegmentSpec};
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_proto::ids::Half;
use strandline_proto::json::JsonFilter;
use strandline_proto::schema::{Column, DataType, Schema};

/// A segment of documents with an index, sorted by their numbers in `places`.
fn segment(
    documents: &[Option<String>],
    places: &[i32],
    encoding: Encoding,
    json: JsonSpec,
) -> Arc<ImmutableSegment> {
    let column = |name: &str, data_type| Column::dimension(name, data_type);
    let schema = Schema {
        name: "t".to_owned(),
        version: 1,
        columns: vec![
            column("place", DataType::Int),
            column("j", DataType::String),
        ],
        primary_key: Vec::new(),
    };
    let of_column = ColumnSpec {
        encoding,
        json: Some(json),
        ..ColumnSpec::default()
    };
    let spec = SegmentSpec {
        schema: Arc::new(schema),
        columns: BTreeMap::from([("j".to_owned(), of_column)]),
        sorted_column: Some("place".to_owned()),
        time_column: None,
        star_trees: Vec::new(),
    };
    let mut builder = SegmentBuilder::new(Arc::new(spec), "s", Half::Offline, None).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(places.to_vec())),
        Arc::new(StringArray::from(documents.to_vec())),
    ];
    let schema = builder_schema();
    builder
        .push(&RecordBatch::try_new(schema, columns).unwrap())
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    builder.finish(&Environment::real().files, &path).unwrap();
    ImmutableSegment::open(&path).unwrap()
}

fn builder_schema() -> arrow::datatypes::SchemaRef {
    use arrow::datatypes::{DataType, Field, Schema};
    Arc::new(Schema::new(vec![
        Field::new("place", DataType::Int32, true),
        Field::new("j", DataType::Utf8, true),
    ]))
}

/// What the index finds among the documents that are not null; none when it can't tell.
fn found(segment: &ImmutableSegment, filter: &JsonFilter, nulls: &[bool]) -> Option<Vec<u32>> {
    let column = segment.column("j").unwrap();
    let docs = matching(column.json().unwrap(), filter).unwrap()?;
    Some(docs.iter().filter(|&doc| !nulls[doc as usize]).collect())
}

fn documents() -> impl Strategy<Value = Option<String>> {
    let leaf = prop_oneof![
        1 => Just("null".to_owned()),
        1 => any::<bool>().prop_map(|b| b.to_string()),
        4 => (0i64..4).prop_map(|n| n.to_string()),
        2 => prop::sample::select(vec!["0.5", "1.0", "25e-1", "\"1\""]).prop_map(str::to_owned),
        4 => prop::sample::select(vec!["\"x\"", "\"y\"", "\"\"", "\"yxyxyx\"", "\"\\u0000\""]).prop_map(str::to_owned),
    ];
    let tree = leaf.prop_recursive(4, 24, 3, |inner| {
        let name = prop::sample::select(vec!["a", "b", "c", "a.b", "a["]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|e| format!("[{}]", e.join(","))),
            prop::collection::vec((name, inner), 0..4).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    });
    prop_oneof![
        10 => tree.prop_map(Some),
        1 => Just(None),
        1 => prop::sample::select(vec!["", "{", "{\"a\":1} x"]).prop_map(|s| Some(s.to_owned())),
    ]
}

fn filters() -> impl Strategy<Value = String> {
    let step = prop::sample::select(vec![
        ".a", ".a", ".b", ".c", "['a.b']", "['a[']", "[*]", "[*]", "[0]", "[1]",
    ]);
    let path = prop::collection::vec(step, 0..4).prop_map(|s| format!("\"${}\"", s.concat()));
    let test = prop::sample::select(vec![
        "@ = 'x'",
        "@ = 1",
        "@ != 'x'",
        "@ IN (1, 'yxyxyx')",
        "@ NOT IN (0, 'x')",
        "@ IS NULL",
        "@ IS NOT NULL",
        "@ > 0",
        "@ BETWEEN 1 AND 2.5",
        "@ NOT BETWEEN 1 AND 2",
        "@ <= 'x'",
        "@ > 'x'",
        "@ = true",
        "REGEXP_LIKE(@, '.*x')",
        "NOT @ = 1",
    ]);
    let condition = (path, test).prop_map(|(path, test)| test.replace('@', &path));
    condition.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|c| format!("({})", c.join(" AND "))),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|c| format!("({})", c.join(" OR "))),
            inner.prop_map(|c| format!("NOT {c}")),
        ]
    })
}

fn specs() -> impl Strategy<Value = JsonSpec> {
    let texts = |texts: &'static [&'static str]| {
        let list = prop::sample::subsequence(texts.to_vec(), 0..=texts.len());
        prop_oneof![2 => Just(Vec::new()), 1 => list.prop_map(|l| l.into_iter().map(str::to_owned).collect())]
    };
    let narrow = (
        prop::option::of(1u32..4),
        prop::bool::weighted(0.2),
        texts(&["$.a", "$.b[*]", "$['a.b'].c"]),
        texts(&["$.a.b", "$[*]"]),
        texts(&["c"]),
        texts(&["*", "a.**", "*..*", "**.b"]),
        prop::option::of(1u32..6),
    );
    let narrow = narrow.prop_map(
        |(levels_max, exclude_array, include, exclude, fields, patterns, chars)| JsonSpec {
            levels_max,
            exclude_array,
            include_paths: include,
            exclude_paths: exclude,
            exclude_fields: fields,
            index_paths: patterns,
            value_chars_max: chars,
        },
    );
    prop_oneof![Just(JsonSpec::default()), narrow]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_index_finds_exactly_the_documents_for_which_filters_hold(
        documents in prop::collection::vec((documents(), 0i32..5), 1..40),
        filters in prop::collection::vec(filters(), 12),
        raw in any::<bool>(),
        spec in specs(),
    ) {
        let encoding = if raw { Encoding::Raw } else { Encoding::Dictionary };
        let (texts, places): (Vec<_>, Vec<i32>) = documents.iter().cloned().unzip();
        let whole = spec == JsonSpec::default();
        let segment = segment(&texts, &places, encoding, spec);
        // The segment is sorted.
        let mut sorted: Vec<_> = documents.iter().collect();
        sorted.sort_by_key(|(_, place)| *place);
        let nulls: Vec<bool> = sorted.iter().map(|(d, _)| d.is_none()).collect();
        for text in &filters {
            let filter = JsonFilter::parse(text).unwrap();
            let holds = |doc: &u32| sorted[*doc as usize].0.as_deref().is_some_and(|d| filter.matches(d));
            let expected: Vec<u32> = (0..sorted.len() as u32).filter(holds).collect();
            match found(&segment, &filter, &nulls) {
                Some(found) => prop_assert_eq!(found, expected, "{}", text),
                None => prop_assert!(!whole, "the index can't tell: {}", text),
            }
        }
    }
}

#[test]
fn many_documents_are_found_over_chunks() {
    let text = |i: usize| {
        Some(format!(
            r#"{{"n": {}, "l": [{{"k": {i}}}, {{"k": {}}}]}}"#,
            i % 1_000,
            i + 1
        ))
    };
    let documents: Vec<_> = (0..150_000).map(text).collect();
    let segment = segment(
        &documents,
        &vec![0; documents.len()],
        Encoding::Raw,
        JsonSpec::default(),
    );
    let found = |filter| {
        let filter = JsonFilter::parse(filter).unwrap();
        found(&segment, &filter, &vec![false; documents.len()]).unwrap()
    };
    assert_eq!(found(r#""$.l[*].k" = 140000"#), [139_999, 140_000]);
    assert_eq!(found(r#""$.l[1].k" = 140000"#), [139_999]);
    assert_eq!(found(r#""$.n" = 7 AND "$.l[0].k" > 70000.5"#).len(), 80);
    assert_eq!(found(r#""$.n" >= 998"#).len(), 300);
    assert_eq!(found(r#"NOT "$.n" < 999"#).len(), 150);
}

#[test]
fn an_index_of_what_is_no_text_is_refused() {
    let column = Column::dimension("j", DataType::Int);
    let refused = |data_type, json: JsonSpec| {
        let schema = Schema {
            name: "t".to_owned(),
            version: 1,
            columns: vec![Column {
                data_type,
                ..column.clone()
            }],
            primary_key: Vec::new(),
        };
        let spec = SegmentSpec {
            schema: Arc::new(schema),
            columns: BTreeMap::from([(
                "j".to_owned(),
                ColumnSpec {
                    json: Some(json),
                    ..ColumnSpec::default()
                },
            )]),
            sorted_column: None,
            time_column: None,
            star_trees: Vec::new(),
        };
        SegmentBuilder::new(Arc::new(spec), "s", Half::Offline, None)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(refused(DataType::Int, JsonSpec::default()).contains("column j: a JSON index needs"));
    let placed = JsonSpec {
        include_paths: vec!["$.a[0]".to_owned()],
        ..JsonSpec::default()
    };
    assert!(refused(DataType::Json, placed).contains("write [*]"));
}
