//! Tables drawn from a seed: a column of every type, single- and multi-value, under rotating storage,
//! with rows that a hybrid table shows and rows that its coverage hides.

use crate::arrays::array;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use strandline_proto::schema::{DECIMAL_PRECISION_DEFAULT, DECIMAL_SCALE_DEFAULT, DataType};
use strandline_proto::value::Value;

/// 2014-01-01, the first day of all tables.
pub const FIRST_DAY: i64 = 16_071;
/// Days that the visible rows span.
pub const DAYS: i64 = 10;
/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Storage {
    Dictionary,
    Inverted,
    Range,
    Bloom,
    Sorted,
    Raw,
    RawRange,
    RawBloom,
}

const SINGLE_ROTATION: [Storage; 7] = [
    Storage::Dictionary,
    Storage::Inverted,
    Storage::Raw,
    Storage::Range,
    Storage::RawRange,
    Storage::Bloom,
    Storage::RawBloom,
];
const MULTI_ROTATION: [Storage; 3] = [Storage::Dictionary, Storage::Inverted, Storage::Raw];

/// The types in the order of the rotation, with the names that columns take from them.
pub const TYPES: [(&str, DataType); 10] = [
    ("int", DataType::Int),
    ("long", DataType::Long),
    ("float", DataType::Float),
    ("double", DataType::Double),
    (
        "decimal",
        DataType::BigDecimal {
            precision: DECIMAL_PRECISION_DEFAULT,
            scale: DECIMAL_SCALE_DEFAULT,
        },
    ),
    ("bool", DataType::Boolean),
    ("time", DataType::Timestamp),
    ("string", DataType::String),
    ("json", DataType::Json),
    ("bytes", DataType::Bytes),
];

/// The name of `data_type` in columns and statistics.
pub fn type_name(data_type: DataType) -> &'static str {
    TYPES
        .iter()
        .find(|t| t.1 == data_type)
        .map_or("other", |t| t.0)
}

/// One column of a drawn table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type of a value or element.
    pub data_type: DataType,
    /// Whether rows hold lists.
    pub multi_value: bool,
    /// How it is stored.
    pub storage: Storage,
    /// Values that occur in it: what literals are drawn from.
    pub pool: Vec<Value>,
    /// Nulls in a hundred rows.
    pub nulls_percent: u32,
}

/// How a table's time column writes times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeColumn {
    /// LONG, milliseconds since the epoch.
    EpochMillis,
    /// INT, days since the epoch.
    EpochDays,
    /// TIMESTAMP.
    Timestamp,
    /// STRING, `yyyy-MM-dd`.
    DayText,
}

impl TimeColumn {
    /// The column's type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::EpochMillis => DataType::Long,
            Self::EpochDays => DataType::Int,
            Self::Timestamp => DataType::Timestamp,
            Self::DayText => DataType::String,
        }
    }

    /// Pinot's notation of the format.
    pub fn format(self) -> &'static str {
        match self {
            Self::EpochMillis => "1:MILLISECONDS:EPOCH",
            Self::EpochDays => "1:DAYS:EPOCH",
            Self::Timestamp => "1:MILLISECONDS:TIMESTAMP",
            Self::DayText => "1:DAYS:SIMPLE_DATE_FORMAT:yyyy-MM-dd",
        }
    }

    /// Whether it can tell times within a day apart.
    fn is_fine(self) -> bool {
        matches!(self, Self::EpochMillis | Self::Timestamp)
    }

    fn value(self, ms: i64) -> Value {
        match self {
            Self::EpochMillis => Value::Long(ms),
            Self::EpochDays => {
                Value::Int(i32::try_from(ms.div_euclid(DAY_MS)).expect("a day of this era"))
            }
            Self::Timestamp => Value::Timestamp(ms),
            Self::DayText => Value::String(crate::sql::timestamp_text(ms)[..10].to_owned()),
        }
    }
}

/// A drawn table: its columns, and its rows by what a hybrid table makes of them.
#[derive(Clone, Debug)]
pub struct Table {
    /// `t` or `u`, for names.
    pub name: &'static str,
    /// The columns, in schema order.
    pub columns: Vec<Column>,
    /// How the column `event_time` writes times.
    pub time: TimeColumn,
    /// Half-open intervals of milliseconds for which the offline half is complete.
    pub covered: Vec<(i64, i64)>,
    /// Rows that every variant shows, inside coverage.
    pub inside: RecordBatch,
    /// Rows that every variant shows, outside coverage.
    pub outside: RecordBatch,
    /// Offline rows outside coverage: the hybrid variant holds and hides them.
    pub hidden_offline: RecordBatch,
    /// Realtime rows inside coverage: likewise.
    pub hidden_realtime: RecordBatch,
}

/// The name of every table's time column.
pub const TIME_COLUMN: &str = "event_time";

impl Table {
    /// The main table of a round: `rows` visible rows in about 30 columns whose storage depends on `round`.
    pub fn main(seed: u64, round: usize, rows: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut columns = Vec::new();
        for (i, (name, data_type)) in TYPES.iter().enumerate() {
            for copy in 0..2 {
                let storage = if copy == 0 && i == round % TYPES.len() && can_sort(*data_type) {
                    Storage::Sorted
                } else {
                    SINGLE_ROTATION[(round + i + copy * 3) % SINGLE_ROTATION.len()]
                };
                columns.push(Column {
                    name: format!("{name}_{copy}"),
                    data_type: *data_type,
                    multi_value: false,
                    storage,
                    pool: pool(
                        *data_type,
                        if copy == 0 { 6 } else { rows / 3 },
                        copy,
                        &mut random,
                    ),
                    nulls_percent: if (round + copy).is_multiple_of(2) {
                        10
                    } else {
                        3 * (copy as u32)
                    },
                });
            }
        }
        for (i, (name, data_type)) in TYPES.iter().enumerate() {
            if matches!(data_type, DataType::BigDecimal { .. } | DataType::Json) {
                continue;
            }
            columns.push(Column {
                name: format!("{name}_mv"),
                data_type: *data_type,
                multi_value: true,
                storage: MULTI_ROTATION[(round + i) % MULTI_ROTATION.len()],
                pool: pool(*data_type, 12, 0, &mut random),
                nulls_percent: 8,
            });
        }
        // A schema lists dimensions, then metrics, then times: `SELECT *` gives them in that order.
        columns.sort_by_key(is_metric);
        Self::draw("t", columns, round, rows, &mut random)
    }

    /// The table that the main one is joined with: `rows` rows whose `u_int` and `u_string` occur in `main`.
    pub fn joined(seed: u64, round: usize, rows: usize, main: &Table) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x75);
        let borrowed = |name: &str, from: &str, storage, multi_value| {
            let source = main.column(from);
            let mut pool = source.pool.clone();
            pool.truncate(40);
            Column {
                name: name.to_owned(),
                data_type: source.data_type,
                multi_value,
                storage,
                pool,
                nulls_percent: 5,
            }
        };
        let columns = vec![
            borrowed("u_int", "int_0", Storage::Inverted, false),
            borrowed("u_string", "string_0", Storage::Dictionary, false),
            borrowed("u_long", "long_1", Storage::Raw, false),
            borrowed("u_weight", "double_0", Storage::Raw, false),
            borrowed("u_label", "string_1", Storage::Bloom, false),
            borrowed("u_tags", "string_mv", Storage::Inverted, true),
        ];
        Self::draw("u", columns, round + 1, rows, &mut random)
    }

    fn draw(
        name: &'static str,
        mut columns: Vec<Column>,
        round: usize,
        rows: usize,
        random: &mut StdRng,
    ) -> Self {
        let time = [
            TimeColumn::EpochMillis,
            TimeColumn::EpochDays,
            TimeColumn::Timestamp,
            TimeColumn::DayText,
        ][round % 4];
        let start = FIRST_DAY * DAY_MS;
        let boundary = start
            + 6 * DAY_MS
            + if time.is_fine() {
                5 * 3_600_000 + 17
            } else {
                0
            };
        // Every other round has a hole: a covered range, a day that only realtime holds, and the rest.
        let covered = if round.is_multiple_of(2) {
            vec![(start, boundary)]
        } else {
            vec![(start, start + 3 * DAY_MS), (start + 4 * DAY_MS, boundary)]
        };
        let random_times = |count: usize, random: &mut StdRng| -> Vec<i64> {
            (0..count)
                .map(|_| start + random.random_range(0..DAYS * DAY_MS))
                .collect()
        };
        let is_covered = |ms: i64| covered.iter().any(|(from, to)| (*from..*to).contains(&ms));
        // Rows right at the edges show on which side an edge falls.
        let mut times = random_times(rows, random);
        if time.is_fine() && rows > 50 {
            for edge in covered.iter().flat_map(|(from, to)| [*from, *to]) {
                times.extend([edge, edge - 1].into_iter().filter(|ms| *ms >= start));
            }
        }
        let (inside, outside): (Vec<i64>, Vec<i64>) = times.iter().partition(|ms| is_covered(**ms));
        let extra = random_times(rows, random);
        let hidden_offline: Vec<i64> = extra
            .iter()
            .copied()
            .filter(|ms| !is_covered(*ms))
            .take(rows / 6)
            .collect();
        let hidden_realtime: Vec<i64> = extra
            .iter()
            .copied()
            .filter(|ms| is_covered(*ms))
            .take(rows / 6)
            .collect();

        columns.insert(
            0,
            Column {
                name: format!("{name}_id"),
                data_type: DataType::Long,
                multi_value: false,
                storage: Storage::Raw,
                pool: (0..rows as i64).map(Value::Long).collect(),
                nulls_percent: 0,
            },
        );
        columns.push(Column {
            name: if name == "t" {
                TIME_COLUMN.to_owned()
            } else {
                format!("{name}_{TIME_COLUMN}")
            },
            data_type: time.data_type(),
            multi_value: false,
            storage: [Storage::Dictionary, Storage::Range, Storage::Raw][round % 3],
            pool: times.iter().step_by(7).map(|ms| time.value(*ms)).collect(),
            nulls_percent: 0,
        });
        let mut next_id = 0;
        let mut batch = |times: &[i64]| {
            let batch = rows_at(&columns, time, times, next_id, random);
            next_id += times.len() as i64;
            batch
        };
        let (inside, outside) = (batch(&inside), batch(&outside));
        let (hidden_offline, hidden_realtime) = (batch(&hidden_offline), batch(&hidden_realtime));
        Self {
            name,
            columns,
            time,
            covered,
            inside,
            outside,
            hidden_offline,
            hidden_realtime,
        }
    }

    /// The column of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn column(&self, name: &str) -> &Column {
        self.columns
            .iter()
            .find(|c| c.name == name)
            .unwrap_or_else(|| panic!("no column {name}"))
    }

    /// The name of the time column.
    pub fn time_column(&self) -> &str {
        &self.columns.last().expect("tables have columns").name
    }

    /// The Arrow schema of the rows.
    pub fn schema(&self) -> SchemaRef {
        self.inside.schema()
    }

    /// All rows that a query on the table's name must see.
    pub fn visible(&self) -> RecordBatch {
        self.together(&[&self.inside, &self.outside])
    }

    /// These batches as one.
    pub fn together(&self, batches: &[&RecordBatch]) -> RecordBatch {
        concat_batches(&self.schema(), batches.iter().copied()).expect("batches of one schema")
    }
}

/// Whether the schema calls the column a metric.
pub fn is_metric(column: &Column) -> bool {
    column.name == "double_1"
}

fn can_sort(data_type: DataType) -> bool {
    !matches!(data_type, DataType::Json | DataType::Bytes)
}

fn rows_at(
    columns: &[Column],
    time: TimeColumn,
    times: &[i64],
    first_id: i64,
    random: &mut StdRng,
) -> RecordBatch {
    let arrow = ArrowSchema::new(
        columns
            .iter()
            .map(|c| {
                let data_type = if c.multi_value {
                    let element =
                        arrow::datatypes::Field::new_list_field(c.data_type.arrow(), true);
                    arrow::datatypes::DataType::List(Arc::new(element))
                } else {
                    c.data_type.arrow()
                };
                arrow::datatypes::Field::new(&c.name, data_type, true)
            })
            .collect::<Vec<_>>(),
    );
    let arrays = columns
        .iter()
        .map(|column| {
            let values: Vec<Value> = times
                .iter()
                .enumerate()
                .map(|(row, ms)| {
                    if column.name.ends_with("_id") {
                        Value::Long(first_id + row as i64)
                    } else if column.name.ends_with(TIME_COLUMN) {
                        time.value(*ms)
                    } else if random.random_range(0..100) < column.nulls_percent {
                        Value::Null
                    } else if column.multi_value {
                        let length = [0, 1, 1, 2, 3, 5][random.random_range(0..6)];
                        Value::List((0..length).map(|_| pick(&column.pool, random)).collect())
                    } else {
                        pick(&column.pool, random)
                    }
                })
                .collect();
            array(column.data_type, column.multi_value, &values)
        })
        .collect();
    RecordBatch::try_new(Arc::new(arrow), arrays).expect("arrays of the schema")
}

fn pick(pool: &[Value], random: &mut StdRng) -> Value {
    // Skewed, so that groups differ in size: the smaller of two draws.
    let i = random
        .random_range(0..pool.len())
        .min(random.random_range(0..pool.len()));
    pool[i].clone()
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

/// `count` distinct values at most; `copy` 0 draws from a small domain, 1 from a wide one.
fn pool(data_type: DataType, count: usize, copy: usize, random: &mut StdRng) -> Vec<Value> {
    let wide = copy == 1;
    let mut values: Vec<Value> = (0..count.max(2))
        .map(|i| match data_type {
            DataType::Int if wide => Value::Int(random.random_range(-100_000..100_000)),
            DataType::Int => Value::Int(random.random_range(-4..12)),
            DataType::Long if wide => {
                Value::Long(random.random_range(-1_000_000_000_000..1_000_000_000_000))
            }
            DataType::Long => Value::Long(random.random_range(-2..9) * 1_000_000_007),
            // Eighths and sixty-fourths: sums of them are exact whatever the order.
            DataType::Float if wide => {
                Value::Float(random.random_range(-80_000..80_000) as f32 / 8.0)
            }
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
            DataType::Boolean => Value::Boolean(i % 2 == 0),
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
                if i % 19 == 0 {
                    Value::String(format!("{}{word}{number}", "long-".repeat(20)))
                } else {
                    Value::String(format!("{word}{number}"))
                }
            }
            DataType::String => {
                Value::String(WORDS[random.random_range(0..WORDS.len())].to_owned())
            }
            DataType::Json => Value::String(format!(
                "{{\"a\":{},\"b\":\"{}\"}}",
                random.random_range(0..if wide { 100_000 } else { 5 }),
                WORDS[random.random_range(0..4)]
            )),
            DataType::Bytes => {
                let length = random.random_range(0..if wide { 9 } else { 3 });
                Value::Bytes((0..length).map(|_| random.random()).collect())
            }
        })
        .collect();
    let mut seen = Vec::new();
    values.retain(|v| {
        let new = !seen.contains(v);
        if new {
            seen.push(v.clone());
        }
        new
    });
    values
}
