//! The functions that expressions may call, by Pinot's names, and what is known of them at creation.

use super::expression::Expression;
use super::form::Form;
use super::json_path::JsonPath;
use crate::convert::Cell;
use strandline_proto::granularity::Granularity;
use strandline_proto::time_format::instant;
use strandline_proto::time_format::pattern::TimePattern;
use strandline_proto::time_format::{TimeFormat, TimeUnit};
use strandline_proto::{Error, Result};

/// A function with what its constant arguments said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Function {
    /// `fromEpochDays(days)`: milliseconds.
    FromEpoch(TimeUnit),
    /// `fromEpochDaysBucket(buckets, days per bucket)`.
    FromEpochBucket(TimeUnit),
    /// `toEpochDays(ms)`.
    ToEpoch(TimeUnit),
    /// `toEpochDaysRounded(ms, days)`: the days, floored to a multiple.
    ToEpochRounded(TimeUnit),
    /// `toEpochDaysBucket(ms, days)`: the number of the bucket.
    ToEpochBucket(TimeUnit),
    /// `toDateTime(ms, pattern[, zone])`.
    ToDateTime(TimeFormat),
    /// `fromDateTime(text, pattern[, zone])`.
    FromDateTime(TimeFormat),
    /// `dateTimeConvert(time, from format, to format, granularity)`.
    DateTimeConvert {
        from: TimeFormat,
        to: TimeFormat,
        granularity_ms: i64,
    },
    /// `round(number, to a multiple of)`.
    Round,
    JsonFormat,
    /// `jsonPathString(document, path[, default])`.
    JsonPathString(JsonPath),
    /// `jsonPathLong(document, path[, default])`.
    JsonPathLong(JsonPath),
    /// `jsonPathDouble(document, path[, default])`.
    JsonPathDouble(JsonPath),
    Upper,
    Lower,
    Trim,
    TrimLeft,
    TrimRight,
    Reverse,
    Length,
    Concat,
    Substr,
    Replace,
    Plus,
    Minus,
    Times,
    Divide,
    Modulo,
    Negate,
    Absolute,
    Ceil,
    Floor,
    Sqrt,
    Exp,
    Ln,
    Least,
    Greatest,
    Power,
    Sign,
    /// `startsWith(text, start)`.
    StartsWith,
    EndsWith,
    Contains,
    /// `strpos(text, part)`: from 0; -1 without it.
    Position,
    /// `strcmp(text, text)`: below, at or above 0.
    CompareTexts,
    /// `splitPart(text, delimiter, number from 0)`: null behind the last.
    SplitPart,
    /// `leftSubStr(text, characters)`.
    Left,
    Right,
    /// `lpad(text, characters, with)`.
    PadLeft,
    PadRight,
    Repeat,
    /// `dateTrunc(granularity, ms)`.
    Truncate(Granularity),
    /// `year(ms)` and its like, in UTC.
    Part(DatePart),
}

/// A part of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatePart {
    Year,
    Quarter,
    Month,
    Day,
    /// From 1.
    DayOfYear,
    /// Monday is 1.
    DayOfWeek,
    Hour,
    Minute,
    Second,
    Millisecond,
}

/// A call by Pinot's name of the function, in any case, with or without underscores.
pub(super) fn call(name: &str, mut args: Vec<Expression>) -> Result<Expression> {
    let canonical: String = name
        .chars()
        .filter(|c| *c != '_')
        .map(|c| c.to_ascii_lowercase())
        .collect();
    if let Some(form) = Form::of_function(name, &canonical, &mut args)? {
        return Ok(form);
    }
    let (function, args) = Function::resolve(name, &canonical, args)?;
    Ok(Expression::Call { function, args })
}

impl Function {
    /// Whether the result is a truth value.
    pub(super) fn is_truth(&self) -> bool {
        matches!(self, Self::StartsWith | Self::EndsWith | Self::Contains)
    }

    /// The function, with the arguments that are left when formats are taken out.
    fn resolve(
        name: &str,
        canonical: &str,
        mut args: Vec<Expression>,
    ) -> Result<(Self, Vec<Expression>)> {
        if let Some((function, count)) = epoch_function(canonical) {
            count_args(name, &args, count..=count)?;
            return Ok((function, args));
        }
        let (function, counts) = match canonical {
            "todatetime" => {
                count_args(name, &args, 2..=3)?;
                let format = date_format(name, &args)?;
                args.truncate(1);
                return Ok((Self::ToDateTime(format), args));
            }
            "fromdatetime" => {
                count_args(name, &args, 2..=3)?;
                let format = date_format(name, &args)?;
                args.truncate(1);
                return Ok((Self::FromDateTime(format), args));
            }
            "datetimeconvert" => {
                count_args(name, &args, 4..=4)?;
                let from = TimeFormat::parse(&constant_text(name, &args, 1)?)?;
                let to = TimeFormat::parse(&constant_text(name, &args, 2)?)?;
                let granularity_ms = granularity_ms(&constant_text(name, &args, 3)?)?;
                args.truncate(1);
                return Ok((
                    Self::DateTimeConvert {
                        from,
                        to,
                        granularity_ms,
                    },
                    args,
                ));
            }
            "jsonpathstring" | "jsonpathlong" | "jsonpathdouble" => {
                count_args(name, &args, 2..=3)?;
                let path = JsonPath::parse(&constant_text(name, &args, 1)?)?;
                args.remove(1);
                let function = match canonical {
                    "jsonpathlong" => Self::JsonPathLong(path),
                    "jsonpathdouble" => Self::JsonPathDouble(path),
                    _ => Self::JsonPathString(path),
                };
                return Ok((function, args));
            }
            "datetrunc" => {
                count_args(name, &args, 2..=2)?;
                let text = constant_text(name, &args, 0)?;
                let granularity = Granularity::parse(&text).ok_or_else(|| {
                    Error::unsupported(format!(
                        "not supported: '{text}' in {name}; there are second, minute, hour, day, week, month, quarter and year"
                    ))
                })?;
                args.remove(0);
                return Ok((Self::Truncate(granularity), args));
            }
            "round" => (Self::Round, 2..=2),
            "jsonformat" => (Self::JsonFormat, 1..=1),
            "upper" => (Self::Upper, 1..=1),
            "lower" => (Self::Lower, 1..=1),
            "trim" => (Self::Trim, 1..=1),
            "ltrim" => (Self::TrimLeft, 1..=1),
            "rtrim" => (Self::TrimRight, 1..=1),
            "reverse" => (Self::Reverse, 1..=1),
            "strlen" | "length" => (Self::Length, 1..=1),
            "concat" => (Self::Concat, 2..=3),
            "substr" => (Self::Substr, 2..=3),
            "replace" => (Self::Replace, 3..=3),
            "plus" | "add" => (Self::Plus, 2..=64),
            "minus" | "sub" => (Self::Minus, 2..=2),
            "times" | "mult" => (Self::Times, 2..=64),
            "divide" | "div" => (Self::Divide, 2..=2),
            "mod" => (Self::Modulo, 2..=2),
            "abs" => (Self::Absolute, 1..=1),
            "ceil" | "ceiling" => (Self::Ceil, 1..=1),
            "floor" => (Self::Floor, 1..=1),
            "sqrt" => (Self::Sqrt, 1..=1),
            "exp" => (Self::Exp, 1..=1),
            "ln" => (Self::Ln, 1..=1),
            "power" | "pow" => (Self::Power, 2..=2),
            "sign" => (Self::Sign, 1..=1),
            "startswith" => (Self::StartsWith, 2..=2),
            "endswith" => (Self::EndsWith, 2..=2),
            "contains" => (Self::Contains, 2..=2),
            "strpos" => (Self::Position, 2..=2),
            "strcmp" => (Self::CompareTexts, 2..=2),
            "splitpart" => (Self::SplitPart, 3..=3),
            "leftsubstr" => (Self::Left, 2..=2),
            "rightsubstr" => (Self::Right, 2..=2),
            "lpad" => (Self::PadLeft, 3..=3),
            "rpad" => (Self::PadRight, 3..=3),
            "repeat" => (Self::Repeat, 2..=2),
            "year" => (Self::Part(DatePart::Year), 1..=1),
            "quarter" => (Self::Part(DatePart::Quarter), 1..=1),
            "month" | "monthofyear" => (Self::Part(DatePart::Month), 1..=1),
            "day" | "dayofmonth" => (Self::Part(DatePart::Day), 1..=1),
            "doy" | "dayofyear" => (Self::Part(DatePart::DayOfYear), 1..=1),
            "dow" | "dayofweek" => (Self::Part(DatePart::DayOfWeek), 1..=1),
            "hour" => (Self::Part(DatePart::Hour), 1..=1),
            "minute" => (Self::Part(DatePart::Minute), 1..=1),
            "second" => (Self::Part(DatePart::Second), 1..=1),
            "millisecond" => (Self::Part(DatePart::Millisecond), 1..=1),
            "least" | "min" => (Self::Least, 1..=64),
            "greatest" | "max" => (Self::Greatest, 1..=64),
            "now" | "ago" | "agomv" | "rand" | "uuid" | "randomuuid" | "currenttimestamp" => {
                return Err(Error::unsupported(format!(
                    "not supported: {name}() while rows come in; it gives another value each time the same data is read"
                )));
            }
            _ => {
                return Err(Error::unsupported(format!(
                    "not supported: the function {name} while rows come in; there are fromEpochDays, toEpochDays and their like, \
                     fromDateTime, toDateTime, dateTimeConvert, dateTrunc, year, month, day, hour and their like, jsonFormat, \
                     jsonPathString, jsonPathLong, jsonPathDouble, upper, lower, trim, ltrim, rtrim, concat, strlen, substr, \
                     replace, reverse, startsWith, endsWith, contains, strpos, strcmp, splitPart, leftSubStr, rightSubStr, lpad, \
                     rpad, repeat, plus, minus, times, divide, mod, power, abs, sign, round, ceil, floor, sqrt, exp, ln, least, \
                     greatest, coalesce, nullIf, caseWhen, cast, regexpLike, and SQL's operators"
                )));
            }
        };
        count_args(name, &args, counts)?;
        Ok((function, args))
    }
}

/// `fromEpochDays`, `toEpochHoursRounded` and the rest of the family, with their number of arguments.
fn epoch_function(canonical: &str) -> Option<(Function, usize)> {
    let (to_epoch, rest) = match (
        canonical.strip_prefix("toepoch"),
        canonical.strip_prefix("fromepoch"),
    ) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    let units = [
        ("seconds", TimeUnit::Seconds),
        ("minutes", TimeUnit::Minutes),
        ("hours", TimeUnit::Hours),
        ("days", TimeUnit::Days),
    ];
    let (unit, kind) = units
        .iter()
        .find_map(|(name, unit)| rest.strip_prefix(name).map(|kind| (*unit, kind)))?;
    match (to_epoch, kind) {
        (true, "") => Some((Function::ToEpoch(unit), 1)),
        (true, "rounded") => Some((Function::ToEpochRounded(unit), 2)),
        (true, "bucket") => Some((Function::ToEpochBucket(unit), 2)),
        (false, "") => Some((Function::FromEpoch(unit), 1)),
        (false, "bucket") => Some((Function::FromEpochBucket(unit), 2)),
        _ => None,
    }
}

pub(super) fn count_args(
    name: &str,
    args: &[Expression],
    wanted: std::ops::RangeInclusive<usize>,
) -> Result<()> {
    if wanted.contains(&args.len()) {
        return Ok(());
    }
    let (least, most) = (wanted.start(), wanted.end());
    let wanted = if *most == usize::MAX {
        format!("{least} or more")
    } else if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    };
    Err(Error::invalid(format!(
        "{name} takes {wanted} arguments, not {}",
        args.len()
    )))
}

pub(super) fn constant_text(name: &str, args: &[Expression], at: usize) -> Result<String> {
    match args.get(at) {
        Some(Expression::Literal(Cell::Text(text))) => Ok(text.clone().into_owned()),
        _ => Err(Error::unsupported(format!(
            "not supported: argument {} of {name} must be a text in single quotes",
            at + 1
        ))),
    }
}

/// Pattern and zone of `toDateTime` and `fromDateTime`.
fn date_format(name: &str, args: &[Expression]) -> Result<TimeFormat> {
    let pattern = constant_text(name, args, 1)?;
    TimePattern::compile(&pattern)?;
    if args.len() < 3 {
        return TimeFormat::simple_date(&pattern, 0);
    }
    let zone = constant_text(name, args, 2)?;
    let offset_minutes = match zone.as_str() {
        "UTC" | "GMT" => Some(0),
        zone => instant::parse_offset_minutes(zone),
    };
    let offset_minutes = offset_minutes.ok_or_else(|| {
        Error::unsupported(format!(
            "not supported: time zone '{zone}' in {name}; only UTC and fixed offsets such as +05:30"
        ))
    })?;
    TimeFormat::simple_date(&pattern, offset_minutes)
}

/// Milliseconds of a granularity, `1:DAYS` or `DAYS|1`.
fn granularity_ms(text: &str) -> Result<i64> {
    let (size, unit) = match (text.split_once(':'), text.split_once('|')) {
        (Some((size, unit)), _) => (size, unit),
        (None, Some((unit, size))) => (size, unit),
        (None, None) => ("1", text),
    };
    let size = size.trim().parse::<u32>().ok().filter(|size| *size > 0);
    let size = size.ok_or_else(|| {
        Error::invalid(format!(
            "the granularity '{text}' is not of the form 1:DAYS"
        ))
    })?;
    Ok(i64::from(size) * TimeUnit::parse(unit)?.millis())
}
