//! Random tables and queries. Numbers are small multiples of a quarter, so that every comparison and sum is exact
//! whichever way it is computed.

use super::memory::{MemoryColumn, MemoryHost, MemorySegment, Storage};
use super::stored::ToStore;
use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema, TimeUnit};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::collections::HashMap;
use std::sync::Arc;
use strandline_index::ColumnReader;
use strandline_proto::granularity::Granularity;
use strandline_proto::ids::{Half, OffsetRange, StreamPartition};
use strandline_proto::leaf::*;
use strandline_proto::schema::{Column, ColumnRole, DataType, Schema, virtual_columns};
use strandline_proto::text::TextSettings;
use strandline_proto::value::Value;
use strandline_storage::segment::SegmentReader;

pub(super) const DECIMAL: DataType = DataType::BigDecimal {
    precision: 20,
    scale: 2,
};

const TYPES: [DataType; 10] = [
    DataType::Int,
    DataType::Long,
    DataType::Float,
    DataType::Double,
    DECIMAL,
    DataType::Boolean,
    DataType::Timestamp,
    DataType::String,
    DataType::Json,
    DataType::Bytes,
];

/// One segment's rows, as values by column of the schema.
pub(super) struct Rows {
    pub(super) half: Half,
    pub(super) name: String,
    pub(super) partition: Option<StreamPartition>,
    pub(super) start_offset: u64,
    /// By document, by column; what a lacking column answers with included.
    pub(super) rows: Vec<Vec<Value>>,
    pub(super) invalid: Vec<u32>,
}

pub(super) struct Table {
    pub(super) schema: Arc<Schema>,
    pub(super) segments: Vec<Rows>,
    pub(super) host: MemoryHost,
}

fn words(rng: &mut StdRng) -> String {
    [
        "",
        "a",
        "ab",
        "abc",
        "Abd",
        "b",
        "b%",
        "ba_",
        "c\\d",
        "zürich",
        "ab, the abc",
        "Abd ab b c",
    ]
    .choose(rng)
    .unwrap()
    .to_string()
}

/// A document, or now and then a text that is none.
fn document(rng: &mut StdRng) -> String {
    [
        "null",
        "{}",
        "a",
        "1",
        r#""a""#,
        r#"{"a":1}"#,
        r#"{"a":"b"}"#,
        r#"{"a":[1,"b"],"b":[{"c":1,"d":2},{"c":2,"d":1}]}"#,
        r#"{"a":[1,1],"b":[{"c":2,"d":[1]},{"c":"xyz","d":[]}]}"#,
        r#"{"b":[{"c":1},{"c":2,"d":[2,1]}]}"#,
        r#"[1,[2,3],{"a":1}]"#,
        r#"{"a":"#,
    ]
    .choose(rng)
    .unwrap()
    .to_string()
}

fn json_filter(rng: &mut StdRng) -> String {
    [
        r#""$.a" = 1"#,
        r#""$.a[*]" = 1"#,
        r#""$.a[1]" = 'b'"#,
        r#""$.b[*].c" = 1 AND "$.b[*].d" = 2"#,
        r#""$.b[*].c" = 2 AND "$.a[*]" = 1"#,
        r#""$.b[0].c" = 1 AND NOT "$.b[*].d[*]" = 1"#,
        r#""$.b[*].d[0]" > 1"#,
        r#""$.b[*].c" != 'xyz'"#,
        r#""$.b[*].c" = 'xyz' OR "$.a" IS NOT NULL"#,
        r#""$.a" IS NULL"#,
        r#"NOT ("$.a" = 'b' OR "$[1][*]" = 3)"#,
        r#"REGEXP_LIKE("$.a", '[a-c]') OR "$" = 'a'"#,
        r#""$.b[*].c" IN (1, 'xyz') AND "$.b[*].d[*]" IS NULL"#,
        r#""$" IS NOT NULL"#,
    ]
    .choose(rng)
    .unwrap()
    .to_string()
}

pub(super) fn value(rng: &mut StdRng, data_type: DataType) -> Value {
    let small = rng.random_range(-6i64..7);
    match data_type {
        DataType::Int => Value::Int(if rng.random_bool(0.03) {
            i32::MAX
        } else {
            small as i32
        }),
        DataType::Long => Value::Long(if rng.random_bool(0.03) {
            1 << 40
        } else {
            small
        }),
        DataType::Float => Value::Float(float(rng, small) as f32),
        DataType::Double => Value::Double(float(rng, small)),
        DataType::BigDecimal { .. } => Value::Decimal {
            unscaled: i128::from(small) * 25,
            scale: 2,
        },
        DataType::Boolean => Value::Boolean(rng.random_bool(0.5)),
        DataType::Timestamp => {
            let step = [1_000, 50 * 60_000, 11 * 86_400_000].choose(rng).unwrap();
            Value::Timestamp(small * step)
        }
        DataType::String => Value::String(words(rng)),
        DataType::Json => Value::String(document(rng)),
        DataType::Bytes => Value::Bytes(words(rng).into_bytes()),
    }
}

fn float(rng: &mut StdRng, small: i64) -> f64 {
    match rng.random_range(0..40) {
        0 => f64::NAN,
        1 => f64::INFINITY,
        2 => -0.0,
        _ => small as f64 / 4.0,
    }
}

/// Storage keeps one zero.
fn kept(value: Value) -> Value {
    match value {
        Value::Float(v) => Value::Float(v + 0.0),
        Value::Double(v) => Value::Double(v + 0.0),
        other => other,
    }
}

pub(super) fn stored(rng: &mut StdRng, column: &Column, nulls: f64) -> Value {
    if rng.random_bool(nulls) {
        return Value::Null;
    }
    if !column.multi_value {
        return kept(value(rng, column.data_type));
    }
    let length = rng.random_range(0..4);
    let null_elements = if column.not_null { 0.0 } else { 0.1 };
    Value::List(
        (0..length)
            .map(|_| {
                if rng.random_bool(null_elements) {
                    Value::Null
                } else {
                    kept(value(rng, column.data_type))
                }
            })
            .collect(),
    )
}

pub(super) fn table(rng: &mut StdRng) -> Table {
    let mut columns = vec![Column::dimension(
        "time",
        if rng.random_bool(0.5) {
            DataType::Long
        } else {
            DataType::Timestamp
        },
    )];
    for (i, data_type) in TYPES.iter().cycle().take(14).enumerate() {
        let multi_value = i >= 10;
        let data_type = if multi_value {
            *TYPES.choose(rng).unwrap()
        } else {
            *data_type
        };
        let default = if rng.random_bool(0.5) {
            Value::Null
        } else {
            value(rng, data_type)
        };
        columns.push(Column {
            name: format!("{}{i}", if multi_value { "m" } else { "c" }),
            data_type,
            multi_value,
            role: ColumnRole::Dimension,
            default,
            // Here: whether elements of lists are never null.
            not_null: rng.random_bool(0.5),
        });
    }
    let schema = Arc::new(Schema {
        name: "t".to_owned(),
        version: 1,
        columns,
        primary_key: Vec::new(),
    });
    let mut host = MemoryHost::default();
    let mut segments = Vec::new();
    for number in 0..rng.random_range(1..5) {
        let half = if rng.random_bool(0.5) {
            Half::Offline
        } else {
            Half::Realtime
        };
        let consuming = half == Half::Realtime && rng.random_bool(0.5);
        segments.push(segment(rng, &schema, number, half, consuming, &mut host));
    }
    // The engine reads tails after segments.
    segments.sort_by_key(|s| s.name.starts_with("tail"));
    Table {
        schema,
        segments,
        host,
    }
}

fn segment(
    rng: &mut StdRng,
    schema: &Schema,
    number: u32,
    half: Half,
    consuming: bool,
    host: &mut MemoryHost,
) -> Rows {
    let docs = if rng.random_bool(0.1) {
        0
    } else {
        rng.random_range(1..120)
    };
    let real = rng.random_bool(0.6);
    let mut by_column = Vec::new();
    let mut kept = Vec::new();
    for column in &schema.columns {
        let nulls = if rng.random_bool(0.5) { 0.0 } else { 0.2 };
        let mut values: Vec<_> = (0..docs).map(|_| stored(rng, column, nulls)).collect();
        let dictionary = rng.random_bool(0.6);
        let storage = Storage {
            dictionary,
            sorted_dictionary: !consuming,
            inverted: dictionary && rng.random_bool(0.5),
            range: rng.random_bool(0.4),
            bloom: rng.random_bool(0.3),
            json: rng.random_bool(0.6),
            text: column.data_type.is_text() && rng.random_bool(0.6),
        };
        let lacking = rng.random_bool(0.15);
        if lacking {
            values = match (&column.default, column.multi_value) {
                (Value::Null, _) => vec![Value::Null; docs],
                (single, true) => vec![Value::List(vec![single.clone()]); docs],
                (single, false) => vec![single.clone(); docs],
            };
        } else if rng.random_bool(0.2) && !column.multi_value && !real {
            values.sort_by_key(super::naive::rank);
        }
        kept.push((!lacking).then_some(storage));
        by_column.push(values);
    }
    // A real segment is sorted by its rows.
    let sortable = |i: &usize| {
        kept[*i].is_some()
            && !schema.columns[*i].multi_value
            && by_column[*i].iter().all(|v| !v.is_null())
    };
    let sorted = (0..by_column.len())
        .find(sortable)
        .filter(|_| real && !consuming && rng.random_bool(0.5));
    if let Some(sorted) = sorted {
        let mut order: Vec<usize> = (0..docs).collect();
        order.sort_by_key(|&doc| super::naive::rank(&by_column[sorted][doc]));
        for values in &mut by_column {
            *values = order.iter().map(|&doc| values[doc].clone()).collect();
        }
    }
    let rows: Vec<Vec<Value>> = (0..docs)
        .map(|doc| by_column.iter().map(|values| values[doc].clone()).collect())
        .collect();
    let partition = (half == Half::Realtime).then(|| StreamPartition {
        stream: "log".into(),
        topic: "t".into(),
        partition: 3,
    });
    let start_offset = u64::from(number) * 1_000;
    let invalid: Vec<u32> = if !real && rng.random_bool(0.2) {
        (0..docs as u32).filter(|_| rng.random_bool(0.3)).collect()
    } else {
        Vec::new()
    };
    let name = format!("{}_{number}", if consuming { "tail" } else { "segment" });
    let origin = partition.clone().map(|partition| {
        let end = start_offset + docs as u64;
        (
            partition,
            OffsetRange {
                start: start_offset,
                end,
            },
        )
    });
    let columns = schema.columns.iter().zip(&kept).zip(by_column);
    let columns = columns.filter_map(|((column, storage), values)| {
        storage.map(|storage| (column.clone(), storage, values))
    });
    let segment: Arc<dyn SegmentReader> = if real {
        let sorted_column = sorted.map(|i| schema.columns[i].name.clone());
        let stored = ToStore {
            name: name.clone(),
            half,
            origin,
            columns: columns.collect(),
            sorted_column,
            docs,
        };
        if consuming {
            stored.consuming()
        } else {
            stored.immutable()
        }
    } else {
        let columns: HashMap<String, Arc<dyn ColumnReader>> = columns
            .map(|(column, storage, values)| {
                let reader: Arc<dyn ColumnReader> =
                    Arc::new(MemoryColumn::new(&column, &values, storage));
                (column.name, reader)
            })
            .collect();
        let invalid = (!invalid.is_empty()).then(|| invalid.clone());
        Arc::new(MemorySegment {
            name: name.clone(),
            docs: docs as u32,
            columns,
            origin,
            invalid,
        })
    };
    if consuming {
        host.tails.push(segment);
    } else {
        host.segments.push((half, segment));
    }
    Rows {
        half,
        name,
        partition,
        start_offset,
        rows,
        invalid,
    }
}

/// A value that a column of `data_type` may be compared with.
fn operand(rng: &mut StdRng, data_type: DataType, parameters: &mut Vec<Value>) -> Operand {
    let value = if rng.random_bool(0.03) {
        Value::Null
    } else if matches!(
        data_type,
        DataType::Int
            | DataType::Long
            | DataType::Float
            | DataType::Double
            | DataType::BigDecimal { .. }
    ) {
        let other = *[
            DataType::Int,
            DataType::Long,
            DataType::Float,
            DataType::Double,
            DECIMAL,
        ]
        .choose(rng)
        .unwrap();
        let picked = if rng.random_bool(0.5) {
            data_type
        } else {
            other
        };
        value(rng, picked)
    } else {
        value(rng, data_type)
    };
    if rng.random_bool(0.3) {
        parameters.push(value);
        Operand::Parameter(parameters.len() - 1)
    } else {
        Operand::Literal(value)
    }
}

/// A text query of the words that values are made of.
pub(super) fn text_query(rng: &mut StdRng, depth: u32) -> String {
    const CLAUSES: [&str; 18] = [
        "a",
        "ab",
        "ABC",
        "zürich",
        "zurich~1",
        "abd~",
        "ab*",
        "*b",
        "?b",
        "a*c",
        "/a[bz]+/",
        "\"ab abc\"",
        "\"ab the abc\"",
        "\"ab b\"",
        "\"b abd\"~3",
        "the",
        "b%",
        "absent",
    ];
    if depth > 2 || rng.random_bool(0.4) {
        return CLAUSES.choose(rng).unwrap().to_string();
    }
    let mut query = String::new();
    for i in 0..rng.random_range(1..4) {
        if i > 0 {
            query += [" ", " AND ", " OR "].choose(rng).unwrap();
        }
        query += ["", "", "+", "-", "NOT "].choose(rng).unwrap();
        let clause = text_query(rng, depth + 1);
        query += &match clause.starts_with(['+', '-'])
            || clause.contains(' ') && !clause.starts_with('"')
        {
            true => format!("({clause})"),
            false => clause,
        };
    }
    query
}

fn predicate(rng: &mut StdRng, schema: &Schema, parameters: &mut Vec<Value>) -> ColumnPredicate {
    let mut columns: Vec<(String, DataType)> = schema
        .columns
        .iter()
        .map(|c| (c.name.clone(), c.data_type))
        .collect();
    columns.push((virtual_columns::DOC_ID.to_owned(), DataType::Int));
    columns.push((virtual_columns::OFFSET.to_owned(), DataType::Long));
    columns.push((virtual_columns::PARTITION.to_owned(), DataType::Int));
    let (column, data_type) = columns.choose(rng).unwrap().clone();
    let text = data_type.is_text();
    let test = match rng.random_range(0..10) {
        0..3 => ColumnTest::In(
            (0..rng.random_range(1..3))
                .map(|_| operand(rng, data_type, parameters))
                .collect(),
        ),
        3 => ColumnTest::In(
            (0..rng.random_range(0..9))
                .map(|_| operand(rng, data_type, parameters))
                .collect(),
        ),
        4..7 => ColumnTest::Range {
            low: rng
                .random_bool(0.7)
                .then(|| (operand(rng, data_type, parameters), rng.random_bool(0.5))),
            high: rng
                .random_bool(0.7)
                .then(|| (operand(rng, data_type, parameters), rng.random_bool(0.5))),
        },
        7 if text => ColumnTest::JsonMatch {
            filter: match rng.random_range(0..8) {
                0 => Operand::Literal(Value::Null),
                _ => Operand::Literal(Value::String(json_filter(rng))),
            },
        },
        8 if text => {
            let pattern = Operand::Literal(Value::String(
                ["a%", "%b%", "_b%", "", "%", "b\\%", "Ab_", "abc"]
                    .choose(rng)
                    .unwrap()
                    .to_string(),
            ));
            ColumnTest::Like {
                pattern,
                case_insensitive: rng.random_bool(0.3),
            }
        }
        9 if text => ColumnTest::TextMatch {
            query: Operand::Literal(Value::String(text_query(rng, 0))),
            settings: TextSettings {
                // Others than the index's, now and then.
                case_sensitive: rng.random_bool(0.1),
                ..TextSettings::default()
            },
        },
        _ => ColumnTest::IsNull,
    };
    ColumnPredicate {
        column,
        test,
        negated: rng.random_bool(0.4),
    }
}

pub(super) fn filter(
    rng: &mut StdRng,
    schema: &Schema,
    parameters: &mut Vec<Value>,
    depth: u32,
) -> LeafFilter {
    let children = |rng: &mut StdRng, parameters: &mut Vec<Value>| -> Vec<LeafFilter> {
        (0..rng.random_range(1..4))
            .map(|_| filter(rng, schema, parameters, depth + 1))
            .collect()
    };
    match rng.random_range(0..10) {
        0 if depth == 0 => LeafFilter::And(Vec::new()),
        0..3 if depth < 3 => LeafFilter::And(children(rng, parameters)),
        3..5 if depth < 3 => LeafFilter::Or(children(rng, parameters)),
        5 => LeafFilter::Expr(condition(rng, schema)),
        _ => LeafFilter::Column(predicate(rng, schema, parameters)),
    }
}

fn numeric_columns(schema: &Schema) -> Vec<&Column> {
    schema
        .columns
        .iter()
        .filter(|c| {
            !c.multi_value
                && matches!(
                    c.data_type,
                    DataType::Int | DataType::Long | DataType::Double
                )
        })
        .collect()
}

fn column(name: &str) -> LeafExpr {
    LeafExpr::Column(name.to_owned())
}

fn cast(expr: LeafExpr, to: ArrowType) -> LeafExpr {
    LeafExpr::Cast {
        expr: Box::new(expr),
        to,
        safe: false,
    }
}

fn binary(op: BinaryOp, left: LeafExpr, right: LeafExpr) -> LeafExpr {
    LeafExpr::Binary {
        op,
        left: Box::new(left),
        right: Box::new(right),
    }
}

/// A number computed from one or two columns, maybe only where some whole numbers compare.
fn number(rng: &mut StdRng, schema: &Schema) -> (LeafExpr, ArrowType) {
    let (then, data_type) = computed(rng, schema);
    if !rng.random_bool(0.2) {
        return (then, data_type);
    }
    let compared = |rng: &mut StdRng| {
        let whole = loop {
            let picked = numeric_columns(schema).choose(rng).copied().unwrap();
            if picked.data_type != DataType::Double {
                break cast(column(&picked.name), ArrowType::Int64);
            }
        };
        let op = *[BinaryOp::LtEq, BinaryOp::Gt, BinaryOp::NotEq]
            .choose(rng)
            .unwrap();
        let bound = LeafExpr::Literal(Value::Long(rng.random_range(-3..4)), ArrowType::Int64);
        binary(op, whole, bound)
    };
    let mut when = compared(rng);
    if rng.random_bool(0.5) {
        let op = *[BinaryOp::And, BinaryOp::Or].choose(rng).unwrap();
        when = binary(op, when, LeafExpr::Not(Box::new(compared(rng))));
    }
    let zero = match data_type {
        ArrowType::Int64 => Value::Long(0),
        _ => Value::Double(0.0),
    };
    let case = LeafExpr::Case {
        base: None,
        branches: vec![(when, then)],
        otherwise: Some(Box::new(LeafExpr::Literal(zero, data_type.clone()))),
    };
    (case, data_type)
}

/// A number computed from one or two columns.
fn computed(rng: &mut StdRng, schema: &Schema) -> (LeafExpr, ArrowType) {
    let columns = numeric_columns(schema);
    let to = if rng.random_bool(0.5) {
        ArrowType::Int64
    } else {
        ArrowType::Float64
    };
    // Casting a double to an integer fails on NaN, and the sign of the NaN that two doubles make is anyone's.
    let two = rng.random_bool(0.25);
    let doubles = to == ArrowType::Float64 && !two;
    let side = |rng: &mut StdRng| loop {
        let picked = columns.choose(rng).unwrap();
        if doubles || picked.data_type != DataType::Double {
            return cast(column(&picked.name), to.clone());
        }
    };
    let left = side(rng);
    if !two && rng.random_bool(0.5) {
        return (left, to);
    }
    let op = *[BinaryOp::Plus, BinaryOp::Minus, BinaryOp::Multiply]
        .choose(rng)
        .unwrap();
    let right = match two {
        true => side(rng),
        false if to == ArrowType::Int64 => LeafExpr::Literal(Value::Long(2), ArrowType::Int64),
        false => LeafExpr::Literal(Value::Double(0.5), ArrowType::Float64),
    };
    (binary(op, left, right), to)
}

fn condition(rng: &mut StdRng, schema: &Schema) -> LeafExpr {
    let (left, data_type) = number(rng, schema);
    let bound = match data_type {
        ArrowType::Int64 => {
            LeafExpr::Literal(Value::Long(rng.random_range(-3..4)), ArrowType::Int64)
        }
        _ => LeafExpr::Literal(
            Value::Double(f64::from(rng.random_range(-3..4)) / 2.0),
            ArrowType::Float64,
        ),
    };
    let op = *[
        BinaryOp::Lt,
        BinaryOp::GtEq,
        BinaryOp::Eq,
        BinaryOp::IsDistinctFrom,
    ]
    .choose(rng)
    .unwrap();
    let condition = binary(op, left.clone(), bound);
    match rng.random_range(0..3) {
        0 => LeafExpr::Not(Box::new(condition)),
        1 => LeafExpr::Case {
            base: None,
            branches: vec![(
                LeafExpr::IsNull(Box::new(left)),
                LeafExpr::Literal(Value::Boolean(true), ArrowType::Boolean),
            )],
            otherwise: Some(Box::new(condition)),
        },
        _ => condition,
    }
}

fn any_expr(rng: &mut StdRng, schema: &Schema) -> (LeafExpr, ArrowType) {
    match rng.random_range(0..12) {
        0 => (column(virtual_columns::SEGMENT), ArrowType::Utf8),
        1 => (column(virtual_columns::OFFSET), ArrowType::Int64),
        2 => (column(virtual_columns::PARTITION), ArrowType::Int32),
        3 => number(rng, schema),
        4 => (condition(rng, schema), ArrowType::Boolean),
        _ => {
            let picked = schema.columns.choose(rng).unwrap();
            let expr = match picked.is_single_timestamp() && rng.random_bool(0.7) {
                true => truncated(rng, &picked.name),
                false => column(&picked.name),
            };
            (expr, picked.arrow_type())
        }
    }
}

/// An aggregate of what a row's list of numbers comes to.
fn of_lists(
    rng: &mut StdRng,
    schema: &Schema,
    state: &dyn Fn(&str, ArrowType, bool) -> Field,
    fields: &mut Vec<Field>,
) -> (AggregateFunction, Option<LeafExpr>) {
    let numbers = [
        (DataType::Int, ArrowType::Int32, ArrowType::Int64),
        (DataType::Long, ArrowType::Int64, ArrowType::Int64),
        (DataType::Float, ArrowType::Float32, ArrowType::Float64),
        (DataType::Double, ArrowType::Float64, ArrowType::Float64),
    ];
    let lists = schema.columns.iter().filter(|column| column.multi_value);
    let lists: Vec<_> = lists
        .filter_map(|column| {
            let types = numbers.iter().find(|n| n.0 == column.data_type)?;
            Some((column.name.clone(), types.1.clone(), types.2.clone()))
        })
        .collect();
    let Some((name, one, sum)) = lists.choose(rng).cloned() else {
        fields.push(state("count", ArrowType::Int64, false));
        return (AggregateFunction::Count, None);
    };
    let (aggregate, function, returns) = match rng.random_range(0..4) {
        0 => (AggregateFunction::Sum, "mv_sum", sum),
        1 => (AggregateFunction::Sum, "mv_count", ArrowType::Int64),
        2 => (AggregateFunction::Min, "mv_min", one),
        _ => (AggregateFunction::Max, "mv_max", one),
    };
    fields.push(state("folded", returns.clone(), true));
    let call = LeafExpr::Call {
        function: function.to_owned(),
        args: vec![column(&name)],
        returns,
    };
    (aggregate, Some(call))
}

fn truncated(rng: &mut StdRng, name: &str) -> LeafExpr {
    let unit = Granularity::ALL.choose(rng).unwrap();
    let unit = Value::String(unit.name().to_lowercase());
    LeafExpr::Call {
        function: "date_trunc".to_owned(),
        args: vec![LeafExpr::Literal(unit, ArrowType::Utf8), column(name)],
        returns: ArrowType::Timestamp(TimeUnit::Millisecond, None),
    }
}

fn sortable(rng: &mut StdRng, schema: &Schema) -> SortKey {
    loop {
        let (expr, data_type) = any_expr(rng, schema);
        if !matches!(data_type, ArrowType::List(_)) {
            return SortKey {
                expr,
                descending: rng.random_bool(0.5),
                nulls_first: rng.random_bool(0.5),
            };
        }
    }
}

fn rows(rng: &mut StdRng, schema: &Schema) -> (LeafOutput, ArrowSchema) {
    let exprs: Vec<_> = (0..rng.random_range(0..5))
        .map(|_| any_expr(rng, schema))
        .collect();
    let fields: Vec<_> = exprs
        .iter()
        .enumerate()
        .map(|(i, (_, t))| Field::new(format!("x{i}"), t.clone(), true))
        .collect();
    let order: Vec<_> = if rng.random_bool(0.3) {
        (0..rng.random_range(1..4))
            .map(|_| sortable(rng, schema))
            .collect()
    } else {
        Vec::new()
    };
    let limit = (!order.is_empty() || rng.random_bool(0.3)).then(|| rng.random_range(0..60));
    (
        LeafOutput::Rows {
            project: exprs.into_iter().map(|(e, _)| e).collect(),
            limit,
            order,
        },
        ArrowSchema::new(fields),
    )
}

/// What a mean is taken of: a column, or a number computed from some, as a float.
fn meant(rng: &mut StdRng, schema: &Schema) -> LeafExpr {
    if rng.random_bool(0.5) {
        return cast(number(rng, schema).0, ArrowType::Float64);
    }
    let columns = numeric_columns(schema);
    let picked = columns.choose(rng).unwrap();
    match picked.data_type {
        DataType::Double => column(&picked.name),
        _ => cast(column(&picked.name), ArrowType::Float64),
    }
}

fn aggregate(
    rng: &mut StdRng,
    schema: &Schema,
    parameters: &mut Vec<Value>,
    i: usize,
    fields: &mut Vec<Field>,
) -> LeafAggregate {
    let state =
        |name: &str, t: ArrowType, nullable: bool| Field::new(format!("a{i}[{name}]"), t, nullable);
    let scalar = |rng: &mut StdRng| loop {
        let (expr, data_type) = any_expr(rng, schema);
        if !matches!(data_type, ArrowType::List(_)) {
            return (expr, data_type);
        }
    };
    let (function, argument) = match rng.random_range(0..13) {
        12 => of_lists(rng, schema, &state, fields),
        0 => {
            fields.push(state("count", ArrowType::Int64, false));
            (AggregateFunction::Count, None)
        }
        1 => {
            fields.push(state("count", ArrowType::Int64, false));
            (AggregateFunction::Count, Some(any_expr(rng, schema).0))
        }
        2 => {
            let (expr, data_type) = any_expr(rng, schema);
            fields.push(state(
                "distinct",
                ArrowType::List(Arc::new(Field::new_list_field(data_type, true))),
                false,
            ));
            (AggregateFunction::CountDistinct, Some(expr))
        }
        9 => {
            fields.push(state("distinct", ArrowType::Int64, false));
            (
                AggregateFunction::FinalCountDistinct,
                Some(any_expr(rng, schema).0),
            )
        }
        11 => {
            let (expr, _) = loop {
                let (expr, data_type) = scalar(rng);
                let sketched = [ArrowType::Int32, ArrowType::Int64, ArrowType::Utf8];
                if sketched.contains(&data_type) || matches!(data_type, ArrowType::Timestamp(..)) {
                    break (expr, data_type);
                }
            };
            fields.push(state("hll_registers", ArrowType::Binary, false));
            (AggregateFunction::ApproxDistinct, Some(expr))
        }
        10 => {
            fields.push(state("mean", ArrowType::Float64, true));
            let argument = meant(rng, schema);
            (AggregateFunction::FinalAvg, Some(argument))
        }
        3..5 => {
            let decimal = schema
                .columns
                .iter()
                .find(|c| matches!(c.data_type, DataType::BigDecimal { .. }) && !c.multi_value);
            let (expr, data_type) = match decimal {
                Some(decimal) if rng.random_bool(0.2) => {
                    (column(&decimal.name), ArrowType::Decimal128(30, 2))
                }
                _ => number(rng, schema),
            };
            fields.push(state("sum", data_type, true));
            (AggregateFunction::Sum, Some(expr))
        }
        5 => {
            let argument = meant(rng, schema);
            fields.push(state("count", ArrowType::UInt64, true));
            fields.push(state("sum", ArrowType::Float64, true));
            (AggregateFunction::Avg, Some(argument))
        }
        other => {
            let (expr, data_type) = scalar(rng);
            fields.push(state("extreme", data_type, true));
            (
                if other % 2 == 0 {
                    AggregateFunction::Min
                } else {
                    AggregateFunction::Max
                },
                Some(expr),
            )
        }
    };
    let filter = rng
        .random_bool(0.25)
        .then(|| filter(rng, schema, parameters, 1));
    LeafAggregate {
        function,
        argument,
        filter,
    }
}

fn aggregation(
    rng: &mut StdRng,
    schema: &Schema,
    parameters: &mut Vec<Value>,
) -> (LeafOutput, ArrowSchema) {
    let mut fields = Vec::new();
    let mut group = Vec::new();
    for i in 0..[0, 0, 1, 1, 1, 2, 2, 3, 5].choose(rng).copied().unwrap() {
        let (expr, data_type) = any_expr(rng, schema);
        let (explode, data_type) = match data_type {
            ArrowType::List(field) if rng.random_bool(0.7) => (true, field.data_type().clone()),
            other => (false, other),
        };
        fields.push(Field::new(format!("k{i}"), data_type, true));
        group.push(GroupKey { expr, explode });
    }
    let aggregates = (0..rng.random_range(0..4))
        .map(|i| aggregate(rng, schema, parameters, i, &mut fields))
        .collect();
    (
        LeafOutput::Aggregate { group, aggregates },
        ArrowSchema::new(fields),
    )
}

pub(super) fn query(rng: &mut StdRng, table: &Table) -> LeafQuery {
    let mut parameters = Vec::new();
    let filter = filter(rng, &table.schema, &mut parameters, 0);
    let (output, schema) = if rng.random_bool(0.4) {
        rows(rng, &table.schema)
    } else {
        aggregation(rng, &table.schema, &mut parameters)
    };
    let time = |millis: i64| match table.schema.columns[0].data_type {
        DataType::Timestamp => Value::Timestamp(millis * 1_000),
        _ => Value::Long(millis),
    };
    let intervals = match rng.random_range(0..3) {
        0 => vec![(time(-100), time(rng.random_range(-7..8)))],
        1 => vec![(time(-100), time(-2)), (time(0), time(2))],
        _ => Vec::new(),
    };
    // Where rows were taken over from the stream, realtime rows count beside offline ones.
    let hiding = match rng.random_range(0..3) {
        0 => intervals.iter().take(1).cloned().collect(),
        1 => vec![(time(-1), time(1))],
        _ => intervals.clone(),
    };
    let coverage = rng.random_bool(0.4).then(|| CoverageFilter {
        column: "time".to_owned(),
        offline: intervals,
        hiding,
    });
    LeafQuery {
        version: LEAF_QUERY_VERSION,
        query_id: 1,
        table: "t".into(),
        schema: Arc::clone(&table.schema),
        lineage: Default::default(),
        work: Arc::new(LeafWork {
            filter,
            output,
            schema: Arc::new(schema),
        }),
        parameters,
        segments: table.host.tasks(),
        tails: table.host.tail_tasks(),
        coverage,
        keys_version: None,
        batch_rows_max: *[1, 7, 8_192].choose(rng).unwrap(),
    }
}
