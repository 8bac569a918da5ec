use super::*;
use proptest::prelude::*;
use std::cmp::Ordering;

const DAY: i64 = 86_400_000;

fn ms(text: &str) -> i64 {
    instant::parse_iso(text).expect(text)
}

#[test]
fn both_notations_name_the_same_formats() {
    let days = TimeFormat::Epoch {
        size: 1,
        unit: TimeUnit::Days,
    };
    for text in ["1:DAYS:EPOCH", "EPOCH|DAYS|1", "EPOCH|DAYS"] {
        assert_eq!(TimeFormat::parse(text).unwrap(), days, "{text}");
    }
    assert_eq!(
        TimeFormat::parse("10:SECONDS:EPOCH").unwrap().to_string(),
        "EPOCH|SECONDS|10"
    );
    for text in ["1:MILLISECONDS:TIMESTAMP", "TIMESTAMP"] {
        assert_eq!(
            TimeFormat::parse(text).unwrap(),
            TimeFormat::Timestamp,
            "{text}"
        );
    }
    let hours = TimeFormat::simple_date("yyyy-MM-dd HH:mm", 0).unwrap();
    for text in [
        "1:HOURS:SIMPLE_DATE_FORMAT:yyyy-MM-dd HH:mm",
        "1:HOURS:SIMPLE_DATE_FORMAT:yyyy-MM-dd HH:mm tz(UTC)",
        "SIMPLE_DATE_FORMAT|yyyy-MM-dd HH:mm",
        "SIMPLE_DATE_FORMAT|yyyy-MM-dd HH:mm|UTC",
    ] {
        assert_eq!(TimeFormat::parse(text).unwrap(), hours, "{text}");
    }
    let india = TimeFormat::parse("SIMPLE_DATE_FORMAT|yyyy-MM-dd HH|+05:30").unwrap();
    assert_eq!(
        india.to_ms(&Value::String("2014-01-22 06".into())),
        Some(ms("2014-01-22T00:30"))
    );
    assert_eq!(TimeFormat::parse(&india.to_string()).unwrap(), india);
}

#[test]
fn numbers_of_any_length_are_no_instants() {
    let many = "18446744073709551615";
    for text in [
        format!("2026-05-01T{many}:00:00Z"),
        format!("2026-05-01T00:00:{many}"),
        format!("2026-05-01T00:00:00+{many}:00"),
        format!("2026-05-01T00:00:00+09:{many}"),
    ] {
        assert_eq!(instant::parse_iso(&text), None, "{text}");
    }
}

#[test]
fn what_is_not_read_is_refused_with_its_reason() {
    for (text, part) in [
        (
            "1:MICROSECONDS:EPOCH",
            "not supported: time unit MICROSECONDS",
        ),
        ("1:FORTNIGHTS:EPOCH", "unknown time unit"),
        ("0:DAYS:EPOCH", "size '0'"),
        (
            "1:DAYS:SIMPLE_DATE_FORMAT:yyyy-MM-dd tz(America/New_York)",
            "not supported: time zone 'America/New_York'",
        ),
        ("SIMPLE_DATE_FORMAT|yyyy-MMM-dd", "not supported: 'MMM'"),
        ("SIMPLE_DATE_FORMAT|hh:mm a", "not supported: 'hh'"),
        ("SIMPLE_DATE_FORMAT|yy-MM-dd", "not supported: 'yy'"),
        ("SIMPLE_DATE_FORMAT|MM-dd", "no year"),
        ("SIMPLE_DATE_FORMAT|yyyyMd", "without fixed width"),
        ("SIMPLE_DATE_FORMAT|yyyy-MM-dd'T", "not closed"),
        ("SIMPLE_DATE_FORMAT", "pattern is missing"),
        ("EPOCH", "unit is missing"),
        ("", "use EPOCH"),
        ("1:DAYS", "size:unit:EPOCH"),
    ] {
        let error = TimeFormat::parse(text).expect_err(text);
        assert!(error.message().contains(part), "{text}: {error}");
    }
}

#[test]
fn only_big_endian_patterns_of_fixed_width_are_sortable() {
    for (pattern, sortable) in [
        ("yyyyMMdd", true),
        ("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", true),
        ("yyyyDDD", true),
        ("yyyy", true),
        ("yyyy-MM", true),
        ("dd-MM-yyyy", false),
        ("yyyy-M-d", false),
        ("yyyy-dd", false),
        ("yyyy-MM HH", false),
    ] {
        assert_eq!(
            TimeFormat::simple_date(pattern, 0).unwrap().is_sortable(),
            sortable,
            "{pattern}"
        );
    }
    let days = TimeFormat::parse("1:DAYS:EPOCH").unwrap();
    assert!(days.is_sortable_in(DataType::Int) && !days.is_sortable_in(DataType::String));
    assert!(!days.is_sortable_in(DataType::Timestamp));
    let date = TimeFormat::parse("SIMPLE_DATE_FORMAT|yyyyMMdd").unwrap();
    assert!(date.is_sortable_in(DataType::Int) && date.is_sortable_in(DataType::String));
    assert!(
        TimeFormat::simple_date("yyyy-MM-dd", 0)
            .unwrap()
            .check_type(DataType::Int)
            .is_err()
    );
}

#[test]
fn values_that_write_no_instant_have_none() {
    let date = TimeFormat::parse("SIMPLE_DATE_FORMAT|yyyy-MM-dd").unwrap();
    for text in [
        "2014-02-30",
        "2014-1-02",
        "2014-01-022",
        "x",
        "",
        "0000-01-01",
        "２014-01-01",
    ] {
        assert_eq!(date.to_ms(&Value::String(text.into())), None, "{text}");
    }
    assert_eq!(
        date.to_ms(&Value::String("2014-01-22".into())),
        Some(16_092 * DAY)
    );
    let number = TimeFormat::parse("SIMPLE_DATE_FORMAT|yyyyMMdd").unwrap();
    assert_eq!(number.to_ms(&Value::Int(20_140_122)), Some(16_092 * DAY));
    assert_eq!(number.to_ms(&Value::Int(-1)), None);
    let days = TimeFormat::parse("1:DAYS:EPOCH").unwrap();
    assert_eq!(days.to_ms(&Value::Long(i64::MAX)), None);
    assert_eq!(days.to_ms(&Value::Null), None);
}

#[test]
fn an_instant_is_shown_as_the_column_holds_it() {
    let days = TimeFormat::parse("1:DAYS:EPOCH").unwrap();
    assert_eq!(days.display_ms(16_092 * DAY + 5, DataType::Int), "16092");
    assert_eq!(
        TimeFormat::Timestamp.display_ms(16_092 * DAY, DataType::Timestamp),
        "2014-01-22T00:00:00Z"
    );
}

#[test]
fn bounds_saturate() {
    let days = TimeFormat::parse("1:DAYS:EPOCH").unwrap();
    assert_eq!(
        days.first_at_or_after(i64::MIN, DataType::Int),
        Value::Int(i32::MIN)
    );
    assert_eq!(
        days.first_at_or_after(i64::MAX, DataType::Int),
        Value::Int(i32::MAX)
    );
    assert_eq!(
        days.first_at_or_after(i64::MIN, DataType::Long),
        Value::Long(i64::MIN)
    );
    let date = TimeFormat::parse("SIMPLE_DATE_FORMAT|yyyy-MM-dd").unwrap();
    assert_eq!(
        date.first_at_or_after(i64::MIN, DataType::String),
        Value::String(String::new())
    );
    let last = date.first_at_or_after(i64::MAX, DataType::String);
    assert_eq!(
        compare(&last, &Value::String("9999-12-31".into())),
        Ordering::Greater
    );
    assert_eq!(date.first_at_or_after(TIME_MS_MAX, DataType::String), last);
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Long(a), Value::Long(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        _ => panic!("{a:?} and {b:?} are not of one type"),
    }
}

fn formats() -> impl Strategy<Value = (TimeFormat, DataType)> {
    let of = |text: &str, types: &[DataType]| -> Vec<(TimeFormat, DataType)> {
        types
            .iter()
            .map(|t| (TimeFormat::parse(text).unwrap(), *t))
            .collect()
    };
    let (int, long, text) = (DataType::Int, DataType::Long, DataType::String);
    let all: Vec<_> = [
        of("1:DAYS:EPOCH", &[int, long]),
        of("EPOCH|MINUTES|15", &[int, long]),
        of("EPOCH|SECONDS|1", &[long]),
        of("EPOCH|MILLISECONDS|1", &[long, DataType::Timestamp]),
        of("TIMESTAMP", &[DataType::Timestamp, long]),
        of("SIMPLE_DATE_FORMAT|yyyyMMdd", &[int, long, text]),
        of("SIMPLE_DATE_FORMAT|yyyyMMddHH", &[long, text]),
        of("SIMPLE_DATE_FORMAT|yyyyMMddHHmmssSSS", &[long, text]),
        of("SIMPLE_DATE_FORMAT|yyyy-MM-dd HH:mm:ss|-08:00", &[text]),
        of("SIMPLE_DATE_FORMAT|yyyy-MM-dd'T'HH:mm:ss.S", &[text]),
        of("SIMPLE_DATE_FORMAT|yyyyDDD", &[int, text]),
        of("SIMPLE_DATE_FORMAT|yyyy-MM", &[text]),
        of("SIMPLE_DATE_FORMAT|yyyy", &[int, text]),
    ]
    .concat();
    prop::sample::select(all)
}

fn instants() -> impl Strategy<Value = i64> {
    prop_oneof![
        TIME_MS_MIN + DAY..TIME_MS_MAX - 2 * DAY,
        (-800_000_i64..2_900_000).prop_map(|day| day * DAY),
        (-800_000_i64..2_900_000, -1_i64..=1).prop_map(|(day, near)| day * DAY + near),
        Just(0),
    ]
}

proptest! {
    #[test]
    fn a_value_is_at_or_after_the_bound_exactly_when_its_instant_is((format, data_type) in formats(), t in instants(), other in instants(), near in -3_i64..=3) {
        prop_assert!(format.is_sortable_in(data_type));
        let bound = format.first_at_or_after(t, data_type);
        for instant in [other, t, t.saturating_add(near * DAY), t.saturating_add(near)] {
            let value = format.format_ms(instant, data_type);
            let Some(written) = format.to_ms(&value) else { continue };
            prop_assert!(written <= instant);
            prop_assert_eq!(compare(&value, &bound) != Ordering::Less, written >= t, "{:?} against {:?}", value, bound);
        }
    }

    #[test]
    fn no_text_makes_a_format_or_a_value_panic(text in "\\PC{0,24}", value in "\\PC{0,24}", boundary in "[0-9TZ:. +-]{0,30}") {
        for format in [TimeFormat::parse(&text), TimeFormat::parse(&format!("SIMPLE_DATE_FORMAT|{text}"))].into_iter().flatten() {
            format.to_ms(&Value::String(value.clone()));
            format.first_at_or_after(0, DataType::String);
        }
        let date = TimeFormat::parse("SIMPLE_DATE_FORMAT|yyyy-MM-dd HH:mm:ss.SSS").unwrap();
        date.to_ms(&Value::String(boundary.clone()));
        instant::parse_iso(&boundary);
    }

    #[test]
    fn instants_survive_their_text(t in TIME_MS_MIN..=TIME_MS_MAX) {
        prop_assert_eq!(instant::parse_iso(&instant::format_iso(t)), Some(t));
    }
}
