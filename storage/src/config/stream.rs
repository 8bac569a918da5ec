//! One stream's map of properties: Kafka's, or our embedded log's (T below is kafka or log). The decoder's are in
//! [`decoder`].
//!
//! ```text
//! streamType                               kafka | log
//! stream.T.topic.name, stream.T.broker.list, stream.T.partitions (of the log)
//! stream.T.consumer.prop.auto.offset.reset   smallest | largest | 2026-05-01T00:00:00Z | milliseconds | 2d (a period back)
//! stream.T.start.offsets                   (ours) 0:1500,1:0: first offsets of single partitions
//! topic.consumption.rate.limit             messages a second, of all partitions of the topic
//! stream.T.strict                          (ours) true: consumption of a partition stops at the first message that is wrong and
//!                                          names it, instead of making it a dead letter, until the config is another one
//! stream.T.archive                         (ours) true: raw messages are kept in the deep store's archive, and read from there when
//!                                          the stream does not have them any more
//! stream.T.archive.retention               (ours) 90d: how long they are kept there
//! realtime.segment.flush.threshold.rows, .segment.size, .time
//! ```

use super::document::{Node, Object};
use super::{ConfigWarning, StartOffset, StreamConfig, StreamKind, decoder, names};
use std::collections::BTreeMap;
use strandline_proto::Result;
use strandline_proto::time_format::instant;

const FLUSH_ROWS_DEFAULT: u64 = 5_000_000;
const FLUSH_AGE_MS_DEFAULT: u64 = 6 * 3_600_000;
const FLUSH_BYTES_DEFAULT: u64 = 200 << 20;
const PARTITIONS_MAX: u32 = 1_024;

pub(super) fn parse(
    node: &Node<'_>,
    table: &str,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<StreamConfig> {
    let mut map = node.object()?;
    let type_node = map.require("streamType")?;
    let (kind, prefix) = match type_node.text()?.to_ascii_lowercase().as_str() {
        "kafka" => (StreamKind::Kafka, "stream.kafka"),
        "log" => (StreamKind::Log, "stream.log"),
        other => {
            return Err(type_node.unsupported(format_args!(
                "the stream type {other}; there are kafka and log"
            )));
        }
    };
    let key = |name: &str| format!("{prefix}.{name}");
    let topic = match (map.take(&key("topic.name")), kind) {
        (Some(topic), _) => {
            let name = topic.text()?;
            if kind == StreamKind::Log {
                names::check_table(&topic, name)?;
            } else if name.is_empty() {
                return Err(topic.wrong("the topic's name is empty"));
            }
            name.to_owned()
        }
        (None, StreamKind::Log) => table.to_owned(),
        (None, StreamKind::Kafka) => {
            return Err(node.wrong("the key stream.kafka.topic.name is missing"));
        }
    };
    let partitions = match map.take(&key("partitions")) {
        Some(n) if kind == StreamKind::Log => number(&n, 1, u64::from(PARTITIONS_MAX))? as u32,
        Some(n) => {
            warnings.push(n.warning("the partitions are those of the Kafka topic"));
            1
        }
        None => 1,
    };
    let brokers = match (
        map.take(&key("broker.list")),
        map.take("bootstrap.servers"),
        kind,
    ) {
        (Some(list), _, StreamKind::Kafka) | (None, Some(list), StreamKind::Kafka) => {
            list.text()?.trim().to_owned()
        }
        (None, None, StreamKind::Kafka) => {
            return Err(node.wrong("the key stream.kafka.broker.list is missing"));
        }
        (_, _, StreamKind::Log) => String::new(),
    };
    let decoder = decoder::read(&mut map, prefix, node)?;
    let start = start(&mut map, prefix, kind)?;
    let start_offsets = match map.take(&key("start.offsets")) {
        Some(node) => start_offsets(&node)?,
        None => BTreeMap::new(),
    };
    let rate_limit = match map.take("topic.consumption.rate.limit") {
        Some(node) => rate_limit(&node)?,
        None => None,
    };
    let strict = match map.take(&key("strict")) {
        Some(node) => node.boolean()?,
        None => false,
    };
    let archive = match map.take(&key("archive")) {
        Some(node) => node.boolean()?,
        None => false,
    };
    let archive_retention_ms = match map.take(&key("archive.retention")) {
        Some(node) => {
            let ms = period_ms(&node)?;
            if i64::try_from(ms).is_err() {
                return Err(node.wrong("this is too long"));
            }
            Some(ms)
        }
        None => None,
    };
    let (flush_rows, flush_bytes, flush_age_ms) = thresholds(&mut map, warnings)?;
    if let Some(n) = map.take(&key("consumer.type"))
        && matches!(n.text()?.to_ascii_lowercase().as_str(), "highlevel")
    {
        warnings.push(n.warning("every partition is consumed by itself (lowlevel)"));
    }
    map.ignore(&[&key("consumer.factory.class.name"), &key("hlc.group.id")]);
    let mut properties = BTreeMap::new();
    for (name, n) in map.take_rest() {
        property(name, &n, prefix, kind, &mut properties, warnings)?;
    }
    Ok(StreamConfig {
        kind,
        topic,
        partitions,
        brokers,
        properties,
        start,
        start_offsets,
        rate_limit,
        strict,
        archive,
        archive_retention_ms,
        decoder,
        flush_rows,
        flush_bytes,
        flush_age_ms,
    })
}

pub(super) fn number(node: &Node<'_>, least: u64, most: u64) -> Result<u64> {
    let value = node
        .scalar_text()?
        .trim()
        .parse()
        .ok()
        .filter(|v| (least..=most).contains(v));
    value.ok_or_else(|| {
        node.wrong(format_args!(
            "expected a whole number from {least} to {most}"
        ))
    })
}

fn start(map: &mut Object<'_>, prefix: &str, kind: StreamKind) -> Result<StartOffset> {
    let Some(node) = map.take(&format!("{prefix}.consumer.prop.auto.offset.reset")) else {
        // Pinot's default for Kafka; a log of our own has nothing that should be passed over.
        return Ok(match kind {
            StreamKind::Kafka => StartOffset::Latest,
            StreamKind::Log => StartOffset::Earliest,
        });
    };
    let text = node.scalar_text()?.trim().to_ascii_lowercase();
    match text.as_str() {
        "smallest" | "earliest" => return Ok(StartOffset::Earliest),
        "largest" | "latest" => return Ok(StartOffset::Latest),
        _ => {}
    }
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(StartOffset::At(ms));
    }
    if let Some(ms) = instant::parse_iso(&text.to_ascii_uppercase()) {
        return Ok(StartOffset::At(ms));
    }
    match period_ms(&node) {
        Ok(ms) => Ok(StartOffset::Back(ms)),
        Err(_) => Err(node.unsupported(format_args!(
            "to begin at '{}'; use smallest, largest, a time (2026-05-01T00:00:00Z, or milliseconds since the epoch) or a period back (2d)",
            text.escape_debug()
        ))),
    }
}

/// `0:1500,1:0`: the first offset of single partitions.
fn start_offsets(node: &Node<'_>) -> Result<BTreeMap<u32, u64>> {
    let wrong = || node.wrong("expected partitions with their first offsets, as 0:1500,1:0");
    let mut offsets = BTreeMap::new();
    for pair in node.scalar_text()?.split(',') {
        let (partition, offset) = pair.split_once(':').ok_or_else(wrong)?;
        let partition = partition.trim().parse().map_err(|_| wrong())?;
        let offset = offset.trim().parse::<u64>().ok();
        let offset = offset.filter(|o| *o <= i64::MAX as u64).ok_or_else(wrong)?;
        if offsets.insert(partition, offset).is_some() {
            return Err(node.wrong(format_args!("the partition {partition} is there twice")));
        }
    }
    Ok(offsets)
}

/// Messages a second, as messages in 1,000 seconds.
fn rate_limit(node: &Node<'_>) -> Result<Option<u64>> {
    let rate = node.scalar_text()?.trim().parse::<f64>().ok();
    match rate.filter(|rate| rate.is_finite()) {
        // As in Pinot, nothing above zero is no limit.
        Some(rate) if rate <= 0.0 => Ok(None),
        Some(rate) if (0.001..=1e12).contains(&rate) => Ok(Some((rate * 1_000.0) as u64)),
        _ => Err(node.wrong("expected a number of messages a second, from 0.001 on")),
    }
}

/// Rows, bytes and milliseconds.
fn thresholds(map: &mut Object<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<(u64, u64, u64)> {
    // The older name says size and means rows.
    let old_rows = map.take("realtime.segment.flush.threshold.size");
    let rows = map
        .take("realtime.segment.flush.threshold.rows")
        .or(old_rows);
    let flush_rows = match rows {
        // Zero rows: by size alone.
        Some(node) => Some(number(&node, 0, u64::MAX)?)
            .filter(|rows| *rows > 0)
            .unwrap_or(FLUSH_ROWS_DEFAULT),
        None => FLUSH_ROWS_DEFAULT,
    };
    let old_size = map.take("realtime.segment.flush.desired.size");
    let flush_bytes = match map
        .take("realtime.segment.flush.threshold.segment.size")
        .or(old_size)
    {
        Some(node) => bytes(&node)?,
        None => FLUSH_BYTES_DEFAULT,
    };
    let flush_age_ms = match map.take("realtime.segment.flush.threshold.time") {
        Some(node) => period_ms(&node)?,
        None => FLUSH_AGE_MS_DEFAULT,
    };
    map.warn(
        "realtime.segment.flush.threshold.segment.rows",
        "use realtime.segment.flush.threshold.rows",
        warnings,
    );
    map.warn(
        "realtime.segment.flush.autotune.initialRows",
        "thresholds are not tuned",
        warnings,
    );
    map.warn(
        "realtime.segment.commit.timeoutSeconds",
        "a commit takes the time it takes",
        warnings,
    );
    Ok((flush_rows, flush_bytes, flush_age_ms))
}

/// `150M`, `1.5G`, or a number of bytes.
fn bytes(node: &Node<'_>) -> Result<u64> {
    let text = node.scalar_text()?.trim().to_ascii_uppercase();
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let factor = match unit.trim() {
        "" | "B" => 1.0,
        "K" | "KB" => 1024.0,
        "M" | "MB" => 1024.0 * 1024.0,
        "G" | "GB" => 1024.0 * 1024.0 * 1024.0,
        _ => 0.0,
    };
    match digits.parse::<f64>().map(|n| n * factor) {
        Ok(size) if (1_024.0..=1e15).contains(&size) => Ok(size as u64),
        _ => Err(node.wrong("expected a size of at least 1K, as 150M")),
    }
}

/// `1h`, `30m`, `1d12h`, or a number of milliseconds.
pub(super) fn period_ms(node: &Node<'_>) -> Result<u64> {
    let text = node.scalar_text()?.trim().to_ascii_lowercase();
    let wrong = || node.wrong("expected a period above zero, as 6h, 1d12h or milliseconds");
    let mut total: u64 = 0;
    if let Ok(ms) = text.parse::<u64>() {
        total = ms;
    } else {
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let digits_end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (digits, after) = rest.split_at(digits_end);
            let unit_end = after
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_end);
            let factor = match unit.trim() {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            let part = digits
                .parse::<u64>()
                .ok()
                .and_then(|n| n.checked_mul(factor))
                .ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = next;
        }
    }
    if total == 0 { Err(wrong()) } else { Ok(total) }
}

/// What is left: consumer properties go to librdkafka under its names.
fn property(
    name: &str,
    node: &Node<'_>,
    prefix: &str,
    kind: StreamKind,
    properties: &mut BTreeMap<String, String>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<()> {
    let own = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('.'));
    let consumer = own.and_then(|rest| rest.strip_prefix("consumer.prop."));
    let plain = [
        "security.",
        "sasl.",
        "ssl.",
        "isolation.level",
        "group.id",
        "client.",
        "enable.",
        "fetch.",
        "socket.",
    ];
    let property = match (consumer, own) {
        (Some(property), _) => property,
        (None, Some("isolation.level")) => "isolation.level",
        (None, None) if plain.iter().any(|start| name.starts_with(start)) => name,
        _ => {
            warnings.push(node.warning("not known; it has no effect"));
            return Ok(());
        }
    };
    if kind == StreamKind::Log {
        warnings.push(node.warning("the embedded log has no such property"));
        return Ok(());
    }
    let value = node.scalar_text()?;
    match property {
        "sasl.jaas.config" => {
            for (part, to) in [("username", "sasl.username"), ("password", "sasl.password")] {
                let Some(found) = jaas_option(&value, part) else {
                    return Err(node.unsupported("this JAAS login; use one with username and password, or set sasl.username and sasl.password"));
                };
                properties.entry(to.to_owned()).or_insert(found);
            }
        }
        "ssl.truststore.location" | "ssl.keystore.location" => {
            return Err(node.unsupported("Java key stores; set ssl.ca.location, ssl.certificate.location and ssl.key.location to PEM files"));
        }
        "sasl.mechanism" => {
            properties.insert("sasl.mechanisms".to_owned(), value);
        }
        // Java's word for none.
        "ssl.endpoint.identification.algorithm" if value.is_empty() => {
            properties.insert(property.to_owned(), "none".to_owned());
        }
        "fetch.max.wait.ms" => {
            properties.insert("fetch.wait.max.ms".to_owned(), value);
        }
        "request.timeout.ms"
        | "default.api.timeout.ms"
        | "interceptor.classes"
        | "metric.reporters"
        | "send.buffer.bytes"
        | "receive.buffer.bytes"
        | "exclude.internal.topics" => {
            warnings.push(node.warning("a property of Kafka's Java client; it has no effect"));
        }
        "bootstrap.servers"
        | "enable.auto.commit"
        | "enable.auto.offset.store"
        | "key.deserializer"
        | "value.deserializer"
        | "max.poll.records"
        | "zookeeper.connect" => {
            warnings.push(node.warning("set by the database"));
        }
        _ => {
            properties.insert(property.to_owned(), value);
        }
    }
    Ok(())
}

/// The value of `option="value"` or `option='value'` in a JAAS login.
fn jaas_option(login: &str, option: &str) -> Option<String> {
    let after = login.split_once(&format!("{option}="))?.1;
    let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    after.get(1..)?.split(quote).next().map(str::to_owned)
}
