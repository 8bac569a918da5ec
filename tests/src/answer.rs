//! Answers as rows of plain cells, and how two of them are held against each other.
//!
//! Numbers compare by value whatever their integer or decimal type; floats within a tolerance; all
//! else exactly. A row is only ever compared as a whole. Order is compared on the ordered columns
//! alone, because rows with equal keys may come in any order; under a LIMIT, every row must be one of
//! the unlimited answer's.

use crate::query::Query;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int64Type, SchemaRef, TimeUnit,
    TimestampNanosecondType, UInt64Type,
};
use std::collections::HashMap;
use std::fmt::{self, Write};

/// One value of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Null.
    Null,
    /// True or false.
    Boolean(bool),
    /// An integer or decimal: `digits * 10^-scale`, without trailing zeros after the point.
    Number(i128, i8),
    /// A float.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nanoseconds since the epoch.
    Instant(i128),
    /// Days since the epoch.
    Date(i32),
    /// A list.
    List(Vec<Cell>),
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The columns' types, views and dictionaries taken off.
    pub types: Vec<String>,
    /// The columns' names.
    pub names: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Cell>>,
}

/// How far two floats may be apart, relative to the larger.
const RELATIVE: f64 = 1e-9;
/// Or absolutely, near zero.
const ABSOLUTE: f64 = 1e-9;

impl Answer {
    /// The rows of `batches`, or what could not be read of them.
    pub fn of(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self, String> {
        let mut rows = Vec::new();
        for batch in batches {
            let columns = batch
                .columns()
                .iter()
                .map(cells)
                .collect::<Result<Vec<_>, _>>()?;
            let mut iterators: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            for _ in 0..batch.num_rows() {
                rows.push(
                    iterators
                        .iter_mut()
                        .map(|i| i.next().expect("as many cells as rows"))
                        .collect(),
                );
            }
        }
        Ok(Self {
            types: schema
                .fields()
                .iter()
                .map(|f| plain_type(f.data_type()))
                .collect(),
            names: schema.fields().iter().map(|f| f.name().clone()).collect(),
            rows,
        })
    }
}

fn plain_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => "Utf8".to_owned(),
        DataType::BinaryView | DataType::LargeBinary => "Binary".to_owned(),
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::List(field) | DataType::LargeList(field) => {
            format!("List<{}>", plain_type(field.data_type()))
        }
        other => other.to_string(),
    }
}

fn number(mut digits: i128, mut scale: i8) -> Cell {
    while scale > 0 && digits % 10 == 0 {
        digits /= 10;
        scale -= 1;
    }
    Cell::Number(digits, scale)
}

fn cells(array: &ArrayRef) -> Result<Vec<Cell>, String> {
    let as_type = |to: &DataType| cast(array, to).map_err(|e| e.to_string());
    macro_rules! collect {
        ($array:expr, $make:expr) => {
            $array.iter().map(|v| v.map_or(Cell::Null, $make)).collect()
        };
    }
    Ok(match array.data_type() {
        DataType::Null => vec![Cell::Null; array.len()],
        DataType::Boolean => collect!(array.as_boolean(), Cell::Boolean),
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32 => {
            let longs = as_type(&DataType::Int64)?;
            collect!(longs.as_primitive::<Int64Type>(), |v| number(v.into(), 0))
        }
        DataType::UInt64 => {
            collect!(array.as_primitive::<UInt64Type>(), |v| number(v.into(), 0))
        }
        DataType::Decimal128(_, scale) => {
            collect!(array.as_primitive::<Decimal128Type>(), |v| number(
                v, *scale
            ))
        }
        DataType::Float32 => collect!(array.as_primitive::<Float32Type>(), |v| Cell::Float(
            v.into()
        )),
        DataType::Float64 => collect!(array.as_primitive::<Float64Type>(), Cell::Float),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
            let text = as_type(&DataType::Utf8)?;
            collect!(text.as_string::<i32>(), |v| Cell::Text(v.to_owned()))
        }
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => {
            let bytes = as_type(&DataType::Binary)?;
            collect!(bytes.as_binary::<i32>(), |v: &[u8]| Cell::Bytes(v.to_vec()))
        }
        DataType::Timestamp(_, zone) => {
            let nanos = as_type(&DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()))?;
            collect!(nanos.as_primitive::<TimestampNanosecondType>(), |v| {
                Cell::Instant(v.into())
            })
        }
        DataType::Date32 => collect!(array.as_primitive::<Date32Type>(), Cell::Date),
        DataType::Dictionary(_, values) => cells(&as_type(values)?)?,
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let elements = cells(lists.values())?;
            (0..lists.len())
                .map(|row| {
                    if lists.is_null(row) {
                        Cell::Null
                    } else {
                        let offsets = lists.value_offsets();
                        Cell::List(
                            elements[offsets[row] as usize..offsets[row + 1] as usize].to_vec(),
                        )
                    }
                })
                .collect()
        }
        other => return Err(format!("no way to compare values of {other}")),
    })
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(v) => write!(f, "{v}"),
            Self::Number(digits, scale) => f.write_str(&crate::sql::decimal_text(*digits, *scale)),
            Self::Float(v) => write!(f, "{v:?}f"),
            Self::Text(v) => write!(f, "{v:?}"),
            Self::Bytes(v) => write!(f, "{v:02x?}"),
            Self::Instant(v) => write!(f, "@{v}"),
            Self::Date(days) => {
                let (year, month, day) = crate::sql::civil(i64::from(*days));
                write!(f, "{year:04}-{month:02}-{day:02}")
            }
            Self::List(v) => {
                f.write_char('[')?;
                for (i, cell) in v.iter().enumerate() {
                    write!(f, "{}{cell}", if i > 0 { ", " } else { "" })?;
                }
                f.write_char(']')
            }
        }
    }
}

fn close(a: f64, b: f64) -> bool {
    if a.is_infinite() || b.is_infinite() {
        // What is relative to an infinity is infinite, too.
        return a == b;
    }
    a == b
        || (a.is_nan() && b.is_nan())
        || (a - b).abs() <= ABSOLUTE.max(RELATIVE * a.abs().max(b.abs()))
}

fn same_cell(a: &Cell, b: &Cell) -> bool {
    match (a, b) {
        (Cell::Float(a), Cell::Float(b)) => close(*a, *b),
        (Cell::List(a), Cell::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_cell(a, b))
        }
        (a, b) => a == b,
    }
}

/// What must be equal exactly in a row, as a key for look-up; floats are compared later.
fn exact_part(row: &[Cell]) -> String {
    let mut key = String::new();
    for cell in row {
        match cell {
            Cell::Float(_) => key.push_str("f|"),
            Cell::List(list) if list.iter().any(|c| matches!(c, Cell::Float(_))) => {
                let _ = write!(key, "list of {}|", list.len());
            }
            other => {
                let _ = write!(key, "{other}|");
            }
        }
    }
    key
}

fn show(row: &[Cell]) -> String {
    row.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" | ")
}

/// The first row of `ours` that `theirs` does not have (or not often enough).
fn missing<'a>(ours: &'a [Vec<Cell>], theirs: &[Vec<Cell>]) -> Option<&'a [Cell]> {
    let mut left: HashMap<String, Vec<&Vec<Cell>>> = HashMap::new();
    for row in theirs {
        left.entry(exact_part(row)).or_default().push(row);
    }
    for row in ours {
        let found = left.get_mut(&exact_part(row)).and_then(|candidates| {
            let at = candidates
                .iter()
                .position(|other| row.iter().zip(*other).all(|(a, b)| same_cell(a, b)))?;
            Some(candidates.swap_remove(at))
        });
        if found.is_none() {
            return Some(row);
        }
    }
    None
}

/// Whether `ours` is a right answer, given the oracle's to the query and to the query without LIMIT.
pub fn compare(
    query: &Query,
    ours: &Answer,
    theirs: &Answer,
    unlimited: Option<&Answer>,
) -> Result<(), String> {
    if ours.types.len() != theirs.types.len() {
        return Err(format!(
            "{} columns, not {}",
            ours.types.len(),
            theirs.types.len()
        ));
    }
    if ours.rows.len() != theirs.rows.len() {
        return Err(format!(
            "{} rows, not {}; {}",
            ours.rows.len(),
            theirs.rows.len(),
            first_difference(ours, theirs)
        ));
    }
    let all = &unlimited.unwrap_or(theirs).rows;
    // Rows whose order by the keys so far is rounding's.
    let mut rounded = vec![false; ours.rows.len()];
    for key in &query.order {
        for (i, (a, b)) in ours.rows.iter().zip(&theirs.rows).enumerate() {
            if !rounded[i] && !same_cell(&a[*key], &b[*key]) {
                return Err(format!(
                    "row {i} is out of order in column {key}: {} where {} belongs",
                    show(a),
                    show(b)
                ));
            }
        }
        mark_rounded(*key, &ours.rows, &theirs.rows, all, &mut rounded);
    }
    match missing(&ours.rows, all) {
        None => Ok(()),
        Some(row) => Err(format!(
            "unexpected row {}; {}",
            show(row),
            first_difference(ours, theirs)
        )),
    }
}

/// Marks runs of rows whose floats in the column `key` are equal but for rounding, and not all of one value: sums are added
/// up in any order, so which of these rows comes first by them says nothing, nor does the order by later keys.
///
/// So it is where LIMIT or OFFSET cut such a run of `all` the rows: what was cut off may differ in the last digit.
fn mark_rounded(
    key: usize,
    ours: &[Vec<Cell>],
    theirs: &[Vec<Cell>],
    all: &[Vec<Cell>],
    rounded: &mut [bool],
) {
    let float = |rows: &[Vec<Cell>], i: usize| match rows.get(i).and_then(|row| row.get(key)) {
        Some(Cell::Float(value)) => Some(*value),
        _ => None,
    };
    let continues =
        |rows, i| matches!((float(rows, i - 1), float(rows, i)), (Some(a), Some(b)) if close(a, b));
    let mut start = 0;
    for end in 1..=rounded.len() {
        if end < rounded.len() && continues(theirs, end) {
            continue;
        }
        let differs = |rows: &[Vec<Cell>]| {
            let mut values = (start..end)
                .filter_map(|i| float(rows, i))
                .map(f64::to_bits);
            let first = values.next();
            values.any(|value| Some(value) != first)
        };
        let is_cut = || {
            let of_run = float(theirs, start).filter(|value| !is_short(*value));
            of_run.is_some_and(|value| {
                let close_to_it =
                    |i: &usize| float(all, *i).is_some_and(|other| close(value, other));
                (0..all.len()).filter(close_to_it).count() > end - start
            })
        };
        if differs(ours) || differs(theirs) || is_cut() {
            rounded[start..end].fill(true);
        }
        start = end;
    }
}

/// Whether the value has so few binary digits after the point that sums of such values are exact.
fn is_short(value: f64) -> bool {
    const DIGITS: f64 = 1_048_576.0;
    (value * DIGITS).fract() == 0.0
}

fn first_difference(ours: &Answer, theirs: &Answer) -> String {
    let extra = missing(&ours.rows, &theirs.rows).map_or("none".to_owned(), show);
    let lacking = missing(&theirs.rows, &ours.rows).map_or("none".to_owned(), show);
    format!("first extra row: {extra}; first missing row: {lacking}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Sql;

    fn answer(rows: &[&[i128]]) -> Answer {
        Answer {
            types: vec!["Int64".to_owned(); rows[0].len()],
            names: Vec::new(),
            rows: rows
                .iter()
                .map(|r| r.iter().map(|v| Cell::Number(*v, 0)).collect())
                .collect(),
        }
    }

    fn ordered_by(order: Vec<usize>) -> Query {
        Query {
            kind: "rows",
            sql: Sql::same(""),
            unlimited: None,
            order,
            uses: Vec::new(),
        }
    }

    #[test]
    fn ties_at_a_limit_may_be_cut_either_way_but_rows_must_exist() {
        let all = answer(&[&[1, 10], &[1, 11], &[2, 12]]);
        let query = ordered_by(vec![0]);
        let theirs = answer(&[&[1, 10]]);
        assert!(compare(&query, &answer(&[&[1, 11]]), &theirs, Some(&all)).is_ok());
        assert!(compare(&query, &answer(&[&[1, 12]]), &theirs, Some(&all)).is_err());
        assert!(compare(&query, &answer(&[&[2, 12]]), &theirs, Some(&all)).is_err());
    }

    #[test]
    fn the_order_of_rows_that_rounding_decides_is_free() {
        let rows = |of: &[(f64, i128)]| Answer {
            types: vec!["Float64".to_owned(), "Int64".to_owned()],
            names: Vec::new(),
            rows: of
                .iter()
                .map(|(float, key)| vec![Cell::Float(*float), Cell::Number(*key, 0)])
                .collect(),
        };
        let query = ordered_by(vec![0, 1]);
        let (sum, other_sum) = (0.1 + 0.2, 0.3);
        let theirs = rows(&[(0.1, 5), (other_sum, 1), (other_sum, 2), (0.5, 3), (0.5, 4)]);
        let ours = rows(&[(0.1, 5), (other_sum, 2), (sum, 1), (0.5, 3), (0.5, 4)]);
        assert_eq!(compare(&query, &ours, &theirs, None), Ok(()));
        // Exactly equal, so the next key decides.
        let ours = rows(&[(0.1, 5), (other_sum, 1), (other_sum, 2), (0.5, 4), (0.5, 3)]);
        assert!(compare(&query, &ours, &theirs, None).is_err());
        // Both orders of what LIMIT left, as one of those cut off may come earlier by rounding.
        let all = rows(&[(0.1, 5), (sum, 1), (sum, 2), (sum, 3)]);
        let theirs = rows(&[(0.1, 5), (sum, 1), (sum, 2)]);
        let ours = rows(&[(0.1, 5), (sum, 1), (sum, 3)]);
        assert_eq!(compare(&query, &ours, &theirs, Some(&all)), Ok(()));
        let all = rows(&[(0.25, 5), (0.5, 1), (0.5, 2), (0.5, 3)]);
        let theirs = rows(&[(0.25, 5), (0.5, 1), (0.5, 2)]);
        let ours = rows(&[(0.25, 5), (0.5, 1), (0.5, 3)]);
        assert!(compare(&query, &ours, &theirs, Some(&all)).is_err());
        // Another value.
        let ours = rows(&[(other_sum, 1), (0.1, 5), (sum, 2), (0.5, 3), (0.5, 4)]);
        assert!(compare(&query, &ours, &theirs, None).is_err());
    }

    #[test]
    fn rows_count_as_often_as_they_occur() {
        let query = ordered_by(vec![]);
        let twice = answer(&[&[1], &[1], &[2]]);
        assert!(compare(&query, &answer(&[&[2], &[1], &[1]]), &twice, None).is_ok());
        assert!(compare(&query, &answer(&[&[2], &[2], &[1]]), &twice, None).is_err());
    }

    #[test]
    fn numbers_of_different_types_compare_by_value() {
        assert_eq!(number(1500, 3), number(15, 1));
        assert_eq!(number(20, 0), Cell::Number(20, 0));
        assert!(same_cell(&Cell::Float(0.1 + 0.2), &Cell::Float(0.3)));
        assert!(!same_cell(&Cell::Float(0.3001), &Cell::Float(0.3)));
        assert!(!same_cell(&Cell::Float(f64::INFINITY), &Cell::Float(0.3)));
        assert!(same_cell(
            &Cell::Float(f64::INFINITY),
            &Cell::Float(f64::INFINITY)
        ));
    }
}
