//! Patterns of Java's SimpleDateFormat, the part of them that data is written in.
//!
//! Letters: `y` year, `M` month of the year, `d` day of the month, `D` day of the year, `H` hour 0-23,
//! `m` minute, `s` second, `S` fraction of the second. A letter repeated n >= 2 times is read and written
//! with exactly n digits; a single letter without padding (`yyyy-M-d`). Text in single quotes and anything
//! that is no letter stands for itself. Other letters are refused with an error that names them.

use crate::error::{Error, Result};
use chrono::{DateTime, Datelike, Months, NaiveDate, Timelike};

const DAY_MS: i64 = 86_400_000;

/// A part of an instant, from the largest to the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Year,
    Month,
    Day,
    DayOfYear,
    Hour,
    Minute,
    Second,
    Fraction,
}

impl Field {
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'y' => Self::Year,
            'M' => Self::Month,
            'd' => Self::Day,
            'D' => Self::DayOfYear,
            'H' => Self::Hour,
            'm' => Self::Minute,
            's' => Self::Second,
            'S' => Self::Fraction,
            _ => return None,
        })
    }

    /// Digits of the largest value.
    fn digits_max(self) -> usize {
        match self {
            Self::Year => 4,
            Self::DayOfYear => 3,
            Self::Fraction => 9,
            _ => 2,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(String),
    Field { field: Field, width: usize },
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimePattern {
    tokens: Vec<Token>,
}

/// The parts of an instant as a pattern's fields give them.
struct Parts {
    year: i32,
    month: u32,
    day: u32,
    day_of_year: Option<u32>,
    clock_ms: i64,
}

impl TimePattern {
    /// Compiles a pattern.
    pub fn compile(pattern: &str) -> Result<Self> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\'' {
                push_literal(&mut tokens, &read_quoted(&mut chars, pattern)?);
            } else if c.is_ascii_alphabetic() {
                let mut width = 1;
                while chars.next_if_eq(&c).is_some() {
                    width += 1;
                }
                tokens.push(Token::Field {
                    field: checked_field(c, width, pattern)?,
                    width,
                });
            } else {
                push_literal(&mut tokens, c.encode_utf8(&mut [0; 4]));
            }
        }
        let compiled = Self { tokens };
        compiled.check_fields(pattern)?;
        Ok(compiled)
    }

    fn fields(&self) -> impl Iterator<Item = (Field, usize)> + '_ {
        self.tokens.iter().filter_map(|t| match t {
            Token::Field { field, width } => Some((*field, *width)),
            Token::Literal(_) => None,
        })
    }

    fn has(&self, field: Field) -> bool {
        self.fields().any(|(f, _)| f == field)
    }

    fn check_fields(&self, pattern: &str) -> Result<()> {
        if !self.has(Field::Year) {
            return Err(Error::invalid(format!(
                "the pattern '{pattern}' has no year (yyyy)"
            )));
        }
        let repeated = self
            .fields()
            .enumerate()
            .any(|(i, (field, _))| self.fields().skip(i + 1).any(|(f, _)| f == field));
        if repeated {
            return Err(Error::invalid(format!(
                "the pattern '{pattern}' names a field twice"
            )));
        }
        if self.has(Field::DayOfYear) && (self.has(Field::Month) || self.has(Field::Day)) {
            return Err(Error::invalid(format!(
                "the pattern '{pattern}' has both a day of the year (D) and a month or day (M, d)"
            )));
        }
        // Without padding, where one number ends and the next begins can't be known.
        let glued = self.tokens.windows(2).any(|pair| {
            matches!(pair, [Token::Field { width: 1, .. }, Token::Field { .. }])
                || matches!(pair, [Token::Field { width: 1, .. }, Token::Literal(text)] if text.starts_with(|c: char| c.is_ascii_digit()))
        });
        if glued {
            return Err(Error::invalid(format!(
                "the pattern '{pattern}' puts a number without fixed width before another: repeat its letter"
            )));
        }
        Ok(())
    }

    /// Whether texts (and numbers, for a pattern of digits) are ordered as their instants: fields from the year on,
    /// largest first, none left out, each of fixed width.
    pub fn is_sortable(&self) -> bool {
        let fixed = self
            .fields()
            .all(|(field, width)| width > 1 || field == Field::Fraction);
        let order: Vec<Field> = self.fields().map(|(field, _)| field).collect();
        let rest = [Field::Hour, Field::Minute, Field::Second, Field::Fraction];
        let by_month: Vec<Field> = [Field::Year, Field::Month, Field::Day]
            .into_iter()
            .chain(rest)
            .collect();
        let by_day: Vec<Field> = [Field::Year, Field::DayOfYear]
            .into_iter()
            .chain(rest)
            .collect();
        fixed && (by_month.starts_with(&order) || by_day.starts_with(&order))
    }

    /// How many digits the pattern writes, when it writes only digits and always as many.
    pub fn digits(&self) -> Option<usize> {
        self.tokens.iter().try_fold(0, |sum, token| match token {
            Token::Literal(text) => text
                .bytes()
                .all(|b| b.is_ascii_digit())
                .then_some(sum + text.len()),
            Token::Field { field, width } => {
                (*width > 1 || *field == Field::Fraction).then_some(sum + width)
            }
        })
    }

    /// The instant that `text` writes, its clock taken as UTC; none when the text does not match the pattern or
    /// names no real date.
    pub fn parse(&self, text: &str) -> Option<i64> {
        let mut parts = Parts {
            year: 1970,
            month: 1,
            day: 1,
            day_of_year: None,
            clock_ms: 0,
        };
        let mut rest = text;
        for token in &self.tokens {
            match token {
                Token::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
                Token::Field { field, width } => {
                    let max = if *width == 1 && *field != Field::Fraction {
                        field.digits_max()
                    } else {
                        *width
                    };
                    let len = rest
                        .bytes()
                        .take(max)
                        .take_while(u8::is_ascii_digit)
                        .count();
                    if len < *width {
                        return None;
                    }
                    let (number, after) = rest.split_at(len);
                    parts.set(*field, number.parse().ok()?, len)?;
                    rest = after;
                }
            }
        }
        rest.is_empty().then_some(())?;
        parts.to_ms()
    }

    /// [`TimePattern::parse`] of a number's digits, for patterns of digits; leading zeros are put back.
    pub fn parse_number(&self, number: i64) -> Option<i64> {
        let digits = self.digits()?;
        if number < 0 {
            return None;
        }
        self.parse(&format!("{number:0digits$}"))
    }

    /// The text of an instant, its clock as UTC; none outside the years 1 to 9999.
    pub fn format(&self, time_ms: i64) -> Option<String> {
        use std::fmt::Write as _;
        if !(super::TIME_MS_MIN..=super::TIME_MS_MAX).contains(&time_ms) {
            return None;
        }
        let time = DateTime::from_timestamp_millis(time_ms)?.naive_utc();
        let mut out = String::with_capacity(24);
        for token in &self.tokens {
            let (field, width) = match token {
                Token::Literal(text) => {
                    out.push_str(text);
                    continue;
                }
                Token::Field { field, width } => (*field, *width),
            };
            let value = match field {
                Field::Year => time.year().unsigned_abs(),
                Field::Month => time.month(),
                Field::Day => time.day(),
                Field::DayOfYear => time.ordinal(),
                Field::Hour => time.hour(),
                Field::Minute => time.minute(),
                Field::Second => time.second(),
                Field::Fraction => {
                    let nanos = format!("{:09}", time_ms.rem_euclid(1_000) * 1_000_000);
                    out.push_str(nanos.get(..width)?);
                    continue;
                }
            };
            write!(out, "{value:0width$}").ok()?;
        }
        Some(out)
    }

    /// The first instant at or after `time_ms` that the pattern writes without loss; none past the year 9999.
    pub fn ceil(&self, time_ms: i64) -> Option<i64> {
        let (finest, width) = self.fields().max_by_key(|(field, _)| *field)?;
        let unit_ms = match finest {
            Field::Year | Field::Month => return ceil_calendar(time_ms, finest),
            Field::Day | Field::DayOfYear => DAY_MS,
            Field::Hour => 3_600_000,
            Field::Minute => 60_000,
            Field::Second => 1_000,
            Field::Fraction => 10_i64.pow(3_u32.saturating_sub(width as u32)),
        };
        let floor = time_ms.checked_sub(time_ms.rem_euclid(unit_ms))?;
        let ceil = if floor == time_ms {
            floor
        } else {
            floor.checked_add(unit_ms)?
        };
        (ceil <= super::TIME_MS_MAX).then_some(ceil)
    }
}

impl Parts {
    fn set(&mut self, field: Field, number: u32, len: usize) -> Option<()> {
        let max = match field {
            Field::Hour => 23,
            Field::Minute | Field::Second => 59,
            _ => u32::MAX,
        };
        if number > max {
            return None;
        }
        match field {
            Field::Year => self.year = i32::try_from(number).ok().filter(|y| *y > 0)?,
            Field::Month => self.month = number,
            Field::Day => self.day = number,
            Field::DayOfYear => self.day_of_year = Some(number),
            Field::Hour => self.clock_ms += i64::from(number) * 3_600_000,
            Field::Minute => self.clock_ms += i64::from(number) * 60_000,
            Field::Second => self.clock_ms += i64::from(number) * 1_000,
            // Digits below the millisecond are cut.
            Field::Fraction => self.clock_ms += i64::from(number) * 1_000 / 10_i64.pow(len as u32),
        }
        Some(())
    }

    fn to_ms(&self) -> Option<i64> {
        let date = match self.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(self.year, day)?,
            None => NaiveDate::from_ymd_opt(self.year, self.month, self.day)?,
        };
        Some(i64::from(date.to_epoch_days()) * DAY_MS + self.clock_ms)
    }
}

fn ceil_calendar(time_ms: i64, unit: Field) -> Option<i64> {
    let date = DateTime::from_timestamp_millis(time_ms)?.date_naive();
    let month = if unit == Field::Year { 1 } else { date.month() };
    let floor = NaiveDate::from_ymd_opt(date.year(), month, 1)?;
    let start_ms = |date: NaiveDate| i64::from(date.to_epoch_days()) * DAY_MS;
    if start_ms(floor) == time_ms {
        return Some(time_ms);
    }
    let next = floor.checked_add_months(Months::new(if unit == Field::Year { 12 } else { 1 }))?;
    (start_ms(next) <= super::TIME_MS_MAX).then(|| start_ms(next))
}

fn push_literal(tokens: &mut Vec<Token>, text: &str) {
    match tokens.last_mut() {
        Some(Token::Literal(last)) => last.push_str(text),
        _ => tokens.push(Token::Literal(text.to_owned())),
    }
}

/// The rest of a quoted text, its opening quote taken; a doubled quote stands for one.
fn read_quoted(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    pattern: &str,
) -> Result<String> {
    if chars.next_if_eq(&'\'').is_some() {
        return Ok("'".to_owned());
    }
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.next_if_eq(&'\'').is_some() => text.push('\''),
            '\'' => return Ok(text),
            _ => text.push(c),
        }
    }
    Err(Error::invalid(format!(
        "the pattern '{pattern}' has a quote that is not closed"
    )))
}

fn checked_field(letter: char, width: usize, pattern: &str) -> Result<Field> {
    let run: String = std::iter::repeat_n(letter, width.min(12)).collect();
    let refused = |why: &str| {
        Error::unsupported(format!(
            "not supported: '{run}' in the date pattern '{pattern}'; {why}"
        ))
    };
    let Some(field) = Field::of(letter) else {
        return Err(refused(
            "use the letters y M d D H m s S, and quotes around other text",
        ));
    };
    match field {
        Field::Year if width != 1 && width != 4 => Err(refused("write the year as yyyy")),
        Field::Month if width > 2 => Err(refused("names of months are not read, write MM")),
        _ if width > field.digits_max() => Err(refused("it has more digits than the field")),
        _ => Ok(field),
    }
}
