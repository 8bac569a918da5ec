//! Milestones of freight jobs: booked, assigned, arrived at a stop, departed from it, delivered, or cancelled.
//!
//! Days follow from the seed one by one, so that any of them can be made again. A few of the carriers have most of the
//! jobs: the share of the carrier at rank `r` falls as `1 / r`.

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Carriers.
pub const CARRIERS: u64 = 100_000;
/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;
/// The first day, in days since 1970: 2026-01-01.
pub const FIRST_DAY: i64 = 20_454;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const MARKETPLACES: [&str; 4] = ["SPOT", "CONTRACT", "DEDICATED", "BACKHAUL"];
const CHANNELS: [&str; 4] = ["APP", "WEB", "API", "PHONE"];
const TRACKING: [&str; 4] = ["APP", "ELD", "CALL", "NONE"];

/// One milestone.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub name: &'static str,
    /// Where: a pick-up, a drop-off, or nowhere.
    pub stop: &'static str,
    /// Who.
    pub carrier: u64,
    /// The carrier's driver.
    pub driver: u64,
    /// The job, which is also its load and its booking.
    pub job: u64,
    /// How the load was found.
    pub marketplace: &'static str,
    /// How it was booked.
    pub channel: &'static str,
    /// How the position was known.
    pub tracking: &'static str,
    /// When it was agreed to happen, in milliseconds since 1970.
    pub appointment_ms: i64,
    /// When it happened.
    pub actual_ms: i64,
    /// Seconds that the driver waited at the stop; only of departures.
    pub wait_s: i32,
}

impl Event {
    /// The day, in days since 1970.
    pub fn day(&self) -> i64 {
        self.actual_ms.div_euclid(DAY_MS)
    }

    /// Whether it happened in time.
    pub fn is_on_time(&self) -> bool {
        self.actual_ms <= self.appointment_ms
    }

    /// The message of a stream that tells it.
    pub fn message(&self) -> Vec<u8> {
        json!({
            "event_name": self.name,
            "stop_type": self.stop,
            "carrier_uuid": carrier_uuid(self.carrier),
            "driver_uuid": self.driver_uuid(),
            "job_uuid": uuid(3, self.job),
            "load_uuid": uuid(4, self.job),
            "booking_uuid": uuid(5, self.job),
            "stop_uuid": uuid(6, self.stop_number()),
            "marketplace_type": self.marketplace,
            "booking_channel": self.channel,
            "tracking": self.tracking,
            "attributes": self.attributes(),
            "event_ms": self.actual_ms,
            "event_day": self.day(),
            "appointment_ms": self.appointment_ms,
            "actual_ms": self.actual_ms,
            "wait_s": self.wait_s,
        })
        .to_string()
        .into_bytes()
    }

    /// The name of the driver.
    pub fn driver_uuid(&self) -> String {
        uuid(2, self.driver)
    }

    fn stop_number(&self) -> u64 {
        self.job * 2 + u64::from(self.stop == "DROPOFF")
    }

    fn attributes(&self) -> String {
        format!(
            r#"{{"version":"7.{}","weight_kg":{}}}"#,
            self.job % 40,
            1_000 + self.job % 20_000
        )
    }
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn uuid(kind: u64, number: u64) -> String {
    let high = mix(kind << 56 ^ number);
    let low = mix(high);
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

/// The name of a carrier.
pub fn carrier_uuid(carrier: u64) -> String {
    uuid(1, carrier)
}

/// A carrier, by its share of the jobs.
pub fn draw_carrier(random: &mut StdRng) -> u64 {
    // The ranks' logarithms are spread evenly where shares fall as 1 / rank.
    let rank = (random.random::<f64>() * (CARRIERS as f64).ln()).exp();
    (rank as u64).clamp(1, CARRIERS)
}

fn pick<'a>(random: &mut StdRng, of: &[&'a str; 4]) -> &'a str {
    // The first is the most frequent.
    let drawn = random.random_range(0..8usize);
    of.get(drawn.saturating_sub(4)).copied().unwrap_or(of[0])
}

/// Adds the milestones of a job that begins and ends on `day`.
fn add_job(random: &mut StdRng, day: i64, job: u64, events: &mut Vec<Event>) {
    let carrier = draw_carrier(random);
    let booked = day * DAY_MS + random.random_range(0..8 * HOUR_MS);
    let pickup = booked + 2 * HOUR_MS;
    let dropoff = pickup + random.random_range(3 * HOUR_MS..8 * HOUR_MS);
    let base = Event {
        name: "BOOKED",
        stop: "",
        carrier,
        driver: carrier * 32 + random.random_range(0..32),
        job,
        marketplace: pick(random, &MARKETPLACES),
        channel: pick(random, &CHANNELS),
        tracking: "",
        appointment_ms: pickup,
        actual_ms: booked,
        wait_s: 0,
    };
    events.push(base.clone());
    if random.random_range(0..10) == 0 {
        events.push(Event {
            name: "CANCELLED",
            actual_ms: booked + random.random_range(0..2 * HOUR_MS),
            ..base
        });
        return;
    }
    events.push(Event {
        name: "ASSIGNED",
        actual_ms: booked + random.random_range(MINUTE_MS..30 * MINUTE_MS),
        ..base.clone()
    });
    let mut last = booked;
    for (stop, appointment_ms) in [("PICKUP", pickup), ("DROPOFF", dropoff)] {
        let late = random.random_range(-60..45) * MINUTE_MS;
        let wait_s = random.random_range(300..7_200);
        let arrived = Event {
            name: "ARRIVED",
            stop,
            tracking: pick(random, &TRACKING),
            appointment_ms,
            actual_ms: appointment_ms + late,
            ..base.clone()
        };
        let departed = Event {
            name: "DEPARTED",
            actual_ms: arrived.actual_ms + i64::from(wait_s) * 1_000,
            wait_s,
            ..arrived.clone()
        };
        last = departed.actual_ms;
        events.extend([arrived, departed]);
    }
    events.push(Event {
        name: "DELIVERED",
        appointment_ms: dropoff,
        actual_ms: last,
        ..base
    });
}

/// The milestones of the `number`th day, about `rows` of them, by time.
pub fn day(seed: u64, number: u64, rows: u64) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(mix(seed) ^ number);
    let mut events = Vec::new();
    let mut job = number << 32;
    while (events.len() as u64) < rows {
        add_job(&mut random, FIRST_DAY + number as i64, job, &mut events);
        job += 1;
    }
    events.sort_by_key(|event| event.actual_ms);
    events
}

fn batch(events: &[Event]) -> Result<RecordBatch, ArrowError> {
    let text = |of: &dyn Fn(&Event) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(events.iter().map(of)))
    };
    let long = |of: &dyn Fn(&Event) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(events.iter().map(of)))
    };
    let int = |of: &dyn Fn(&Event) -> i32| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values(events.iter().map(of)))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_name", text(&|e| e.name.to_owned())),
        ("stop_type", text(&|e| e.stop.to_owned())),
        ("carrier_uuid", text(&|e| carrier_uuid(e.carrier))),
        ("driver_uuid", text(&Event::driver_uuid)),
        ("job_uuid", text(&|e| uuid(3, e.job))),
        ("load_uuid", text(&|e| uuid(4, e.job))),
        ("booking_uuid", text(&|e| uuid(5, e.job))),
        ("stop_uuid", text(&|e| uuid(6, e.stop_number()))),
        ("marketplace_type", text(&|e| e.marketplace.to_owned())),
        ("booking_channel", text(&|e| e.channel.to_owned())),
        ("tracking", text(&|e| e.tracking.to_owned())),
        ("attributes", text(&Event::attributes)),
        ("event_ms", long(&|e| e.actual_ms)),
        ("event_day", int(&|e| e.day() as i32)),
        ("appointment_ms", long(&|e| e.appointment_ms)),
        ("actual_ms", long(&|e| e.actual_ms)),
        ("wait_s", int(&|e| e.wait_s)),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), false))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

/// Writes milestones to the Parquet file `path`.
pub fn write(path: &Path, events: &[Event]) -> io::Result<()> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let schema = batch(&[]).map_err(io::Error::other)?.schema();
    let mut writer = ArrowWriter::try_new(File::create(path)?, schema, Some(properties))?;
    for part in events.chunks(50_000) {
        writer.write(&batch(part).map_err(io::Error::other)?)?;
    }
    writer.close()?;
    Ok(())
}

/// Columns of text; the others are numbers.
const TEXT: [&str; 11] = [
    "event_name",
    "stop_type",
    "carrier_uuid",
    "driver_uuid",
    "job_uuid",
    "load_uuid",
    "booking_uuid",
    "stop_uuid",
    "marketplace_type",
    "booking_channel",
    "tracking",
];

/// The schema document of the table `name`.
pub fn schema_json(name: &str) -> String {
    let mut dimensions: Vec<_> = TEXT
        .iter()
        .map(|column| json!({"name": column, "dataType": "STRING"}))
        .collect();
    dimensions.push(json!({"name": "attributes", "dataType": "JSON"}));
    let time = |column: &str| json!({"name": column, "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:MILLISECONDS"});
    json!({
        "schemaName": name,
        "dimensionFieldSpecs": dimensions,
        "metricFieldSpecs": [{"name": "wait_s", "dataType": "INT"}],
        "dateTimeFieldSpecs": [
            time("event_ms"),
            time("appointment_ms"),
            time("actual_ms"),
            {"name": "event_day", "dataType": "INT", "format": "1:DAYS:EPOCH", "granularity": "1:DAYS"},
        ],
    })
    .to_string()
}

fn config_json(name: &str, half: &str, indexing: Value, ingestion: Value) -> String {
    json!({
        "tableName": name,
        "tableType": half,
        "segmentsConfig": {"timeColumnName": "event_ms", "replication": "1", "segmentPushType": "APPEND"},
        "tableIndexConfig": indexing,
        "ingestionConfig": ingestion,
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

const RAW: [&str; 8] = [
    "job_uuid",
    "load_uuid",
    "booking_uuid",
    "stop_uuid",
    "attributes",
    "event_ms",
    "appointment_ms",
    "actual_ms",
];

/// The config of the offline half: sorted by carrier.
pub fn offline_json(name: &str) -> String {
    let indexing = json!({"sortedColumn": ["carrier_uuid"], "noDictionaryColumns": RAW});
    config_json(name, "OFFLINE", indexing, json!({}))
}

/// The config of the realtime half: fed from the embedded log, carriers by an inverted index.
pub fn realtime_json(name: &str, partitions: u32, flush_rows: u64) -> String {
    let stream = json!({
        "streamType": "log",
        "stream.log.topic.name": name,
        "stream.log.partitions": partitions.to_string(),
        "stream.log.decoder.class.name": "org.apache.pinot.plugin.inputformat.json.JSONMessageDecoder",
        "stream.log.consumer.prop.auto.offset.reset": "smallest",
        "realtime.segment.flush.threshold.rows": flush_rows.to_string(),
        "realtime.segment.flush.threshold.time": "24h",
    });
    let indexing = json!({
        "sortedColumn": ["carrier_uuid"],
        "invertedIndexColumns": ["carrier_uuid"],
        "noDictionaryColumns": RAW,
    });
    let ingestion = json!({"streamIngestionConfig": {"streamConfigMaps": [stream]}});
    config_json(name, "REALTIME", indexing, ingestion)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_can_be_made_again_and_holds_its_own_milestones_only() {
        let number = 7;
        let events = day(3, number, 5_000);
        assert!((5_000..5_010).contains(&events.len()));
        assert!(events.is_sorted_by_key(|e| e.actual_ms));
        assert!(events.iter().all(|e| e.day() == FIRST_DAY + number as i64));
        let messages = |events: &[Event]| events.iter().map(Event::message).collect::<Vec<_>>();
        assert_eq!(messages(&day(3, number, 5_000)), messages(&events));
        assert_ne!(messages(&day(4, number, 5_000)), messages(&events));
        let of_first = events.iter().filter(|e| e.carrier == 1).count();
        assert!(of_first > 100, "the first carrier has {of_first} of 5,000");
    }
}
