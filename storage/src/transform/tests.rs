use super::*;
use proptest::prelude::*;
use strandline_proto::schema::DataType;

/// A field that is no column.
fn place(slot: usize) -> Option<FieldPlace> {
    Some(FieldPlace {
        slot,
        data_type: None,
    })
}

fn run(text: &str, fields: &[(&str, Cell<'static>)]) -> Result<Cell<'static>, String> {
    let transforms = Transforms::parse([("out", text)]).map_err(|(_, e)| e.message().to_owned())?;
    let names: Vec<&str> = std::iter::once("out")
        .chain(fields.iter().map(|(name, _)| *name))
        .collect();
    let mut cells: Vec<Cell<'static>> = std::iter::once(Cell::Null)
        .chain(fields.iter().map(|(_, cell)| cell.clone()))
        .collect();
    let bound = transforms
        .bind(|name| place(names.iter().position(|n| *n == name)?))
        .map_err(|e| e.message().to_owned())?;
    (bound.columns().iter()).try_for_each(|b| b.apply(&mut cells))?;
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
        ("a = 1 = 2", "comparisons can't be chained"),
        ("a NOT 5", "expected IN, BETWEEN or LIKE"),
        ("a IS 5", "expected NULL, TRUE, FALSE or DISTINCT FROM"),
        ("a IN ()", "')' is not expected"),
        ("a LIKE b", "expected a pattern in single quotes"),
        ("a LIKE 'x\\'", "ends in its escape character"),
        ("a BETWEEN 1 OR 2", "expected AND"),
        ("CASE WHEN a THEN 1", "expected END"),
        ("CAST(a AS POINT)", "not supported: CAST to 'POINT'"),
        ("CAST(a AS DECIMAL(40, 2))", "no decimal type"),
        ("regexpLike(a, '(')", "the regular expression '('"),
        ("TIMESTAMP 'noon'", "is not a TIMESTAMP"),
        ("a IN (1, now())", "not supported: now()"),
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
        ("'a' < 1", "'a' is not a number"),
        ("1 = TRUE AND 5 = TRUE", "5 is not a BOOLEAN"),
        ("5 AND TRUE", "5 is not a BOOLEAN"),
        ("CAST(2.5 AS INT)", "is not a whole number"),
        ("CAST(3000000000 AS INT)", "outside the range of INT"),
        ("CAST('x' AS JSON)", "is not a JSON document"),
        ("repeat('ab', 9000000000)", "longer than 67108864 bytes"),
        ("lpad('a', 9000000000, 'b')", "longer than 67108864 bytes"),
        ("repeat('ab', -1)", "-1 is below 0"),
        ("year(9223372036854775807)", "outside the years"),
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
        .bind(|name| place(usize::from(name == "x")))
        .unwrap();
    let mut cells = [Cell::Integer(5), Cell::Integer(1)];
    bound.columns()[0].apply(&mut cells).unwrap();
    assert_eq!(cells[0], Cell::Integer(5));
}

proptest! {
    #[test]
    fn no_expression_makes_the_reader_panic(text in "[a-c0-9'\"(),+*/%. -]{0,40}|([a-c0-9 =<>|:(),]|AND|OR|NOT|IN|IS|NULL|BETWEEN|LIKE|CASE|WHEN|THEN|END|CAST| ){0,30}", odd in "\\PC{0,30}") {
        let fields = [("a", Cell::Integer(3)), ("b", Cell::Null), ("c", Cell::Double(0.5))];
        let _ = run(&text, &fields);
        let _ = run(&odd, &fields);
    }
}

/// Fields of the expressions below: `n` is null, `doc` nested, `i`, `d`, `s`, `b` and `t` are columns of types.
fn of_row(text: &str) -> Result<Cell<'static>, String> {
    let fields: [(&str, Cell<'static>, Option<DataType>); 8] = [
        ("n", Cell::Null, None),
        ("doc", Cell::Document("{\"a\":1}".into()), None),
        ("loose", Cell::Number("7.50"), None),
        ("i", text_cell("007"), Some(DataType::Int)),
        ("d", Cell::Number("0.1"), Some(DataType::Double)),
        ("s", Cell::Number("42"), Some(DataType::String)),
        ("b", text_cell("TRUE"), Some(DataType::Boolean)),
        (
            "t",
            text_cell("2014-01-22T10:00:00Z"),
            Some(DataType::Timestamp),
        ),
    ];
    let parsed = parse::expression(text).map_err(|e| e.message().to_owned())?;
    let mut bound = parsed;
    bound
        .bind(&|name: &str| {
            let slot = fields.iter().position(|(field, ..)| *field == name)?;
            let data_type = fields[slot].2;
            Some(FieldPlace { slot, data_type })
        })
        .map_err(|e| e.message().to_owned())?;
    let cells: Vec<Cell<'static>> = fields.iter().map(|(_, cell, _)| cell.clone()).collect();
    bound.evaluate(&cells)
}

fn text_cell(value: &str) -> Cell<'static> {
    Cell::Text(value.to_owned().into())
}

#[test]
fn conditions_know_three_values() {
    let (yes, no, null) = (Some(true), Some(false), None);
    for (expression, expected) in [
        // What a text holds is a number to a column of numbers, and a text to a column of texts.
        ("i = 7", yes),
        ("i < 10", yes),
        ("s < '5'", yes),
        ("s < 5", no),
        ("s = '42'", yes),
        ("b", yes),
        ("NOT b", no),
        ("b = 1", yes),
        ("loose = 7.5", yes),
        ("loose > '10'", no),
        ("d = 0.1", yes),
        ("t >= '2014-01-22'", yes),
        ("t < TIMESTAMP '2014-01-22 10:00:00.001'", yes),
        ("t = 1390384800000", yes),
        ("9007199254740993 = 9007199254740992", no),
        ("9007199254740993 > 9007199254740992", yes),
        ("CAST('NaN' AS DOUBLE) = CAST('NaN' AS DOUBLE)", yes),
        ("CAST('NaN' AS DOUBLE) > CAST('Infinity' AS DOUBLE)", yes),
        ("-0.0 = 0", yes),
        ("'a' <> 'b'", yes),
        ("'a' != 'a'", no),
        ("'a' == 'a'", yes),
        ("'B' < 'a'", yes),
        ("1e30 > CAST(1 AS DECIMAL(38, 20))", yes),
        ("-1e30 > CAST(1 AS DECIMAL(38, 20))", no),
        // Null.
        ("n = 1", null),
        ("n = n", null),
        ("n <> 1", null),
        ("NOT n", null),
        ("n AND FALSE", no),
        ("FALSE AND n", no),
        ("n AND TRUE", null),
        ("n OR TRUE", yes),
        ("n OR FALSE", null),
        ("n IS NULL", yes),
        ("n IS NOT NULL", no),
        ("n IS TRUE", no),
        ("n IS NOT TRUE", yes),
        ("(1 > 2) IS FALSE", yes),
        ("n IS DISTINCT FROM 1", yes),
        ("n IS NOT DISTINCT FROM NULL", yes),
        ("i IS DISTINCT FROM 7", no),
        ("i IN (1, 7)", yes),
        ("i IN (1, 2)", no),
        ("i NOT IN (1, 2)", yes),
        ("i IN (1, NULL)", null),
        ("i NOT IN (1, NULL)", null),
        ("i IN (7, NULL)", yes),
        ("n IN (1)", null),
        ("i BETWEEN 7 AND 7", yes),
        ("i NOT BETWEEN 1 AND 6", yes),
        ("i BETWEEN 8 AND NULL", no),
        ("i BETWEEN 1 AND NULL", null),
        ("NOT NOT i = 7", yes),
        // What is not needed is not looked at.
        ("i = 0 AND 1 / 0 > 1", no),
        ("i = 7 OR 1 / 0 > 1", yes),
        ("'Abc' LIKE 'A%c'", yes),
        ("'Abc' LIKE 'a%'", no),
        ("'Abc' ILIKE 'a%'", yes),
        ("'Abc' NOT LIKE '_b_'", no),
        ("'a%c' LIKE 'a\\%c'", yes),
        ("'abc' LIKE 'a\\%c'", no),
        ("'a%c' LIKE 'a!%c' ESCAPE '!'", yes),
        ("'' LIKE '%'", yes),
        ("'aXbXc' LIKE '%X_'", yes),
        ("'aaaa' LIKE '%a_a'", yes),
        ("n LIKE '%'", null),
        ("regexpLike('abc123', '[0-9]{3}$')", yes),
        // Pinot's spelling.
        ("equals(i, 7)", yes),
        ("notEquals(i, 7)", no),
        ("greaterThan(i, 6)", yes),
        ("greater_than_or_equal(i, 7)", yes),
        ("lessThan(i, 7)", no),
        ("lessThanOrEqual(i, 7)", yes),
        ("and(equals(i, 7), or(isNull(n), 1 = 2), not(1 = 2))", yes),
        ("between(i, 1, 9)", yes),
        ("isNotNull(n)", no),
        ("in(i, 1, 7)", yes),
        ("isDistinctFrom(n, 1)", yes),
        ("startsWith(s, '4')", yes),
        ("endsWith(s, '4')", no),
        ("contains(s, '2')", yes),
        // Precedence.
        ("TRUE OR FALSE AND FALSE", yes),
        ("NOT 1 = 2", yes),
        ("1 + 2 * 3 = 7 AND 'a' || 'b' = 'ab'", yes),
        ("-i = -7", yes),
        ("i::STRING = '7'", yes),
    ] {
        let expected = expected.map_or(Cell::Null, Cell::Boolean);
        assert_eq!(of_row(expression), Ok(expected), "{expression}");
    }
    for (expression, part) in [
        ("doc = 1", "can't be compared with"),
        ("s > 'a' AND doc > 1", "x"),
        ("t = 'noon'", "'noon' is not a TIMESTAMP"),
    ] {
        match of_row(expression) {
            Err(reason) => assert!(reason.contains(part), "{expression}: {reason}"),
            // `s > 'a'` is false, so the document is not looked at.
            Ok(found) => assert!(part == "x" && found == Cell::Boolean(false), "{expression}"),
        }
    }
}

#[test]
fn values_in_sqls_spelling() {
    for (expression, expected) in [
        ("upper('a') || '-' || i", text_cell("A-7")),
        ("'a' || n", Cell::Null),
        ("COALESCE(n, NULL, i, 9)", Cell::Integer(7)),
        ("COALESCE(n, NULL)", Cell::Null),
        ("NULLIF(i, 7)", Cell::Null),
        ("NULLIF(i, 8)", Cell::Integer(7)),
        (
            "CASE WHEN n = 1 THEN 'null' WHEN i > 5 THEN 'large' ELSE 'small' END",
            text_cell("large"),
        ),
        (
            "CASE i WHEN 1 THEN 'one' WHEN 7 THEN 'seven' END",
            text_cell("seven"),
        ),
        ("CASE i WHEN 1 THEN 'one' END", Cell::Null),
        (
            "caseWhen(i = 1, 'one', i = 7, 'seven', 'other')",
            text_cell("seven"),
        ),
        ("CASE WHEN i = 7 THEN 1 ELSE 1 / 0 END", Cell::Integer(1)),
        ("CAST('12' AS INT) + 1", Cell::Integer(13)),
        ("CAST(i AS DOUBLE PRECISION) / 2", Cell::Double(3.5)),
        (
            "CAST('1.5' AS DECIMAL(10, 2))",
            Cell::Decimal {
                unscaled: 150,
                scale: 2,
            },
        ),
        ("cast(i, 'STRING')", text_cell("7")),
        (
            "CAST('2014-01-22' AS TIMESTAMP)",
            Cell::Timestamp(16_092 * 86_400_000),
        ),
        ("b::INT", Cell::Integer(1)),
        (
            "dateTrunc('MONTH', t)",
            Cell::Timestamp(16_071 * 86_400_000),
        ),
        (
            "year(t) * 10000 + month(t) * 100 + day(t)",
            Cell::Integer(20_140_122),
        ),
        (
            "hour(t) + minute(t) + second(t) + millisecond(t)",
            Cell::Integer(10),
        ),
        (
            "dayOfWeek(t) * 1000 + dayOfYear(t) * 10 + quarter(t)",
            Cell::Integer(3_221),
        ),
        ("year(-1)", Cell::Integer(1969)),
        ("splitPart('a,b,c', ',', 1)", text_cell("b")),
        ("splitPart('a', ',', 1)", Cell::Null),
        ("strpos('äbc', 'c') - strpos('a', 'x')", Cell::Integer(3)),
        ("strcmp('a', 'b')", Cell::Integer(-1)),
        (
            "leftSubStr('abc', 2) || rightSubStr('abc', 2)",
            text_cell("abbc"),
        ),
        ("lpad('7', 3, '0') || rpad('ab', 1, 'x')", text_cell("007a")),
        ("repeat('ab', 2)", text_cell("abab")),
        ("power(2, 10) + sign(-3)", Cell::Double(1_023.0)),
        ("greatest(i, loose)", Cell::Double(7.5)),
    ] {
        assert_eq!(of_row(expression), Ok(expected), "{expression}");
    }
    // Words are fields where the grammar has no keyword.
    assert_eq!(
        run(
            "end || \"case\"",
            &[("end", text_cell("a")), ("case", text_cell("b"))]
        ),
        Ok(text_cell("ab"))
    );
}

#[test]
fn a_long_chain_is_refused_before_it_nests_too_deep() {
    for chain in ["1 + ", "1 - ", "TRUE AND ", "'a' || "] {
        let text = chain.repeat(100_000) + "1";
        let error = run(&text, &[]).expect_err(chain);
        assert!(error.contains("more than 256 operators"), "{error}");
    }
    // An operand is compared in each branch.
    let nested = (0..20).fold("a".to_owned(), |inner, _| {
        format!("CASE {inner} WHEN 1 THEN 1 WHEN 2 THEN 2 WHEN 3 THEN 3 END")
    });
    assert!(run(&nested, &[]).is_err());
    let many = format!("1 IN ({})", vec!["2"; 10_000].join(","));
    assert_eq!(run(&many, &[]), Ok(Cell::Boolean(false)));
    let below = "1 + ".repeat(250) + "1";
    assert_eq!(run(&below, &[]), Ok(Cell::Integer(251)));
}

#[test]
fn a_filter_is_true_or_false_and_sees_what_transforms_made() {
    let transforms = Transforms::parse([("out", "x * 2")]).unwrap();
    let transforms = transforms.with_filter("out > 5 AND y IS NULL").unwrap();
    assert_eq!(transforms.sources(), ["out", "x", "y"]);
    let names = ["out", "x", "y"];
    let bound = transforms
        .bind(|name| place(names.iter().position(|n| *n == name)?))
        .unwrap();
    for (x, y, left_out) in [
        (Cell::Integer(3), Cell::Null, true),
        (Cell::Integer(2), Cell::Null, false),
        (Cell::Integer(3), Cell::Integer(1), false),
        (Cell::Null, Cell::Null, false),
    ] {
        let mut cells = [Cell::Null, x, y];
        bound.columns()[0].apply(&mut cells).unwrap();
        assert_eq!(bound.leaves_out(&cells), Ok(left_out), "{cells:?}");
    }
    let failed = bound.leaves_out(&[Cell::Bytes(b"x".as_slice().into()), Cell::Null, Cell::Null]);
    assert!(failed.unwrap_err().starts_with("the filter function: "));
    for wrong in [
        "upper(a)",
        "a + 1",
        "'true'",
        "CASE WHEN a THEN 1 ELSE 2 END",
        "CAST(a AS INT)",
    ] {
        let error = Transforms::default().with_filter(wrong).unwrap_err();
        assert!(
            error.message().contains("neither true nor false"),
            "{wrong}: {error}"
        );
    }
    for right in [
        "a",
        "CAST(a AS BOOLEAN)",
        "CASE WHEN a THEN TRUE END",
        "coalesce(a, FALSE)",
    ] {
        assert!(Transforms::default().with_filter(right).is_ok(), "{right}");
    }
}
