//! Rows of twenty columns of mixed types and cardinalities, for measuring loads.

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Name, type and number of distinct values; 0: as many as rows.
const COLUMNS: [(&str, DataType, u64); 20] = [
    ("event_ms", DataType::Int64, 0),
    ("trip", DataType::Int64, 0),
    ("rider", DataType::Int64, 500_000),
    ("driver", DataType::Int32, 60_000),
    ("city", DataType::Utf8, 300),
    ("country", DataType::Utf8, 40),
    ("product", DataType::Utf8, 12),
    ("status", DataType::Utf8, 5),
    ("platform", DataType::Utf8, 3),
    ("version", DataType::Utf8, 150),
    ("hexagon", DataType::Utf8, 20_000),
    ("surge_pct", DataType::Int32, 30),
    ("eta_s", DataType::Int32, 1_800),
    ("distance_m", DataType::Int32, 40_000),
    ("duration_s", DataType::Int32, 7_200),
    ("fare", DataType::Float64, 30_000),
    ("tip", DataType::Float64, 900),
    ("latitude", DataType::Float64, 0),
    ("longitude", DataType::Float64, 0),
    ("session", DataType::Utf8, 0),
];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(
        COLUMNS
            .iter()
            .map(|(name, data_type, _)| Field::new(*name, data_type.clone(), false))
            .collect::<Vec<_>>(),
    ))
}

/// The schema document of the table `wide`.
pub fn schema_json() -> String {
    let dimensions: Vec<_> = COLUMNS
        .iter()
        .skip(1)
        .map(|(name, data_type, _)| {
            let pinot = match data_type {
                DataType::Int32 => "INT",
                DataType::Int64 => "LONG",
                DataType::Float64 => "DOUBLE",
                _ => "STRING",
            };
            json!({"name": name, "dataType": pinot})
        })
        .collect();
    json!({
        "schemaName": "wide",
        "dimensionFieldSpecs": dimensions,
        "dateTimeFieldSpecs": [{
            "name": "event_ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"
        }],
    })
    .to_string()
}

/// The offline table config of `wide`.
pub fn table_json() -> String {
    json!({
        "tableName": "wide",
        "tableType": "OFFLINE",
        "segmentsConfig": {"timeColumnName": "event_ms", "replication": "1", "segmentPushType": "APPEND"},
        "tableIndexConfig": {
            "invertedIndexColumns": ["city", "product", "status", "driver"],
            "noDictionaryColumns": ["event_ms", "trip", "latitude", "longitude", "session"],
        },
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

fn batch(
    random: &mut StdRng,
    first: i64,
    rows: usize,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let arrays = COLUMNS
        .iter()
        .map(|(name, data_type, distinct)| -> ArrayRef {
            let mut draw = |row: usize| match distinct {
                0 if *name == "event_ms" => 1_700_000_000_000 + (first + row as i64) * 25,
                0 if *name == "trip" => first + row as i64,
                0 => random.random_range(0..i64::MAX),
                n => random.random_range(0..*n as i64),
            };
            match data_type {
                DataType::Int32 => Arc::new(Int32Array::from_iter_values(
                    (0..rows).map(|row| draw(row) as i32),
                )),
                DataType::Int64 => Arc::new(Int64Array::from_iter_values((0..rows).map(draw))),
                DataType::Float64 => Arc::new(Float64Array::from_iter_values(
                    (0..rows).map(|row| draw(row) as f64 / 100.0),
                )),
                _ => Arc::new(StringArray::from_iter_values(
                    (0..rows).map(|row| format!("{name}-{:x}", draw(row))),
                )),
            }
        })
        .collect();
    RecordBatch::try_new(schema(), arrays)
}

/// Writes `rows` rows to the Parquet file `path`.
pub fn generate(path: &Path, rows: u64, seed: u64) -> io::Result<()> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(200_000))
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema(), Some(properties))?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = 0;
    while done < rows {
        let next = (rows - done).min(50_000);
        let batch = batch(&mut random, done as i64, next as usize).map_err(io::Error::other)?;
        writer.write(&batch)?;
        done += next;
    }
    writer.close()?;
    Ok(())
}
