//! Granularities of timestamps: what a timestamp index truncates to, and `date_trunc` by name.

use chrono::{DateTime, Datelike, NaiveDate};
use serde::{Deserialize, Serialize};

const SECOND_MS: i64 = 1_000;
const DAY_MS: i64 = 86_400 * SECOND_MS;

/// What times are truncated to, in UTC. Weeks begin on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "each name is its span of time")]
pub enum Granularity {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Granularity {
    /// All of them, the finest first.
    pub const ALL: [Self; 8] = [
        Self::Second,
        Self::Minute,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
    ];

    /// The granularity of a name, in whatever case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|granularity| granularity.name().eq_ignore_ascii_case(name))
    }

    /// Its name, as Pinot's configs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "SECOND",
            Self::Minute => "MINUTE",
            Self::Hour => "HOUR",
            Self::Day => "DAY",
            Self::Week => "WEEK",
            Self::Month => "MONTH",
            Self::Quarter => "QUARTER",
            Self::Year => "YEAR",
        }
    }

    /// The name of the column that holds `column` truncated to this: no column of a schema can have it.
    pub fn column_of(self, column: &str) -> String {
        format!("${column}${}", self.name())
    }

    /// Whose column a name of [`Self::column_of`] is, and what it is truncated to.
    pub fn of_column(name: &str) -> Option<(&str, Self)> {
        let (column, granularity) = name.strip_prefix('$')?.rsplit_once('$')?;
        Some((column, Self::parse(granularity)?))
    }

    /// The first millisecond of the span that `ms`, milliseconds since the epoch, is in; none beyond the years that calendars
    /// are known for.
    pub fn truncate(self, ms: i64) -> Option<i64> {
        let to = |unit: i64| ms.checked_sub(ms.rem_euclid(unit));
        let date = || DateTime::from_timestamp_millis(ms).map(|time| time.date_naive());
        let first_of = |month: fn(&NaiveDate) -> u32| {
            let date = date()?;
            let first = NaiveDate::from_ymd_opt(date.year(), month(&date), 1)?;
            Some(
                first
                    .and_time(chrono::NaiveTime::MIN)
                    .and_utc()
                    .timestamp_millis(),
            )
        };
        match self {
            Self::Second => to(SECOND_MS),
            Self::Minute => to(60 * SECOND_MS),
            Self::Hour => to(3_600 * SECOND_MS),
            Self::Day => to(DAY_MS),
            Self::Week => {
                let day = ms.div_euclid(DAY_MS);
                // The epoch was a Thursday.
                (day - (day + 3).rem_euclid(7)).checked_mul(DAY_MS)
            }
            Self::Month => first_of(NaiveDate::month),
            Self::Quarter => first_of(|date| date.month0() / 3 * 3 + 1),
            Self::Year => first_of(|_| 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_truncated_in_utc_and_weeks_begin_on_monday() {
        let ms = |text: &str| {
            DateTime::parse_from_rfc3339(text)
                .unwrap()
                .timestamp_millis()
        };
        let time = ms("2024-05-18T13:47:12.345Z");
        for (granularity, expected) in [
            ("second", "2024-05-18T13:47:12Z"),
            ("MINUTE", "2024-05-18T13:47:00Z"),
            ("Hour", "2024-05-18T13:00:00Z"),
            ("DAY", "2024-05-18T00:00:00Z"),
            ("WEEK", "2024-05-13T00:00:00Z"),
            ("MONTH", "2024-05-01T00:00:00Z"),
            ("QUARTER", "2024-04-01T00:00:00Z"),
            ("YEAR", "2024-01-01T00:00:00Z"),
        ] {
            let granularity = Granularity::parse(granularity).unwrap();
            assert_eq!(
                granularity.truncate(time),
                Some(ms(expected)),
                "{granularity:?}"
            );
        }
        let before = ms("1969-12-31T23:59:59.999Z");
        assert_eq!(
            Granularity::Week.truncate(before),
            Some(ms("1969-12-29T00:00:00Z"))
        );
        assert_eq!(
            Granularity::Quarter.truncate(before),
            Some(ms("1969-10-01T00:00:00Z"))
        );
        assert_eq!(Granularity::Second.truncate(-1), Some(-1_000));
        assert_eq!(Granularity::Year.truncate(i64::MAX), None);
        assert_eq!(Granularity::Day.truncate(i64::MIN), None);
        assert_eq!(Granularity::Week.truncate(i64::MIN), None);
    }

    #[test]
    fn names_of_columns_go_both_ways() {
        for granularity in Granularity::ALL {
            let name = granularity.column_of("ts");
            assert_eq!(Granularity::of_column(&name), Some(("ts", granularity)));
        }
        for other in ["ts", "$ts", "$ts$", "$ts$DECADE", "$segmentName"] {
            assert_eq!(Granularity::of_column(other), None, "{other}");
        }
    }
}
