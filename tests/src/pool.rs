//! The values that drawn columns hold and drawn literals are taken from.

use crate::table::{DAY_MS, DAYS, FIRST_DAY};
use rand::Rng;
use rand::rngs::StdRng;
use std::cmp::Ordering;
use strandline_proto::schema::DataType;
use strandline_proto::time_format::{TIME_MS_MAX, TIME_MS_MIN};
use strandline_proto::value::Value;

/// What kind of values a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A handful, so that groups are large.
    Small,
    /// Many.
    Wide,
    /// The ends of the type's range, and whatever else is odd in it. Sums of these depend on their order.
    Edge,
}

const WORDS: [&str; 16] = [
    "alpha",
    "Beta",
    "gamma ray",
    "delta",
    "",
    "épsilon",
    "zeta_z",
    "100%",
    "it's",
    "theta",
    "中文字",
    "kappa\\k",
    "LAMBDA",
    "mu mu",
    "nu-1",
    "xi.xi",
];

/// Text that is quoted, escaped, folded or cut wrongly by code that is not careful. (U+017F folds to `s`, U+212A to `k`.)
const ODD_TEXTS: [&str; 22] = [
    "",
    " ",
    "alpha",
    "Alpha ",
    "null",
    "NULL",
    "NaN",
    "it's \"quoted\"",
    "'",
    "\\",
    "a\nb\tc",
    "%",
    "_",
    "100%_\\x",
    "strasse",
    "straße",
    "\u{17f}ock\u{212a}",
    "SOCKK",
    "e\u{301}psilon",
    "👩‍👩‍👧 family",
    "\u{10ffff}",
    "İstanbul",
];

/// Bytes of the longest text: more than any block that texts are stored in.
const LONG_TEXT_BYTES: usize = 70_000;

/// Distinct values of `domain`, `count` at most.
pub fn pool(data_type: DataType, domain: Domain, count: usize, random: &mut StdRng) -> Vec<Value> {
    let drawn = match domain {
        Domain::Edge => edges(data_type),
        _ => {
            let wide = domain == Domain::Wide;
            (0..count.max(2))
                .map(|i| value(data_type, wide, i, random))
                .collect()
        }
    };
    let mut distinct: Vec<Value> = Vec::new();
    for value in drawn {
        // -0.0 equals 0.0 here, but is a value of its own.
        if domain == Domain::Edge || !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// The order of two values of one type, floats in total order.
///
/// # Panics
/// When they are of two types, or lists.
pub fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Long(a), Value::Long(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        (Value::Decimal { unscaled: a, .. }, Value::Decimal { unscaled: b, .. }) => a.cmp(b),
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (a, b) => panic!("{a:?} and {b:?} have no order"),
    }
}

fn value(data_type: DataType, wide: bool, i: usize, random: &mut StdRng) -> Value {
    match data_type {
        DataType::Int if wide => Value::Int(random.random_range(-100_000..100_000)),
        DataType::Int => Value::Int(random.random_range(-4..12)),
        DataType::Long if wide => {
            Value::Long(random.random_range(-1_000_000_000_000..1_000_000_000_000))
        }
        DataType::Long => Value::Long(random.random_range(-2..9) * 1_000_000_007),
        // Eighths and sixty-fourths: sums of them are exact whatever the order.
        DataType::Float if wide => Value::Float(random.random_range(-80_000..80_000) as f32 / 8.0),
        DataType::Float => Value::Float(random.random_range(-8..24) as f32 / 8.0),
        DataType::Double if wide => {
            Value::Double(random.random_range(-64_000_000..64_000_000) as f64 / 64.0)
        }
        DataType::Double => Value::Double(random.random_range(-9..30) as f64 / 4.0),
        DataType::BigDecimal { scale, .. } => {
            let quarters: i128 = if wide {
                random.random_range(-4_000_000_000..4_000_000_000)
            } else {
                random.random_range(-3..20)
            };
            Value::Decimal {
                unscaled: quarters * 2_500_000_000,
                scale,
            }
        }
        DataType::Boolean => Value::Boolean(i.is_multiple_of(2)),
        DataType::Timestamp if wide => {
            Value::Timestamp(random.random_range(-40_000_000_000..1_500_000_000_000))
        }
        DataType::Timestamp => Value::Timestamp(
            (FIRST_DAY + random.random_range(-3..DAYS)) * DAY_MS
                + random.random_range(0..3) * 3_600_000,
        ),
        DataType::String if wide => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            let number = random.random_range(0..100_000);
            if i.is_multiple_of(19) {
                Value::String(format!("{}{word}{number}", "long-".repeat(20)))
            } else {
                Value::String(format!("{word}{number}"))
            }
        }
        DataType::String => Value::String(WORDS[random.random_range(0..WORDS.len())].to_owned()),
        DataType::Json => Value::String(format!(
            "{{\"a\":{},\"b\":\"{}\"}}",
            random.random_range(0..if wide { 100_000 } else { 5 }),
            WORDS[random.random_range(0..4)]
        )),
        DataType::Bytes => {
            let length = random.random_range(0..if wide { 9 } else { 3 });
            Value::Bytes((0..length).map(|_| random.random()).collect())
        }
    }
}

fn edges(data_type: DataType) -> Vec<Value> {
    match data_type {
        DataType::Int => [0, 1, -1, i32::MAX, i32::MIN, i32::MAX - 1, i32::MIN + 1]
            .map(Value::Int)
            .to_vec(),
        DataType::Long => [
            0,
            1,
            -1,
            i64::MAX,
            i64::MIN,
            i64::MAX - 1,
            i64::MIN + 1,
            i64::from(i32::MAX) + 1,
            (1 << 53) + 1,
            1 << 53,
        ]
        .map(Value::Long)
        .to_vec(),
        DataType::Float => [
            0.0,
            -0.0,
            1.5,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN,
            f32::MIN_POSITIVE,
            f32::from_bits(1),
            0.1,
        ]
        .map(Value::Float)
        .to_vec(),
        DataType::Double => [
            0.0,
            -0.0,
            1.5,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            f64::from_bits(1),
            0.1,
            1e300,
            9_007_199_254_740_994.0,
        ]
        .map(Value::Double)
        .to_vec(),
        DataType::BigDecimal { precision, scale } => {
            let most = 10_i128.pow(u32::from(precision)) - 1;
            [
                0,
                1,
                -1,
                most,
                -most,
                10_i128.pow(scale.unsigned_abs().into()),
                most - 1,
            ]
            .map(|unscaled| Value::Decimal { unscaled, scale })
            .to_vec()
        }
        DataType::Boolean => [true, false].map(Value::Boolean).to_vec(),
        DataType::Timestamp => [
            0,
            -1,
            1,
            FIRST_DAY * DAY_MS,
            -DAY_MS,
            TIME_MS_MIN,
            TIME_MS_MAX,
            -2_208_988_800_001,
        ]
        .map(Value::Timestamp)
        .to_vec(),
        DataType::String => {
            let mut all: Vec<Value> = ODD_TEXTS
                .iter()
                .map(|text| Value::String((*text).to_owned()))
                .collect();
            all.push(Value::String("long-é-".repeat(LONG_TEXT_BYTES / 8)));
            all
        }
        DataType::Json => [
            "{}",
            "[]",
            "null",
            "true",
            "-0.0",
            "\"\"",
            "\"it's\\n\"",
            "{\"a\": null}",
            "{\"a\":{\"b\":[1,2,{\"c\":\"é\"}]}}",
            "[1, 2, 3]",
            "{\"a\":1,\"a\":2}",
            "123456789012345678901234567890",
        ]
        .map(|text| Value::String(text.to_owned()))
        .to_vec(),
        DataType::Bytes => vec![
            Value::Bytes(vec![]),
            Value::Bytes(vec![0]),
            Value::Bytes(vec![0, 0]),
            Value::Bytes(vec![0xff]),
            Value::Bytes(vec![0xff, 0xfe]),
            Value::Bytes(b"text".to_vec()),
            Value::Bytes((0..=255).cycle().take(1000).collect()),
        ],
    }
}
