//! The functions over values that are all there.
//!
//! Whole numbers stay exact: a sum or product that leaves 64 bits is an error, not a rounded value. Division
//! gives a float, and so does arithmetic with one. Times are floored, also before 1970.

use super::expression::{TEXT_BYTES_MAX, too_long};
use super::function::{DatePart, Function};
use crate::convert::{Cell, scalar};
use std::borrow::Cow;
use strandline_proto::granularity::Granularity;
use strandline_proto::schema::DataType;
use strandline_proto::time_format::{TIME_MS_MAX, TIME_MS_MIN, TimeUnit, instant};
use strandline_proto::value::Value;

/// A number as arithmetic sees it.
#[derive(Clone, Copy)]
enum Number {
    Whole(i64),
    Float(f64),
}

impl Number {
    fn of(cell: &Cell<'_>) -> Result<Self, String> {
        match cell {
            Cell::Double(v) => Ok(Self::Float(*v)),
            Cell::Float(v) => Ok(Self::Float(f64::from(*v))),
            _ => match scalar::integer(cell) {
                Ok(v) => Ok(Self::Whole(v)),
                Err(_) => scalar::double(cell).map(Self::Float),
            },
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Whole(v) => v as f64,
            Self::Float(v) => v,
        }
    }

    fn cell<'c>(self) -> Cell<'c> {
        match self {
            Self::Whole(v) => Cell::Integer(v),
            Self::Float(v) => Cell::Double(v),
        }
    }
}

fn combine(
    args: &[Cell<'_>],
    whole: impl Fn(i64, i64) -> Option<i64>,
    float: impl Fn(f64, f64) -> f64,
) -> Result<Number, String> {
    let mut numbers = args.iter().map(Number::of);
    let first = numbers.next().ok_or("an argument is missing")??;
    numbers.try_fold(first, |left, right| match (left, right?) {
        (Number::Whole(a), Number::Whole(b)) => whole(a, b)
            .map(Number::Whole)
            .ok_or_else(|| format!("{a} with {b} is outside the range of 64-bit integers")),
        (a, b) => Ok(Number::Float(float(a.float(), b.float()))),
    })
}

fn arg<'a, 'c>(args: &'a [Cell<'c>], at: usize) -> Result<&'a Cell<'c>, String> {
    args.get(at)
        .ok_or_else(|| "an argument is missing".to_owned())
}

fn positive(cell: &Cell<'_>) -> Result<i64, String> {
    match scalar::integer(cell)? {
        size if size > 0 => Ok(size),
        size => Err(format!("the bucket size {size} is not above 0")),
    }
}

fn count(cell: &Cell<'_>) -> Result<usize, String> {
    let number = scalar::integer(cell)?;
    usize::try_from(number).map_err(|_| format!("{number} is below 0"))
}

/// A part of a time in milliseconds, in UTC.
fn date_part(part: DatePart, ms: i64, shown: &Cell<'_>) -> Result<i64, String> {
    if !(TIME_MS_MIN..=TIME_MS_MAX).contains(&ms) {
        return Err(format!("the time {shown} is outside the years 1 to 9999"));
    }
    let day = ms.div_euclid(TimeUnit::Days.millis());
    let in_day = ms.rem_euclid(TimeUnit::Days.millis());
    // 2014-01-22T...
    let text = instant::format_iso(ms);
    let digits = |range: std::ops::Range<usize>| {
        let digits = text.get(range).and_then(|d| d.parse::<i64>().ok());
        digits.ok_or_else(|| format!("the time {shown} has no date"))
    };
    Ok(match part {
        DatePart::Year => digits(0..4)?,
        DatePart::Quarter => (digits(5..7)? - 1) / 3 + 1,
        DatePart::Month => digits(5..7)?,
        DatePart::Day => digits(8..10)?,
        DatePart::DayOfYear => match Granularity::Year.truncate(ms) {
            Some(start) => day - start.div_euclid(TimeUnit::Days.millis()) + 1,
            None => return Err(format!("the time {shown} has no date")),
        },
        // The epoch was a Thursday.
        DatePart::DayOfWeek => (day + 3).rem_euclid(7) + 1,
        DatePart::Hour => in_day / 3_600_000,
        DatePart::Minute => in_day / 60_000 % 60,
        DatePart::Second => in_day / 1_000 % 60,
        DatePart::Millisecond => in_day % 1_000,
    })
}

/// The time argument in milliseconds.
fn time_ms(cell: &Cell<'_>) -> Result<i64, String> {
    match cell {
        Cell::Date(day) => Ok(i64::from(*day) * TimeUnit::Days.millis()),
        // A text of digits is a number of milliseconds.
        Cell::Text(text) if text.parse::<i64>().is_err() => scalar::timestamp(cell),
        _ => scalar::integer(cell),
    }
}

fn steps_to_ms<'c>(steps: Option<i64>, unit: TimeUnit) -> Result<Cell<'c>, String> {
    let ms = steps.and_then(|steps| steps.checked_mul(unit.millis()));
    ms.map(Cell::Integer)
        .ok_or_else(|| "the time is outside the range of milliseconds".to_owned())
}

fn owned_text<'c>(text: impl Into<String>) -> Cell<'c> {
    Cell::Text(Cow::Owned(text.into()))
}

impl Function {
    pub(super) fn call<'c>(&self, args: &[Cell<'c>]) -> Result<Cell<'c>, String> {
        let first = arg(args, 0)?;
        let text = || scalar::text(first);
        Ok(match self {
            Self::FromEpoch(unit) => return steps_to_ms(Some(scalar::integer(first)?), *unit),
            Self::FromEpochBucket(unit) => {
                let size = positive(arg(args, 1)?)?;
                return steps_to_ms(scalar::integer(first)?.checked_mul(size), *unit);
            }
            Self::ToEpoch(unit) => Cell::Integer(time_ms(first)?.div_euclid(unit.millis())),
            Self::ToEpochRounded(unit) => {
                let (size, steps) = (
                    positive(arg(args, 1)?)?,
                    time_ms(first)?.div_euclid(unit.millis()),
                );
                Cell::Integer(steps.saturating_sub(steps.rem_euclid(size)))
            }
            Self::ToEpochBucket(unit) => {
                let size = positive(arg(args, 1)?)?;
                Cell::Integer(time_ms(first)?.div_euclid(unit.millis()).div_euclid(size))
            }
            Self::ToDateTime(format) => match format.format_ms(time_ms(first)?, DataType::String) {
                Value::String(text) => owned_text(text),
                _ => return Err(format!("the time {first} is outside the years 1 to 9999")),
            },
            Self::FromDateTime(format) => {
                let ms = format.to_ms(&Value::String(text()?.into_owned()));
                Cell::Integer(ms.ok_or_else(|| format!("{first} is no date of {format}"))?)
            }
            Self::DateTimeConvert {
                from,
                to,
                granularity_ms,
            } => {
                let value = match scalar::integer(first) {
                    Ok(number) => Value::Long(number),
                    Err(_) => Value::String(text()?.into_owned()),
                };
                let value = if matches!(first, Cell::Text(_)) {
                    Value::String(text()?.into_owned())
                } else {
                    value
                };
                let ms = from
                    .to_ms(&value)
                    .ok_or_else(|| format!("{first} is no time of {from}"))?;
                let floored = ms.saturating_sub(ms.rem_euclid(*granularity_ms));
                match to.format_ms(floored, DataType::String) {
                    Value::String(text) => owned_text(text),
                    _ => return Err(format!("the time {first} can't be written as {to}")),
                }
            }
            Self::Round => {
                let (number, size) = (scalar::integer(first)?, positive(arg(args, 1)?)?);
                Cell::Integer(number.saturating_sub(number.rem_euclid(size)))
            }
            Self::JsonFormat => {
                let mut out = String::new();
                scalar::write_json(first, &mut out);
                owned_text(out)
            }
            Self::JsonPathString(path) => {
                let mut out = String::new();
                match path.find(first)? {
                    Some(found) if found.is_scalar() => scalar::write_text(&found, &mut out)?,
                    Some(found) => scalar::write_json(&found, &mut out),
                    None => return Ok(args.get(1).cloned().unwrap_or(Cell::Null)),
                }
                owned_text(out)
            }
            Self::JsonPathLong(path) => match path.find(first)? {
                Some(found) => Cell::Integer(scalar::integer(&found)?),
                None => args.get(1).cloned().unwrap_or(Cell::Null),
            },
            Self::JsonPathDouble(path) => match path.find(first)? {
                Some(found) => Cell::Double(scalar::double(&found)?),
                None => args.get(1).cloned().unwrap_or(Cell::Null),
            },
            Self::Upper => owned_text(text()?.to_uppercase()),
            Self::Lower => owned_text(text()?.to_lowercase()),
            Self::Trim => owned_text(text()?.trim()),
            Self::TrimLeft => owned_text(text()?.trim_start()),
            Self::TrimRight => owned_text(text()?.trim_end()),
            Self::Reverse => owned_text(text()?.chars().rev().collect::<String>()),
            Self::Length => Cell::Integer(text()?.chars().count() as i64),
            Self::Concat => {
                let separator = args
                    .get(2)
                    .map(scalar::text)
                    .transpose()?
                    .unwrap_or_default();
                owned_text(format!(
                    "{}{separator}{}",
                    text()?,
                    scalar::text(arg(args, 1)?)?
                ))
            }
            Self::Substr => {
                let text = text()?;
                let begin = usize::try_from(scalar::integer(arg(args, 1)?)?)
                    .map_err(|_| "substr begins before 0")?;
                let end = args.get(2).map(scalar::integer).transpose()?.unwrap_or(-1);
                let count =
                    usize::try_from(end).map_or(usize::MAX, |end| end.saturating_sub(begin));
                owned_text(text.chars().skip(begin).take(count).collect::<String>())
            }
            Self::Replace => {
                let (find, with) = (scalar::text(arg(args, 1)?)?, scalar::text(arg(args, 2)?)?);
                if find.is_empty() {
                    return Ok(first.clone());
                }
                let text = text()?;
                let more = text
                    .matches(find.as_ref())
                    .count()
                    .saturating_mul(with.len());
                if text.len().saturating_add(more) > 2 * TEXT_BYTES_MAX {
                    return Err(too_long());
                }
                owned_text(text.replace(find.as_ref(), &with))
            }
            Self::Plus => combine(args, i64::checked_add, |a, b| a + b)?.cell(),
            Self::Minus => combine(args, i64::checked_sub, |a, b| a - b)?.cell(),
            Self::Times => combine(args, i64::checked_mul, |a, b| a * b)?.cell(),
            Self::Least => combine(args, |a, b| Some(a.min(b)), f64::min)?.cell(),
            Self::Greatest => combine(args, |a, b| Some(a.max(b)), f64::max)?.cell(),
            Self::Divide => {
                let by = scalar::double(arg(args, 1)?)?;
                if by == 0.0 {
                    return Err(format!("{first} divided by 0"));
                }
                Cell::Double(scalar::double(first)? / by)
            }
            Self::Modulo => match (Number::of(first)?, Number::of(arg(args, 1)?)?) {
                (_, Number::Whole(0)) => return Err(format!("{first} modulo 0")),
                (Number::Whole(a), Number::Whole(b)) => Cell::Integer(a.wrapping_rem(b)),
                (a, b) => Cell::Double(a.float() % b.float()),
            },
            Self::Negate => match Number::of(first)? {
                Number::Whole(v) => Cell::Integer(
                    v.checked_neg()
                        .ok_or("the number is outside the range of 64-bit integers")?,
                ),
                Number::Float(v) => Cell::Double(-v),
            },
            Self::Absolute => match Number::of(first)? {
                Number::Whole(v) => Cell::Integer(
                    v.checked_abs()
                        .ok_or("the number is outside the range of 64-bit integers")?,
                ),
                Number::Float(v) => Cell::Double(v.abs()),
            },
            Self::Ceil => match Number::of(first)? {
                Number::Float(v) => Cell::Double(v.ceil()),
                whole => whole.cell(),
            },
            Self::Floor => match Number::of(first)? {
                Number::Float(v) => Cell::Double(v.floor()),
                whole => whole.cell(),
            },
            Self::Sqrt => Cell::Double(scalar::double(first)?.sqrt()),
            Self::Exp => Cell::Double(scalar::double(first)?.exp()),
            Self::Ln => Cell::Double(scalar::double(first)?.ln()),
            Self::Power => {
                Cell::Double(scalar::double(first)?.powf(scalar::double(arg(args, 1)?)?))
            }
            Self::Sign => match Number::of(first)? {
                Number::Whole(v) => Cell::Integer(v.signum()),
                Number::Float(v) if v == 0.0 || v.is_nan() => Cell::Double(v),
                Number::Float(v) => Cell::Double(v.signum()),
            },
            Self::StartsWith => {
                Cell::Boolean(text()?.starts_with(scalar::text(arg(args, 1)?)?.as_ref()))
            }
            Self::EndsWith => {
                Cell::Boolean(text()?.ends_with(scalar::text(arg(args, 1)?)?.as_ref()))
            }
            Self::Contains => {
                Cell::Boolean(text()?.contains(scalar::text(arg(args, 1)?)?.as_ref()))
            }
            Self::Position => {
                let (text, part) = (text()?, scalar::text(arg(args, 1)?)?);
                Cell::Integer(match text.find(part.as_ref()) {
                    Some(at) => text.get(..at).unwrap_or_default().chars().count() as i64,
                    None => -1,
                })
            }
            Self::CompareTexts => {
                let order = text()?
                    .as_bytes()
                    .cmp(scalar::text(arg(args, 1)?)?.as_bytes());
                Cell::Integer(order as i64)
            }
            Self::SplitPart => {
                let (text, delimiter) = (text()?, scalar::text(arg(args, 1)?)?);
                if delimiter.is_empty() {
                    return Err("splitPart with an empty delimiter".to_owned());
                }
                let number = count(arg(args, 2)?)?;
                match text.split(delimiter.as_ref()).nth(number) {
                    Some(part) => owned_text(part),
                    None => Cell::Null,
                }
            }
            Self::Left => {
                let characters = count(arg(args, 1)?)?;
                owned_text(text()?.chars().take(characters).collect::<String>())
            }
            Self::Right => {
                let (text, characters) = (text()?, count(arg(args, 1)?)?);
                let skip = text.chars().count().saturating_sub(characters);
                owned_text(text.chars().skip(skip).collect::<String>())
            }
            Self::PadLeft | Self::PadRight => {
                let (text, wanted) = (text()?, count(arg(args, 1)?)?);
                let with = scalar::text(arg(args, 2)?)?;
                if wanted > TEXT_BYTES_MAX / 4 {
                    return Err(too_long());
                }
                let has = text.chars().count();
                let padding: String = (with.chars().cycle())
                    .take(wanted.saturating_sub(has))
                    .collect();
                let kept: String = text.chars().take(wanted).collect();
                owned_text(match self {
                    Self::PadLeft => padding + &kept,
                    _ => kept + &padding,
                })
            }
            Self::Repeat => {
                let (text, times) = (text()?, count(arg(args, 1)?)?);
                if text.len().saturating_mul(times) > TEXT_BYTES_MAX {
                    return Err(too_long());
                }
                owned_text(text.repeat(times))
            }
            Self::Truncate(granularity) => match granularity.truncate(time_ms(first)?) {
                // A time stays one.
                Some(ms) if matches!(first, Cell::Timestamp(_) | Cell::Date(_)) => {
                    Cell::Timestamp(ms)
                }
                Some(ms) => Cell::Integer(ms),
                None => return Err(format!("the time {first} is beyond the years of calendars")),
            },
            Self::Part(part) => Cell::Integer(date_part(*part, time_ms(first)?, first)?),
        })
    }
}
