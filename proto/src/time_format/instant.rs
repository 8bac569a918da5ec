//! Instants as text in ISO 8601: read leniently, written in one way.

use chrono::{DateTime, NaiveDate};

/// Milliseconds since the epoch of a date (`2014-01-22`, midnight UTC) or of a date and time, with `T` or
/// a space between, seconds and fraction optional, and a zone (`Z`, `+05:30`) or none for UTC. Digits
/// below the millisecond are cut towards the past. None for anything else.
pub fn parse_iso(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() < 10 || !text.is_ascii() || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = digits(&bytes[..4])?;
    let date = NaiveDate::from_ymd_opt(year as i32, digits(&bytes[5..7])?, digits(&bytes[8..10])?)?;
    let midnight_ms = i64::from(date.to_epoch_days()) * 86_400_000;
    if bytes.len() == 10 {
        return Some(midnight_ms);
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let clock = &text[11..];
    let zone_at = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone_at);
    let offset_minutes = match zone {
        "" | "Z" | "z" => 0,
        offset => parse_offset_minutes(offset)?,
    };
    Some(midnight_ms + parse_clock(clock.trim_end())? - i64::from(offset_minutes) * 60_000)
}

/// `HH:mm`, `HH:mm:ss` or `HH:mm:ss.fraction` in milliseconds of the day.
fn parse_clock(text: &str) -> Option<i64> {
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text, None), |(w, f)| (w, Some(f)));
    let mut fields = whole.split(':');
    let hour = field(fields.next()?, 23)?;
    let minute = field(fields.next()?, 59)?;
    let second = match fields.next() {
        Some(text) => field(text, 59)?,
        None if fraction.is_some() => return None,
        None => 0,
    };
    if fields.next().is_some() {
        return None;
    }
    let mut ms = 0;
    if let Some(fraction) = fraction {
        if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        for i in 0..3 {
            ms = ms * 10
                + fraction
                    .as_bytes()
                    .get(i)
                    .map_or(0, |b| i64::from(b - b'0'));
        }
    }
    Some(((hour * 60 + minute) * 60 + second) * 1_000 + ms)
}

fn field(text: &str, max: u32) -> Option<i64> {
    let value = digits(text.as_bytes()).filter(|_| text.len() == 2)?;
    (value <= max).then_some(i64::from(value))
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0u32, |n, b| {
        let digit = b.is_ascii_digit().then(|| u32::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// Minutes ahead of UTC of `Z`, `+05:30`, `-0800` or `+09`; at most 18 hours.
pub fn parse_offset_minutes(text: &str) -> Option<i32> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match (rest.split_once(':'), rest.len()) {
        (Some((hours, minutes)), _) if minutes.len() == 2 => (hours, minutes),
        (None, 4) if rest.is_ascii() => rest.split_at(2),
        (None, 1 | 2) => (rest, "00"),
        _ => return None,
    };
    if hours.is_empty() || hours.len() > 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours.as_bytes())?, digits(minutes.as_bytes())?);
    let total = (hours * 60 + minutes) as i32;
    (minutes < 60 && total <= 18 * 60).then_some(sign * total)
}

/// An instant as `2014-01-22T10:00:00Z`, with milliseconds only when there are any; the bare number when its
/// year has more than four digits.
pub fn format_iso(time_ms: i64) -> String {
    match DateTime::from_timestamp_millis(time_ms) {
        Some(time) if (super::TIME_MS_MIN..=super::TIME_MS_MAX).contains(&time_ms) => {
            let pattern = if time_ms.rem_euclid(1_000) == 0 {
                "%Y-%m-%dT%H:%M:%SZ"
            } else {
                "%Y-%m-%dT%H:%M:%S%.3fZ"
            };
            time.format(pattern).to_string()
        }
        _ => time_ms.to_string(),
    }
}
