//! Tables drawn from a seed: a column of every type, single- and multi-value, under rotating storage,
//! with rows that a hybrid table shows and rows that its coverage hides.

use crate::arrays::array;
use crate::combination::Storage;
use crate::pool::{Domain, order, pool};
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
    /// What kind of values it holds.
    pub domain: Domain,
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
    /// The main table of a round: `rows` visible rows in about 60 columns. Eight rounds take every type through every
    /// storage, with nulls and without.
    pub fn main(seed: u64, round: usize, rows: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut columns = Vec::new();
        let rotated = |at: usize| Storage::UNSORTED[at % Storage::UNSORTED.len()];
        let turn = round / Storage::UNSORTED.len();
        for (i, (name, data_type)) in TYPES.iter().enumerate() {
            for (copy, domain, values) in [
                (0, Domain::Small, 6),
                (1, Domain::Wide, rows / 3),
                (2, Domain::Edge, 0),
            ] {
                columns.push(Column {
                    name: format!("{name}_{copy}"),
                    data_type: *data_type,
                    multi_value: false,
                    storage: rotated(round * 3 + i + copy),
                    domain,
                    pool: pool(*data_type, domain, values, &mut random),
                    nulls_percent: if (turn + copy).is_multiple_of(2) {
                        9
                    } else {
                        0
                    },
                });
            }
            if *data_type == DataType::Json {
                continue;
            }
            for (copy, suffix, domain) in [(0, "mv", Domain::Small), (1, "mv2", Domain::Edge)] {
                columns.push(Column {
                    name: format!("{name}_{suffix}"),
                    data_type: *data_type,
                    multi_value: true,
                    storage: rotated(round * 3 + i + copy * 4),
                    domain,
                    pool: pool(*data_type, domain, 12, &mut random),
                    nulls_percent: if (turn + copy).is_multiple_of(2) {
                        8
                    } else {
                        0
                    },
                });
            }
        }
        columns.extend(sorted_columns(round, &mut random));
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
                domain: source.domain,
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
        if rows > 50 {
            // Before the epoch, long before coverage and long after the present.
            times.extend([-1, -400 * DAY_MS, start - 1, 4_102_444_800_000]);
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
                domain: Domain::Wide,
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
            domain: Domain::Wide,
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

/// The column that the round's segments are sorted by comes first, and is of another type in every round. The others are
/// functions of it that ascend with it, so that sorting by the one sorts all.
fn sorted_columns(round: usize, random: &mut StdRng) -> Vec<Column> {
    let leader = round % TYPES.len();
    // Nulls come first in a segment and leave what follows them in no order: then there is only the leader.
    let leader_has_nulls = (round / TYPES.len()) % 2 == 1;
    // Nor can others follow two values.
    let alone = leader_has_nulls || TYPES[leader].1 == DataType::Boolean;
    let mut order_of_types: Vec<usize> = (0..TYPES.len()).collect();
    order_of_types.rotate_left(leader);
    if alone {
        order_of_types.truncate(1);
    }
    order_of_types
        .into_iter()
        .map(|i| {
            let (name, data_type) = TYPES[i];
            let mut pool = pool(data_type, Domain::Wide, 40, random);
            pool.sort_by(order);
            let has_nulls = if i == leader {
                leader_has_nulls
            } else {
                (round / 2 + i).is_multiple_of(2)
            };
            Column {
                name: format!("{name}_s"),
                data_type,
                multi_value: false,
                storage: Storage::SORTED[(round + i) % 2],
                domain: Domain::Wide,
                pool,
                nulls_percent: if has_nulls { 7 } else { 0 },
            }
        })
        .collect()
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
    let levels = columns
        .iter()
        .find(|c| c.storage.is_sorted())
        .map_or(1, |leader| leader.pool.len());
    let level_of_row: Vec<usize> = times
        .iter()
        .map(|_| random.random_range(0..levels))
        .collect();
    let arrays = columns
        .iter()
        .map(|column| {
            let values: Vec<Value> = times
                .iter()
                .zip(&level_of_row)
                .enumerate()
                .map(|(row, (ms, level))| {
                    if column.name.ends_with("_id") {
                        Value::Long(first_id + row as i64)
                    } else if column.name.ends_with(TIME_COLUMN) {
                        time.value(*ms)
                    } else if random.random_range(0..100) < column.nulls_percent {
                        Value::Null
                    } else if column.storage.is_sorted() {
                        column.pool[level * column.pool.len() / levels].clone()
                    } else if column.multi_value {
                        list(column, random)
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

/// A list of elements, of which some are null where rows may be and values are odd anyway.
fn list(column: &Column, random: &mut StdRng) -> Value {
    let length = [0, 1, 1, 2, 3, 5][random.random_range(0..6)];
    let null_elements = column.domain == Domain::Edge && column.nulls_percent > 0;
    Value::List(
        (0..length)
            .map(|_| {
                if null_elements && random.random_range(0..10) == 0 {
                    Value::Null
                } else {
                    pick(&column.pool, random)
                }
            })
            .collect(),
    )
}

fn pick(pool: &[Value], random: &mut StdRng) -> Value {
    // Skewed, so that groups differ in size: the smaller of two draws.
    let i = random
        .random_range(0..pool.len())
        .min(random.random_range(0..pool.len()));
    pool[i].clone()
}
