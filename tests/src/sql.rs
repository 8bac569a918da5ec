//! A piece of SQL in three renderings: as Strandline gets it, as plain DataFusion gets it, and as DuckDB gets it.

use crate::pool::Domain;
use crate::table::Column;
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;

/// The renderings. `{t}` and `{u}` stand for the two tables' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    /// For Strandline.
    pub ours: String,
    /// For plain DataFusion, with multi-value semantics spelled out.
    pub plain: String,
    /// For DuckDB, when it means the same there.
    pub duck: Option<String>,
}

impl Sql {
    /// The same text everywhere.
    pub fn same(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            ours: text.clone(),
            plain: text.clone(),
            duck: Some(text),
        }
    }

    /// The same text for both DataFusion planners, another one for DuckDB.
    pub fn duck(text: impl Into<String>, duck: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            ours: text.clone(),
            plain: text,
            duck: Some(duck.into()),
        }
    }

    /// The same piece, not to be given to DuckDB.
    pub fn not_in_duck(self) -> Self {
        Self { duck: None, ..self }
    }

    /// `template` with each `@` replaced by the next of `parts`.
    ///
    /// # Panics
    /// When the counts differ.
    pub fn fill(template: &str, parts: &[&Sql]) -> Self {
        let render = |pick: &dyn Fn(&Sql) -> Option<String>| -> Option<String> {
            let mut pieces = template.split('@');
            let mut text = pieces.next().unwrap_or_default().to_owned();
            let mut rest = parts.iter();
            for piece in pieces {
                let part = rest.next().expect("a part for every @");
                text.push_str(&pick(part)?);
                text.push_str(piece);
            }
            assert!(rest.next().is_none(), "an @ for every part in {template}");
            Some(text)
        };
        Self {
            ours: render(&|p| Some(p.ours.clone())).expect("always there"),
            plain: render(&|p| Some(p.plain.clone())).expect("always there"),
            duck: render(&|p| p.duck.clone()),
        }
    }

    /// All of `parts` with `separator` between them.
    pub fn join<'a>(parts: impl IntoIterator<Item = &'a Sql>, separator: &str) -> Self {
        let parts: Vec<&Sql> = parts.into_iter().collect();
        let text = |pick: fn(&Sql) -> &str| {
            parts
                .iter()
                .map(|p| pick(p))
                .collect::<Vec<_>>()
                .join(separator)
        };
        Self {
            ours: text(|p| &p.ours),
            plain: text(|p| &p.plain),
            duck: parts
                .iter()
                .map(|p| p.duck.clone())
                .collect::<Option<Vec<_>>>()
                .map(|d| d.join(separator)),
        }
    }
}

/// Text as a SQL string literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `value` as a literal to compare `column` with.
pub fn literal_in(column: &Column, value: &Value) -> Sql {
    if column.domain != Domain::Edge {
        return literal(column.data_type, value);
    }
    // Not all of these have a literal that every planner takes, and a shape must be written alike whatever the value.
    match value {
        // The oracle holds one zero, and its IN tells -0.0 from it.
        Value::Float(v) => Sql {
            plain: format!("CAST('{:?}' AS REAL)", v + 0.0),
            ..Sql::same(format!("CAST('{v:?}' AS REAL)"))
        },
        Value::Double(v) => Sql {
            plain: format!("CAST('{:?}' AS DOUBLE)", v + 0.0),
            ..Sql::same(format!("CAST('{v:?}' AS DOUBLE)"))
        },
        Value::Timestamp(ms) => Sql::duck(
            format!("to_timestamp_millis({ms})"),
            format!("make_timestamp_ms({ms})"),
        ),
        other => literal(column.data_type, other),
    }
}

/// `value` as a literal of `data_type`, in parentheses where a sign could be misread.
///
/// # Panics
/// For null, lists and values of another type.
pub fn literal(data_type: DataType, value: &Value) -> Sql {
    match value {
        Value::Int(v) => Sql::same(signed(v.to_string())),
        Value::Long(v) => Sql::same(signed(v.to_string())),
        Value::Float(v) => float(f64::from(*v)),
        Value::Double(v) => float(*v),
        Value::Decimal { unscaled, scale } => {
            let text = quoted(&decimal_text(*unscaled, *scale));
            Sql::same(format!("CAST({text} AS DECIMAL(38,10))"))
        }
        Value::Boolean(v) => Sql::same(v.to_string()),
        Value::Timestamp(ms) => Sql::same(format!("TIMESTAMP '{}'", timestamp_text(*ms))),
        Value::String(text) => Sql::same(quoted(text)),
        Value::Bytes(bytes) => {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let escaped: String = bytes.iter().map(|b| format!("\\x{b:02X}")).collect();
            Sql::duck(format!("X'{hex}'"), format!("'{escaped}'::BLOB"))
        }
        other => panic!("no literal of {data_type:?} for {other:?}"),
    }
}

fn signed(text: String) -> String {
    if text.starts_with('-') {
        format!("({text})")
    } else {
        text
    }
}

fn float(value: f64) -> Sql {
    let text = signed(format!("{value:?}"));
    Sql::duck(text.clone(), format!("CAST({text} AS DOUBLE)"))
}

/// A decimal's digits, with `scale` of them after the point.
pub fn decimal_text(unscaled: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).expect("scales are not negative here");
    let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, rest) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{rest}")
    }
}

/// `2014-01-05 06:07:08.009` of milliseconds since the epoch.
pub fn timestamp_text(ms: i64) -> String {
    let days = ms.div_euclid(86_400_000);
    let in_day = ms.rem_euclid(86_400_000);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:03}",
        in_day / 3_600_000,
        in_day / 60_000 % 60,
        in_day / 1000 % 60,
        in_day % 1000
    )
}

/// Year, month and day of days since the epoch, in the proleptic Gregorian calendar.
pub fn civil(days: i64) -> (i64, i64, i64) {
    // Counts from 0000-03-01, so that the leap day is a year's last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_before_and_after_the_epoch_are_written_as_dates() {
        assert_eq!(timestamp_text(0), "1970-01-01 00:00:00.000");
        assert_eq!(timestamp_text(-1), "1969-12-31 23:59:59.999");
        assert_eq!(timestamp_text(951_782_400_000), "2000-02-29 00:00:00.000");
        assert_eq!(timestamp_text(1_388_534_400_123), "2014-01-01 00:00:00.123");
    }

    #[test]
    fn decimals_keep_sign_and_leading_zeros() {
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(decimal_text(1250, 3), "1.250");
        assert_eq!(decimal_text(7, 0), "7");
    }

    #[test]
    fn a_piece_without_duckdb_makes_a_whole_without_duckdb() {
        let whole = Sql::fill("@ AND @", &[&Sql::same("a"), &Sql::same("b").not_in_duck()]);
        assert_eq!((whole.ours.as_str(), whole.duck), ("a AND b", None));
    }
}
