//! The Star Schema Benchmark's fact table, flat: every line order with its customer, supplier, part and date.
//!
//! Rows come day by day, so that a file is sorted by order date; each day is drawn from the seed and its own
//! number alone. Cardinalities follow the benchmark: at scale 1, 30,000 customers, 2,000 suppliers, 200,000
//! parts and about 6 million rows in 2,406 days.

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Days from 1992-01-01 to 1998-08-02, both included.
const DAYS: i32 = 2406;
const ORDERS_PER_SCALE: f64 = 1_500_000.0;
/// Rows at scale 1, about: an order has four lines on average.
pub const ROWS_PER_SCALE: f64 = 4.0 * ORDERS_PER_SCALE;

const NATIONS: [(&str, &str); 25] = [
    ("ALGERIA", "AFRICA"),
    ("ARGENTINA", "AMERICA"),
    ("BRAZIL", "AMERICA"),
    ("CANADA", "AMERICA"),
    ("EGYPT", "MIDDLE EAST"),
    ("ETHIOPIA", "AFRICA"),
    ("FRANCE", "EUROPE"),
    ("GERMANY", "EUROPE"),
    ("INDIA", "ASIA"),
    ("INDONESIA", "ASIA"),
    ("IRAN", "MIDDLE EAST"),
    ("IRAQ", "MIDDLE EAST"),
    ("JAPAN", "ASIA"),
    ("JORDAN", "MIDDLE EAST"),
    ("KENYA", "AFRICA"),
    ("MOROCCO", "AFRICA"),
    ("MOZAMBIQUE", "AFRICA"),
    ("PERU", "AMERICA"),
    ("CHINA", "ASIA"),
    ("ROMANIA", "EUROPE"),
    ("SAUDI ARABIA", "MIDDLE EAST"),
    ("VIETNAM", "ASIA"),
    ("RUSSIA", "EUROPE"),
    ("UNITED KINGDOM", "EUROPE"),
    ("UNITED STATES", "AMERICA"),
];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const PRIORITIES: [&str; 5] = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"];
const MODES: [&str; 7] = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"];
const SEGMENTS: [&str; 5] = [
    "AUTOMOBILE",
    "BUILDING",
    "FURNITURE",
    "MACHINERY",
    "HOUSEHOLD",
];

/// Columns with whether they are text, in file order.
pub(super) const COLUMNS: [(&str, Kind); 30] = [
    ("lo_orderkey", Kind::Long),
    ("lo_linenumber", Kind::Int),
    ("lo_custkey", Kind::Int),
    ("lo_partkey", Kind::Int),
    ("lo_suppkey", Kind::Int),
    ("lo_orderdate", Kind::Int),
    ("lo_orderpriority", Kind::Text),
    ("lo_quantity", Kind::Int),
    ("lo_extendedprice", Kind::Int),
    ("lo_ordtotalprice", Kind::Int),
    ("lo_discount", Kind::Int),
    ("lo_revenue", Kind::Int),
    ("lo_supplycost", Kind::Int),
    ("lo_tax", Kind::Int),
    ("lo_shipmode", Kind::Text),
    ("c_name", Kind::Text),
    ("c_city", Kind::Text),
    ("c_nation", Kind::Text),
    ("c_region", Kind::Text),
    ("c_mktsegment", Kind::Text),
    ("s_city", Kind::Text),
    ("s_nation", Kind::Text),
    ("s_region", Kind::Text),
    ("p_mfgr", Kind::Text),
    ("p_category", Kind::Text),
    ("p_brand1", Kind::Text),
    ("d_year", Kind::Int),
    ("d_yearmonthnum", Kind::Int),
    ("d_yearmonth", Kind::Text),
    ("d_weeknuminyear", Kind::Int),
];

/// The type of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Long,
    Text,
}

/// The Arrow schema of the files.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(
        COLUMNS
            .iter()
            .map(|(name, kind)| {
                let data_type = match kind {
                    Kind::Int => DataType::Int32,
                    Kind::Long => DataType::Int64,
                    Kind::Text => DataType::Utf8,
                };
                Field::new(*name, data_type, false)
            })
            .collect::<Vec<_>>(),
    ))
}

/// Year, month (1 to 12), day and day of the year (from 1) of a day counted from 1992-01-01.
fn date(day: i32) -> (i32, i32, i32, i32) {
    let mut left = day;
    let mut year = 1992;
    let days_of = |year: i32| if year % 4 == 0 { 366 } else { 365 };
    while left >= days_of(year) {
        left -= days_of(year);
        year += 1;
    }
    let day_of_year = left + 1;
    let february = days_of(year) - 337;
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1, day_of_year)
}

/// A number that follows from `key` alone: which nation a customer is of, which brand a part.
fn attribute(seed: u64, key: u64) -> u64 {
    let mut x = seed.wrapping_add(key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn city(nation: &str, digit: u64) -> String {
    let start: String = nation.chars().take(9).collect();
    format!("{start:<9}{digit}")
}

/// How many of each entity a scale has.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    customers: u64,
    suppliers: u64,
    parts: u64,
    orders_per_day: f64,
}

impl Sizes {
    fn of(scale: f64) -> Self {
        Self {
            customers: ((30_000.0 * scale) as u64).max(100),
            suppliers: ((2_000.0 * scale) as u64).max(50),
            parts: ((200_000.0 * (1.0 + scale.max(1.0).log2())) * scale.min(1.0)).max(1000.0)
                as u64,
            orders_per_day: ORDERS_PER_SCALE * scale / f64::from(DAYS),
        }
    }
}

#[derive(Default)]
struct Columns {
    numbers: Vec<Vec<i64>>,
    texts: Vec<Vec<String>>,
}

impl Columns {
    fn new() -> Self {
        Self {
            numbers: vec![Vec::new(); COLUMNS.iter().filter(|c| c.1 != Kind::Text).count()],
            texts: vec![Vec::new(); COLUMNS.iter().filter(|c| c.1 == Kind::Text).count()],
        }
    }

    fn push(&mut self, numbers: &[i64], texts: [String; 14]) {
        for (column, value) in self.numbers.iter_mut().zip(numbers) {
            column.push(*value);
        }
        for (column, value) in self.texts.iter_mut().zip(texts) {
            column.push(value);
        }
    }

    fn rows(&self) -> usize {
        self.numbers[0].len()
    }

    fn batch(self) -> Result<RecordBatch, arrow::error::ArrowError> {
        let (mut numbers, mut texts) = (self.numbers.into_iter(), self.texts.into_iter());
        let arrays = COLUMNS
            .iter()
            .map(|(_, kind)| -> ArrayRef {
                match kind {
                    Kind::Int => Arc::new(
                        numbers
                            .next()
                            .into_iter()
                            .flatten()
                            .map(|v| v as i32)
                            .collect::<Int32Array>(),
                    ),
                    Kind::Long => Arc::new(Int64Array::from(numbers.next().unwrap_or_default())),
                    Kind::Text => Arc::new(StringArray::from(texts.next().unwrap_or_default())),
                }
            })
            .collect();
        RecordBatch::try_new(schema(), arrays)
    }
}

fn day_rows(out: &mut Columns, seed: u64, day: i32, sizes: Sizes) {
    let mut random = StdRng::seed_from_u64(attribute(seed, day as u64));
    let (year, month, day_of_month, day_of_year) = date(day);
    let first = (f64::from(day) * sizes.orders_per_day) as i64;
    let last = (f64::from(day + 1) * sizes.orders_per_day) as i64;
    let order_date = i64::from(year * 10_000 + month * 100 + day_of_month);
    let year_month = format!("{}{year}", MONTHS[(month - 1) as usize]);
    for order in first..last {
        let customer = random.random_range(1..=sizes.customers);
        let from_customer = attribute(seed ^ 1, customer);
        let (c_nation, c_region) = NATIONS[(from_customer % 25) as usize];
        let priority = PRIORITIES[random.random_range(0..5)];
        let lines = random.random_range(1..=7);
        let drawn: Vec<(u64, u64, i64, i64, i64)> = (0..lines)
            .map(|_| {
                (
                    random.random_range(1..=sizes.parts),
                    random.random_range(1..=sizes.suppliers),
                    random.random_range(1..=50),
                    random.random_range(0..=10),
                    random.random_range(0..=8),
                )
            })
            .collect();
        let price = |part: u64| (90_000 + (part / 10) % 20_001 + 100 * (part % 1000)) as i64;
        let total: i64 = drawn.iter().map(|line| price(line.0) * line.2).sum();
        for (line, (part, supplier, quantity, discount, tax)) in drawn.into_iter().enumerate() {
            let from_supplier = attribute(seed ^ 2, supplier);
            let (s_nation, s_region) = NATIONS[(from_supplier % 25) as usize];
            let from_part = attribute(seed ^ 3, part);
            let manufacturer = 1 + from_part % 5;
            let category = format!("MFGR#{manufacturer}{}", 1 + from_part / 5 % 5);
            let brand = format!("{category}{}", 1 + from_part / 25 % 40);
            let extended = price(part) * quantity;
            out.push(
                &[
                    order + 1,
                    line as i64 + 1,
                    customer as i64,
                    part as i64,
                    supplier as i64,
                    order_date,
                    quantity,
                    extended,
                    total,
                    discount,
                    extended * (100 - discount) / 100,
                    6 * price(part) / 10,
                    tax,
                    i64::from(year),
                    i64::from(year * 100 + month),
                    i64::from((day_of_year - 1) / 7 + 1),
                ],
                [
                    priority.to_owned(),
                    MODES[random.random_range(0..MODES.len())].to_owned(),
                    format!("Customer#{customer:09}"),
                    city(c_nation, from_customer / 25 % 10),
                    c_nation.to_owned(),
                    c_region.to_owned(),
                    SEGMENTS[(from_customer / 250 % 5) as usize].to_owned(),
                    city(s_nation, from_supplier / 25 % 10),
                    s_nation.to_owned(),
                    s_region.to_owned(),
                    format!("MFGR#{manufacturer}"),
                    category,
                    brand,
                    year_month.clone(),
                ],
            );
        }
    }
}

/// Writes the table of `scale` to Parquet files in `folder`, one a year, and gives the files and the rows.
pub fn generate(folder: &Path, scale: f64, seed: u64) -> io::Result<(Vec<PathBuf>, u64)> {
    std::fs::create_dir_all(folder)?;
    let sizes = Sizes::of(scale);
    let mut files = Vec::new();
    let mut rows = 0;
    let mut day = 0;
    for year in 1992..=1998 {
        let path = folder.join(format!("lineorder-{year}.parquet"));
        let partial = path.with_extension("partial");
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let mut writer = ArrowWriter::try_new(File::create(&partial)?, schema(), Some(properties))?;
        while day < DAYS && date(day).0 == year {
            let mut columns = Columns::new();
            while day < DAYS && date(day).0 == year && columns.rows() < 50_000 {
                day_rows(&mut columns, seed, day, sizes);
                day += 1;
            }
            let batch = columns.batch().map_err(io::Error::other)?;
            rows += batch.num_rows() as u64;
            writer.write(&batch)?;
        }
        writer.close()?;
        std::fs::rename(&partial, &path)?;
        files.push(path);
    }
    Ok((files, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(date(0), (1992, 1, 1, 1));
        assert_eq!(date(59), (1992, 2, 29, 60));
        assert_eq!(date(366), (1993, 1, 1, 1));
        assert_eq!(date(DAYS - 1), (1998, 8, 2, 214));
    }

    #[test]
    fn a_scale_and_a_seed_give_the_same_rows_again() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (files, rows) = generate(a.path(), 0.002, 7).unwrap();
        let (again, rows_again) = generate(b.path(), 0.002, 7).unwrap();
        assert_eq!((files.len(), rows), (7, rows_again));
        assert!((9_000..15_000).contains(&rows));
        for (one, other) in files.iter().zip(&again) {
            assert_eq!(std::fs::read(one).unwrap(), std::fs::read(other).unwrap());
        }
    }
}
