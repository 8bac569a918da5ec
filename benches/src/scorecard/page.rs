//! What one page asks for one carrier, and the same counted plainly.

use super::events::{DAY_MS, Event, carrier_uuid};
use crate::rows::Rows;
use std::collections::{BTreeMap, BTreeSet};

/// Questions of a page.
pub const QUESTIONS: [&str; 9] = [
    "on-time pick-up",
    "on-time drop-off",
    "tracking",
    "late cancellations",
    "app usage",
    "facility waiting",
    "trend",
    "marketplace",
    "drivers",
];
/// Milliseconds before the appointment within which a cancellation is late.
const LATE_MS: i64 = 3_600_000;

/// The page's statements, in the order of [`QUESTIONS`]: milestones of a carrier from `from_ms` (inclusive) to `to_ms`.
pub fn statements(table: &str, carrier: u64, from_ms: i64, to_ms: i64) -> [String; 9] {
    let whose = format!(
        "FROM {table} WHERE carrier_uuid = '{}' AND event_ms >= {from_ms} AND event_ms < {to_ms}",
        carrier_uuid(carrier)
    );
    let on_time = "count(*), sum(CASE WHEN actual_ms <= appointment_ms THEN 1 ELSE 0 END)";
    [
        format!("SELECT {on_time} {whose} AND event_name = 'ARRIVED' AND stop_type = 'PICKUP'"),
        format!("SELECT {on_time} {whose} AND event_name = 'ARRIVED' AND stop_type = 'DROPOFF'"),
        format!(
            "SELECT tracking, count(*) {whose} AND event_name IN ('ARRIVED', 'DEPARTED') GROUP BY tracking"
        ),
        format!(
            "SELECT count(*), count(DISTINCT booking_uuid) {whose} AND event_name = 'CANCELLED' AND appointment_ms - actual_ms < {LATE_MS}"
        ),
        format!(
            "SELECT booking_channel, count(DISTINCT booking_uuid) {whose} AND event_name = 'BOOKED' GROUP BY booking_channel"
        ),
        format!(
            "SELECT stop_type, avg(wait_s), max(wait_s) {whose} AND event_name = 'DEPARTED' GROUP BY stop_type"
        ),
        format!(
            "SELECT event_day, {on_time} {whose} AND event_name = 'ARRIVED' GROUP BY event_day ORDER BY event_day"
        ),
        format!(
            "SELECT marketplace_type, count(DISTINCT load_uuid) {whose} GROUP BY marketplace_type"
        ),
        format!(
            "SELECT driver_uuid, count(*), avg(wait_s) {whose} AND event_name = 'DEPARTED' GROUP BY driver_uuid ORDER BY count(*) DESC, driver_uuid LIMIT 10"
        ),
    ]
}

/// What the statements must answer when these are all milestones.
pub fn expected(events: &[Event], carrier: u64, from_ms: i64, to_ms: i64) -> [Rows; 9] {
    let of_carrier: Vec<&Event> = events
        .iter()
        .filter(|e| e.carrier == carrier && (from_ms..to_ms).contains(&e.actual_ms))
        .collect();
    let named = |name: &str| -> Vec<&Event> {
        let events = of_carrier.iter().copied();
        events.filter(|e| e.name == name).collect()
    };
    let (arrived, departed) = (named("ARRIVED"), named("DEPARTED"));
    let at = |stop: &str| -> Rows {
        let at_stop: Vec<&Event> = arrived.iter().copied().filter(|e| e.stop == stop).collect();
        vec![on_time(&at_stop)]
    };
    let late: Vec<&Event> = named("CANCELLED")
        .into_iter()
        .filter(|e| e.appointment_ms - e.actual_ms < LATE_MS)
        .collect();
    let jobs = |events: &[&Event]| events.iter().map(|e| e.job).collect::<BTreeSet<_>>().len();
    let distinct = |events: &[&Event], key: fn(&Event) -> &'static str| -> Rows {
        let groups = groups(events, |e| key(e).to_owned());
        let row = |(key, events): (String, Vec<&Event>)| vec![key, jobs(&events).to_string()];
        groups.into_iter().map(row).collect()
    };
    let mean = |events: &[&Event]| {
        let sum: i64 = events.iter().map(|e| i64::from(e.wait_s)).sum();
        (sum as f64 / events.len() as f64).to_string()
    };
    let visits: Vec<&Event> = arrived.iter().chain(&departed).copied().collect();
    let tracking = groups(&visits, |e| e.tracking.to_owned())
        .into_iter()
        .map(|(key, events)| vec![key, events.len().to_string()]);
    let waiting = groups(&departed, |e| e.stop.to_owned())
        .into_iter()
        .map(|(key, events)| {
            let most = events.iter().map(|e| e.wait_s).max().unwrap_or(0);
            vec![key, mean(&events), most.to_string()]
        });
    let trend = groups(&arrived, |e| format!("{}", e.actual_ms / DAY_MS))
        .into_iter()
        .map(|(day, events)| [vec![day], on_time(&events)].concat());
    let mut drivers: Vec<(usize, Vec<String>)> = groups(&departed, Event::driver_uuid)
        .into_iter()
        .map(|(key, events)| {
            let row = vec![key, events.len().to_string(), mean(&events)];
            (events.len(), row)
        })
        .collect();
    drivers.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    [
        at("PICKUP"),
        at("DROPOFF"),
        tracking.collect(),
        vec![vec![late.len().to_string(), jobs(&late).to_string()]],
        distinct(&named("BOOKED"), |e| e.channel),
        waiting.collect(),
        trend.collect(),
        distinct(&of_carrier, |e| e.marketplace),
        drivers.into_iter().take(10).map(|(_, row)| row).collect(),
    ]
}

fn groups<'a>(
    events: &[&'a Event],
    key: impl Fn(&Event) -> String,
) -> BTreeMap<String, Vec<&'a Event>> {
    let mut groups: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in events {
        groups.entry(key(event)).or_default().push(event);
    }
    groups
}

/// How many there are, and how many of them in time: NULL of none, as a sum is.
fn on_time(events: &[&Event]) -> Vec<String> {
    let count = events.iter().filter(|e| e.is_on_time()).count();
    let sum = match events.is_empty() {
        true => "NULL".to_owned(),
        false => count.to_string(),
    };
    vec![events.len().to_string(), sum]
}
