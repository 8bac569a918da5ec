//! Patterns against a dictionary of a million texts, text by text and through an FST index:
//! `cargo bench --workspace --bench patterns`.

use arrow::array::{Array, StringArray};
use arrow::compute::regexp_is_match_scalar;
use criterion::{BenchmarkId, Criterion};
use std::hint::black_box;
use strandline_index::column::{ColumnData, ColumnOptions, ImmutableColumn, write_column};
use strandline_index::fst::FstPattern;
use strandline_index::{ColumnReader, DictId, PhysicalType, ValueBuffer};

/// Distinct texts.
const TEXTS: u32 = 1_000_000;
/// Texts that are looked at together.
const STEP: u32 = 8_192;

/// Machines' names: a few letters that many begin with, and numbers.
fn column() -> ImmutableColumn {
    let mut values = ValueBuffer::new(PhysicalType::Bytes);
    for i in 0..TEXTS {
        let zone = ["eu-west", "eu-east", "us-west", "us-east", "ap-south"][i as usize % 5];
        let text = format!("{zone}-{}.host{:06}.example.org", i % 7, i / 5);
        values.push_bytes(text.as_bytes());
    }
    let options = ColumnOptions {
        fst: true,
        ..ColumnOptions::default()
    };
    let written =
        write_column(&ColumnData::single(&values), &options).expect("the column is written");
    for (kind, bytes) in &written.sections {
        println!("{kind:?}: {} bytes", bytes.len());
    }
    let sections = written.sections.into_iter();
    ImmutableColumn::open(sections.map(|(kind, bytes)| (kind.code(), bytes.into())))
        .expect("the column opens")
}

/// The texts that match, looked at one by one.
fn scanned(column: &ImmutableColumn, pattern: &str) -> usize {
    let dictionary = column.dictionary().expect("it has one");
    let mut found = 0;
    for start in (0..dictionary.len()).step_by(STEP as usize) {
        let ids: Vec<DictId> = (start..dictionary.len().min(start + STEP)).collect();
        let mut values = ValueBuffer::new(PhysicalType::Bytes);
        dictionary.gather(&ids, &mut values);
        let texts = (0..values.len()).map(|i| {
            let bytes = values.bytes(i).expect("a text");
            std::str::from_utf8(bytes).expect("a text")
        });
        let texts: StringArray = texts.map(Some).collect();
        let matches = regexp_is_match_scalar(&texts, pattern, None).expect("a pattern");
        found += matches.true_count();
        assert_eq!(matches.null_count(), 0);
    }
    found
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    let column = column();
    let mut group = criterion.benchmark_group("a pattern and a million texts");
    for (name, regex) in [
        ("few, some beginnings", "^(eu|us)-west-[34]\\.host00012"),
        ("few, any case", "(?i)^EU-WEST-3\\.HOST0001"),
        ("a tenth, any case", "(?i)^eu-west-[345]"),
        ("few, open in the middle", "^.{9}\\.host00012"),
        ("few, open to the end", "^us.*99\\.example"),
        ("none", "^[xyz]"),
    ] {
        let pattern = FstPattern::new(regex).expect("an automaton can express it");
        let by_fst = || {
            let mut found = 0;
            let index = column.fst().expect("it has one");
            let search = index.search(black_box(&pattern), |_| found += 1);
            search.expect("the index is sound");
            found
        };
        assert_eq!(by_fst(), scanned(&column, regex), "{regex}");
        group.bench_function(BenchmarkId::new("scan", name), |b| {
            b.iter(|| scanned(&column, black_box(regex)));
        });
        group.bench_function(BenchmarkId::new("fst", name), |b| b.iter(by_fst));
        group.bench_function(BenchmarkId::new("automaton", name), |b| {
            b.iter(|| FstPattern::new(black_box(regex)));
        });
    }
    group.finish();
    criterion.final_summary();
}
