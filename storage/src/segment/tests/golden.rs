//! The committed files of each format version, which every later version must read.

use super::conformance::check;
use super::rows::{Row, TYPES, batch, column, day_column, files, partition, raw, stored_order};
use crate::segment::builder::SegmentBuilder;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::spec::{ColumnSpec, SegmentSpec, StarMeasure, StarTreeSpec};
use crate::segment::{FORMAT_VERSION, SegmentReader as _};
use std::path::Path;
use std::sync::Arc;
use strandline_index::star_tree::Need;
use strandline_index::{DocSelection, ValueBuffer};
use strandline_proto::ids::{Half, OffsetRange};
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;

/// Tests run in their crate's folder. A path fixed when they are built would be another clone's, if that built them.
/// The newest version's rows with star-trees.
const PATH_OF_TREES: &str = "tests/golden/segment-2-star-trees.strandline";
/// The checksum of that file.
const CHECKSUM_OF_TREES: u64 = 0x1ba8_7dc0_809f_e816;

fn path(version: u32) -> String {
    format!("tests/golden/segment-{version}.strandline")
}

/// The checksums of the committed files of versions 1, 2, ...
const CHECKSUMS: [u64; 2] = [0xbd9b_ac78_469d_5b81, 0xee39_e3e4_4996_2976];
/// The column that version 2 added: UUIDs, which it stores as such.
const UUIDS: &str = "uuids_raw";

/// As the newest version has them.
pub(super) fn spec() -> Arc<SegmentSpec> {
    spec_of(FORMAT_VERSION)
}

/// Every type, single- and multi-value, with a dictionary and raw, with every index.
fn spec_of(version: u32) -> Arc<SegmentSpec> {
    let mut columns = vec![(day_column("day"), ColumnSpec::default())];
    for data_type in TYPES {
        for multi_value in [false, true] {
            for encoding in [ColumnSpec::default(), raw()] {
                let dictionary = encoding == ColumnSpec::default();
                let name = format!(
                    "{}{}{}",
                    data_type.pinot_name(),
                    if multi_value { "_list" } else { "" },
                    if dictionary { "" } else { "_raw" }
                );
                columns.push((
                    column(&name, data_type, multi_value),
                    ColumnSpec {
                        inverted: dictionary,
                        range: true,
                        bloom: true,
                        ..encoding
                    },
                ));
            }
        }
    }
    if version >= 2 {
        let bloom = ColumnSpec {
            bloom: true,
            ..raw()
        };
        columns.push((column(UUIDS, DataType::String, false), bloom));
    }
    super::rows::spec(columns, Some("day"), Some("day"))
}

/// The same with two star-trees, of dimensions and measures with nulls.
pub(super) fn spec_with_trees() -> Arc<SegmentSpec> {
    let tree = |dimensions: &[&str], leaf_records_max| StarTreeSpec {
        dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
        skip_star: vec![dimensions[0].to_owned()],
        measures: ["INT", "LONG_raw", "FLOAT", "DOUBLE_raw"]
            .into_iter()
            .flat_map(|name| {
                let of = |measure: fn(String) -> StarMeasure| measure(name.to_owned());
                [
                    of(StarMeasure::Values),
                    of(StarMeasure::Sum),
                    of(StarMeasure::Min),
                    of(StarMeasure::Max),
                ]
            })
            .collect(),
        leaf_records_max,
    };
    Arc::new(SegmentSpec {
        star_trees: vec![
            tree(&["BOOLEAN", "day", "STRING_raw"], 1),
            tree(&["BYTES", "BIG_DECIMAL"], 20),
        ],
        ..(*spec()).clone()
    })
}

/// Rows that a plain rule makes, so that they are the same for ever.
pub(super) fn rows() -> Vec<(u64, Row)> {
    rows_of(&spec())
}

fn rows_of(spec: &SegmentSpec) -> Vec<(u64, Row)> {
    (0..200_i64)
        .map(|row| {
            let values = spec
                .schema
                .columns
                .iter()
                .enumerate()
                .map(|(number, column)| {
                    let n = row * 31 + number as i64 * 17;
                    match n % 13 {
                        0 if column.name != "day" => Value::Null,
                        _ if column.name == UUIDS => {
                            Value::String(format!("{n:08x}-0123-4567-89ab-{:012x}", n * n))
                        }
                        _ if column.multi_value => Value::List(
                            (0..n % 4)
                                .map(|i| {
                                    if (n + i) % 7 == 0 {
                                        Value::Null
                                    } else {
                                        value(column.data_type, n + i)
                                    }
                                })
                                .collect(),
                        ),
                        _ => value(column.data_type, n),
                    }
                });
            (1000 + row as u64 * 2, values.collect())
        })
        .collect()
}

fn value(data_type: DataType, n: i64) -> Value {
    let n = n * n % 97 - 40;
    match data_type {
        DataType::Int => Value::Int(n as i32),
        DataType::Long => Value::Long(n << 33),
        DataType::Float => Value::Float(n as f32 / 8.0),
        DataType::Double => Value::Double(n as f64 / 1024.0),
        DataType::BigDecimal { scale, .. } => Value::Decimal {
            unscaled: i128::from(n) << 70,
            scale,
        },
        DataType::Boolean => Value::Boolean(n % 2 == 0),
        DataType::Timestamp => Value::Timestamp(1_390_000_000_000 + n * 1000),
        DataType::String => Value::String(format!("text ü {n}")),
        DataType::Json => Value::String(format!("{{\"n\":{n}}}")),
        DataType::Bytes => Value::Bytes(n.to_be_bytes().to_vec()),
    }
}

pub(super) fn build(spec: &Arc<SegmentSpec>, path: &Path) {
    let range = OffsetRange {
        start: 1000,
        end: 1400,
    };
    let mut builder = SegmentBuilder::new(
        spec.clone(),
        "golden",
        Half::Realtime,
        Some((partition(), range)),
    )
    .unwrap();
    for part in rows().chunks(64) {
        let (offsets, values): (Vec<u64>, Vec<Row>) = part.iter().cloned().unzip();
        builder
            .push_with_offsets(&batch(&spec.schema, &values), &offsets)
            .unwrap();
    }
    builder.finish(&files(), path).unwrap();
}

#[test]
fn the_golden_file_of_each_version_is_read() {
    assert_eq!(CHECKSUMS.len(), FORMAT_VERSION as usize);
    for (version, checksum) in (1..).zip(CHECKSUMS) {
        read(version, checksum);
    }
}

fn read(version: u32, checksum: u64) {
    let spec = spec_of(version);
    let segment = ImmutableSegment::open(Path::new(&path(version))).unwrap();
    let rows = rows_of(&spec);
    check(&*segment, &spec.schema, &stored_order(&spec, &rows));
    let info = segment.info();
    assert_eq!(
        (
            info.name.as_str(),
            info.rows,
            info.schema_version,
            info.checksum
        ),
        ("golden", 200, 3, checksum)
    );
    assert_eq!(
        info.origin,
        Some((
            partition(),
            OffsetRange {
                start: 1000,
                end: 1400
            }
        ))
    );
    assert_eq!(info.time_ms, Some((-40 * 86_400_000, 56 * 86_400_000)));
    assert_eq!(segment.schema().as_ref(), spec.schema.as_ref());
    assert_eq!(segment.sorted_column(), Some("day"));
}

/// Makes the golden file of the present version. Run by hand when the format's version changes, never to mend a failing test.
#[test]
#[ignore = "writes the golden file"]
fn write_the_golden_file() {
    let newest = path(FORMAT_VERSION);
    build(&spec(), Path::new(&newest));
    build(&spec_with_trees(), Path::new(PATH_OF_TREES));
    for path in [newest.as_str(), PATH_OF_TREES] {
        let segment = ImmutableSegment::open(Path::new(path)).unwrap();
        println!("{path}: checksum {:#x}", segment.info().checksum);
    }
}

#[test]
fn the_golden_star_trees_are_read() {
    let segment = ImmutableSegment::open(Path::new(PATH_OF_TREES)).unwrap();
    let spec = spec_with_trees();
    check(&*segment, &spec.schema, &stored_order(&spec, &rows()));
    assert_eq!(segment.info().checksum, CHECKSUM_OF_TREES);
    assert_eq!(segment.star_trees().len(), 2);
    for (tree, spec) in segment.star_trees().iter().zip(&spec.star_trees) {
        assert!(tree.dimensions().eq(spec.dimensions.iter()));
        // One record aggregates all rows; the records with all dimensions stand for each row once.
        let needed = vec![Need::Values; spec.dimensions.len()];
        for needs in [vec![Need::Free; spec.dimensions.len()], needed] {
            let records = tree.tree().walk(&needs).unwrap().records;
            let sum = |measure: &StarMeasure| {
                let reader = tree.measure(measure).unwrap();
                let mut values = ValueBuffer::new(reader.physical());
                for range in &records {
                    reader.values(DocSelection::Range(range.clone()), &mut values);
                }
                match values {
                    ValueBuffer::I64(values) => values.iter().sum(),
                    ValueBuffer::F64(values) => values.iter().sum::<f64>() as i64,
                    _ => panic!("{measure:?}"),
                }
            };
            let of_rows = |name: &str, value: fn(&Value) -> Option<i64>| -> Vec<i64> {
                let place = segment.schema().columns.iter().position(|c| c.name == name);
                let all = rows();
                let values = all.iter().map(|(_, row)| &row[place.unwrap()]);
                values.filter_map(value).collect()
            };
            let ints = of_rows("INT", |value| match value {
                Value::Int(v) => Some(i64::from(*v)),
                _ => None,
            });
            let doubles = of_rows("DOUBLE_raw", |value| match value {
                Value::Double(v) => Some(*v as i64),
                _ => None,
            });
            assert_eq!(sum(&StarMeasure::Count), 200);
            assert_eq!(sum(&StarMeasure::Values("INT".into())), ints.len() as i64);
            assert_eq!(
                sum(&StarMeasure::Sum("INT".into())),
                ints.iter().sum::<i64>()
            );
            let whole = doubles.iter().sum::<i64>();
            assert!((sum(&StarMeasure::Sum("DOUBLE_raw".into())) - whole).abs() <= 200);
        }
    }
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    build(&spec_with_trees(), &a);
    build(&spec_with_trees(), &b);
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}
