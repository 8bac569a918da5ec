use super::*;
use proptest::prelude::*;

fn run(text: &str, fields: &[(&str, Cell<'static>)]) -> Result<Cell<'static>, String> {
    let transforms = Transforms::parse([("out", text)]).map_err(|(_, e)| e.message().to_owned())?;
    let names: Vec<&str> = std::iter::once("out")
        .chain(fields.iter().map(|(name, _)| *name))
        .collect();
    let mut cells: Vec<Cell<'static>> = std::iter::once(Cell::Null)
        .chain(fields.iter().map(|(_, cell)| cell.clone()))
        .collect();
    let bound = transforms
        .bind(|name| names.iter().position(|n| *n == name))
        .map_err(|e| e.message().to_owned())?;
    bound.iter().try_for_each(|b| b.apply(&mut cells))?;
    Ok(cells.swap_remove(0))
}

fn text(value: &str) -> Cell<'static> {
    Cell::Text(value.to_owned().into())
}

#[test]
fn functions_give_what_pinots_give() {
    let day = 86_400_000;
    let cases = [
        ("fromEpochDays(d)", Cell::Integer(16_092 * day)),
        ("FROM_EPOCH_DAYS(d)", Cell::Integer(16_092 * day)),
        ("fromEpochHoursBucket(2, 12)", Cell::Integer(day)),
        ("toEpochDays(ms)", Cell::Integer(16_092)),
        ("toEpochDays(-1)", Cell::Integer(-1)),
        ("toEpochHoursRounded(3 * 3600000 + 5, 2)", Cell::Integer(2)),
        ("toEpochHoursBucket(5 * 3600000, 2)", Cell::Integer(2)),
        (
            "toDateTime(ms, 'yyyy-MM-dd HH:mm')",
            text("2014-01-22 10:00"),
        ),
        (
            "toDateTime(ms, 'yyyy-MM-dd HH', '-11:00')",
            text("2014-01-21 23"),
        ),
        (
            "fromDateTime('20140122', 'yyyyMMdd')",
            Cell::Integer(16_092 * day),
        ),
        (
            "dateTimeConvert(ms, '1:MILLISECONDS:EPOCH', '1:DAYS:SIMPLE_DATE_FORMAT:yyyyMMdd', '1:DAYS')",
            text("20140122"),
        ),
        ("round(1234, 100)", Cell::Integer(1_200)),
        ("concat(upper(s), lower('XY'), '-')", text(" ABC -xy")),
        ("concat(trim(s), 'z')", text("Abcz")),
        ("strlen(s)", Cell::Integer(5)),
        ("substr(s, 1, 3)", text("Ab")),
        ("substr(s, 2)", text("bc ")),
        ("substr(s, 9, 2)", text("")),
        ("replace(s, 'b', 'xx')", text(" Axxc ")),
        ("reverse('abc')", text("cba")),
        ("plus(1, 2, d)", Cell::Integer(16_095)),
        ("1 + 2 * 3 - -4", Cell::Integer(11)),
        ("(1 + 2) * 3 % 5", Cell::Integer(4)),
        ("7 / 2", Cell::Double(3.5)),
        ("abs(-2.5)", Cell::Double(2.5)),
        ("ceil(1.2) + floor(1.8)", Cell::Double(3.0)),
        ("greatest(1, 3, 2) - least(4, 1e0)", Cell::Double(2.0)),
        ("\"d\" + 0", Cell::Integer(16_092)),
        ("upper(missing)", Cell::Null),
        ("'it''s'", text("it's")),
        ("jsonPathString(doc, '$.a.b[1]')", text("x\"y")),
        (
            "jsonPathString(doc, '$.a')",
            text("{\"b\":[1,\"x\\\"y\",{\"c d\":2.50}]}"),
        ),
        (
            "jsonPathDouble(doc, '$.a.b[2][\'\'c d\'\']')",
            Cell::Double(2.5),
        ),
        ("jsonPathLong(doc, '$.a.b[0]', 7)", Cell::Integer(1)),
        ("jsonPathLong(doc, '$.nowhere', 7)", Cell::Integer(7)),
        ("jsonPathLong(doc, '$.nothing')", Cell::Null),
        ("jsonFormat(list)", text("[1,\"a\\\"b\",null]")),
    ];
    let fields = [
        ("d", text("16092")),
        ("ms", Cell::Timestamp(16_092 * day + 36_000_000)),
        ("s", text(" Abc ")),
        ("missing", Cell::Null),
        (
            "doc",
            text(r#"{"a":{"b":[1,"x\"y",{"c d":2.50}]}, "nothing": null}"#),
        ),
        (
            "list",
            Cell::List(vec![Cell::Integer(1), text("a\"b"), Cell::Null]),
        ),
    ];
    for (expression, expected) in cases {
        assert_eq!(run(expression, &fields), Ok(expected), "{expression}");
    }
}

#[test]
fn what_can_not_be_run_is_refused_with_its_place() {
    for (expression, part) in [
        ("jsonPathString(a, '$..b')", "not supported: the JSON path"),
        (
            "jsonPathString(a, '$.b[*]')",
            "not supported: the JSON path",
        ),
        ("Groovy({a + b}, a, b)", "not supported: Groovy"),
        ("now()", "not supported: now()"),
        ("frobnicate(a)", "not supported: the function frobnicate"),
        ("fromEpochDays(a, b)", "takes 1 arguments, not 2"),
        ("toDateTime(a, b)", "must be a text in single quotes"),
        ("toDateTime(a, 'EEE')", "not supported: 'EEE'"),
        ("upper(a", "expected ',' or ')'"),
        ("a b", "at character 3: 'b' is not expected"),
        ("'a", "quote is not closed"),
        ("1x", "'1x' is not a number"),
        ("", "ends too early"),
        ("upper(out)", "reads the column itself"),
    ] {
        let error = run(expression, &[]).expect_err(expression);
        assert!(error.contains(part), "{expression}: {error}");
    }
    for (expression, part) in [
        ("9223372036854775807 + 1", "64-bit"),
        ("1 / 0", "divided by 0"),
        ("fromDateTime('2014', 'yyyyMMdd')", "is no date"),
        ("round(1, 0)", "not above 0"),
        ("plus('a', 1)", "is not a number"),
        ("fromEpochDays(9223372036854775807)", "outside the range"),
    ] {
        let error = run(expression, &[]).expect_err(expression);
        assert!(error.contains(part), "{expression}: {error}");
    }
    let deep = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
    assert!(
        run(&deep, &[])
            .expect_err("deep")
            .contains("nested too deep")
    );
    let minus = "-".repeat(10_000);
    assert!(
        run(&minus, &[])
            .expect_err("minus")
            .contains("nested too deep")
    );
}

#[test]
fn transforms_run_after_those_they_read_and_never_in_a_circle() {
    let transforms = Transforms::parse([("b", "a + 1"), ("a", "x * 2")]).unwrap();
    assert_eq!(transforms.columns().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(transforms.sources(), ["a", "x"]);
    let (number, error) = Transforms::parse([("a", "b"), ("b", "a")]).unwrap_err();
    assert!(number == 0 && error.message().contains("circle"));
    assert_eq!(
        Transforms::parse([("a", "1"), ("a", "2")]).unwrap_err().0,
        1
    );
}

#[test]
fn a_column_that_the_source_brings_is_left_alone() {
    let transforms = Transforms::parse([("out", "x + 1")]).unwrap();
    let bound = transforms
        .bind(|name| Some(usize::from(name == "x")))
        .unwrap();
    let mut cells = [Cell::Integer(5), Cell::Integer(1)];
    bound[0].apply(&mut cells).unwrap();
    assert_eq!(cells[0], Cell::Integer(5));
}

proptest! {
    #[test]
    fn no_expression_makes_the_reader_panic(text in "[a-c0-9'\"(),+*/%. -]{0,40}", odd in "\\PC{0,30}") {
        let fields = [("a", Cell::Integer(3)), ("b", Cell::Null), ("c", Cell::Double(0.5))];
        let _ = run(&text, &fields);
        let _ = run(&odd, &fields);
    }
}
