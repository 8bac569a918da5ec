use super::filter::Condition;
use super::parse::parse;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const ADAM: &str = r#"{
    "name": "adam", "age": 30, "country": "us", "phone": null, "tags": [],
    "addresses": [
        {"number": 112, "street": "main st", "country": "us"},
        {"number": 2, "street": "second st", "country": "us", "floor": {"no": 3}},
        {"number": 3, "street": "third st", "country": "ca"}
    ],
    "skills": ["english", "programming"]
}"#;

fn matches(filter: &str, document: &str) -> bool {
    JsonFilter::parse(filter).unwrap().matches(document)
}

#[test]
fn filters_hold_for_one_record_of_a_document() {
    let yes = [
        r#""$.name" = 'adam'"#,
        r#"name = 'adam'"#,
        r#"$.addresses[0].street = 'main st'"#,
        r#""$['addresses'][0]['street']" = 'main st'"#,
        r#""$.name" IN ('eve', 'adam')"#,
        r#""$.addresses[*].number" = 112"#,
        r#""$.addresses[*].number" = '112'"#,
        r#""$.addresses[*].number" = 112.0"#,
        r#""$.addresses[*].number" = 1.12e2"#,
        r#""$.addresses[*].country" != 'us'"#,
        r#""$.addresses[*].country" <> 'us'"#,
        r#""$.addresses[*].country" NOT IN ('us', 'mx')"#,
        r#"REGEXP_LIKE("$.addresses[*].street", '.*rd st')"#,
        r#"regexp_like("$.name", '[a-d]+m')"#,
        r#""$.age" > 18"#,
        r#""$.age" BETWEEN 30 AND 30.0"#,
        r#""$.age" NOT BETWEEN 31 AND 40"#,
        r#""$.name" >= 'adam' AND "$.name" < 'adan'"#,
        r#""$.name"='adam' AND "$.addresses[*].number"=112"#,
        r#""$.addresses[*].street" = 'third st' AND "$.addresses[*].country" = 'ca'"#,
        r#""$.addresses[*].country" = 'ca' AND "$.skills[*]" = 'english'"#,
        r#""$.addresses[0].number" = 112"#,
        r#""$.addresses[1].floor.no" IS NOT NULL"#,
        r#""$.addresses[0].floor.no" IS NULL"#,
        r#""$.phone" IS NULL"#,
        r#""$.tags[*]" IS NULL"#,
        r#""$.addresses" IS NULL"#,
        r#""$.addresses[*].country" = 'us' AND "$.addresses[*].floor.no" IS NULL"#,
        r#"NOT "$.addresses[*].country" = 'mx'"#,
        r#"NOT (("$.name" = 'eve'))"#,
        r#""$.name" = 'adam' AND NOT "$.addresses[*].country" = 'us'"#,
        r#""$.name" = 'eve' OR ("$.age" = 30 AND NOT ("$.name" = 'eve' OR "$.age" = 31))"#,
        r#""$.nothing" IS NULL AND "$.skills[1]" = 'programming'"#,
    ];
    for filter in yes {
        assert!(matches(filter, ADAM), "{filter}");
    }
    let no = [
        r#""$.name" = 'Adam'"#,
        r#""$.phone" IS NOT NULL"#,
        r#""$.addresses" IS NOT NULL"#,
        r#""$.addresses[*]" IS NOT NULL"#,
        r#""$.addresses.number" = 112"#,
        r#""$.addresses[*].street" = 'main st' AND "$.addresses[*].country" = 'ca'"#,
        r#""$.addresses[0].street" = 'main st' AND "$.addresses[1].street" = 'second st'"#,
        r#""$.addresses[3].number" = 112"#,
        r#""$.phone" != 1"#,
        r#""$.phone" NOT IN (1)"#,
        r#""$.age" > 30"#,
        r#""$.name" > 18"#,
        r#"REGEXP_LIKE("$.name", 'dam')"#,
        r#"NOT "$.addresses[*].country" = 'us'"#,
        r#""$.addresses[*].floor.no" IS NULL"#,
        r#""$.name" = 'adam' AND "$.name" IS NULL"#,
    ];
    for filter in no {
        assert!(!matches(filter, ADAM), "{filter}");
    }
}

#[test]
fn roots_may_be_scalars_lists_or_empty() {
    assert!(matches(r#""$" = 123"#, "123"));
    assert!(matches(r#""$" = 'a"b'"#, r#" "a\"b" "#));
    assert!(matches(r#""$[*]" = 'item1'"#, r#"["item0", "item1"]"#));
    assert!(matches(r#""$[1]" = 'item1'"#, r#"["item0", "item1"]"#));
    assert!(matches(r#""$[1][0]" = true"#, "[[false], [true]]"));
    assert!(!matches(r#""$[0]" = 'item1'"#, r#"["item0", "item1"]"#));
    for empty in ["null", "{}", "[]", "[null, {}]", r#"{"a": [{"b": null}]}"#] {
        assert!(matches(r#""$" IS NULL"#, empty), "{empty}");
        assert!(matches(r#"NOT "$.a" = 1"#, empty), "{empty}");
        assert!(
            !matches(r#""$.a" IS NULL OR "$.b" IS NULL"#, empty),
            "{empty}"
        );
    }
    for wrong in ["", "{", "adam", "[1,]", "1 2", "{'a': 1}"] {
        assert!(!matches(r#""$.a" IS NULL"#, wrong), "{wrong}");
        assert!(!matches(r#""$.a" = 1"#, wrong), "{wrong}");
    }
    assert!(matches(r#""$.a" = 2"#, r#"{"a": 1, "a": 2}"#));
    assert!(matches(r#""$.a" IS NULL"#, r#"{"a": 1, "a": null}"#));
    assert!(matches(
        r#""$['a.b']" = 1 AND "$.a" IS NULL"#,
        r#"{"a.b": 1}"#
    ));
    assert!(!matches(r#""$.a.b" = 1"#, r#"{"a.b": 1}"#));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert!(!matches(r#""$.a" IS NULL"#, &deep));
}

#[test]
fn a_wrong_filter_names_the_character() {
    for (filter, part) in [
        (
            "",
            "expected a path, such as \"$.a.b[*]\", found the end at character 1",
        ),
        (
            "\"$.a\"",
            "expected a comparison, IN, BETWEEN or IS NULL, found the end at character 6",
        ),
        ("\"$.a\" = ", "found the end at character 9"),
        ("\"$.ä\" == 1", "found \"=\" at character 8"),
        ("\"$.a\" = 'x", "a quoted text is not closed at character 9"),
        ("\"$.a = 1", "a quoted path is not closed at character 1"),
        ("'a' = 1", "stands in double quotes"),
        (
            "\"$.a[\" = 1",
            "expected ']' in the path \"$.a[\" at character 1",
        ),
        ("\"$..a\" = 1", "not supported: '..'"),
        ("\"$.a[?(@.b)]\" = 1", "not supported: filters"),
        (
            "\"$.a\" = 1 \"$.b\" = 2",
            "expected AND, OR or the end, found the path \"$.b\" at character 11",
        ),
        ("\"$.a\" = NULL", "write IS NULL"),
        (
            "\"$.a\" = b",
            "expected a number, true, false or a text in single quotes, found \"b\"",
        ),
        ("\"$.a\" = 1x", "\"1x\" is not a number at character 9"),
        ("\"$.a\" = 01", "is not a number"),
        (
            "(\"$.a\" = 1",
            "expected \")\", found the end at character 11",
        ),
        (
            "\"$.a\" BETWEEN 1 AND 'b'",
            "two numbers or two texts at character 15",
        ),
        ("\"$.a\" IN ()", "found \")\" at character 11"),
        ("length(\"$.a\") = 1", "functions other than REGEXP_LIKE"),
        ("REGEXP_LIKE(\"$.a\", '(')", "not supported: the pattern"),
        ("REGEXP_LIKE(\"$.a\", ')|(')", "not supported: the pattern"),
        ("\"$.a\" # 1", "unexpected '#' at character 7"),
    ] {
        let error = JsonFilter::parse(filter)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{filter}: {error}");
    }
    let nested = format!("{}\"$.a\" = 1", "NOT ".repeat(100));
    assert!(JsonFilter::parse(&nested).is_err());
    let many: Vec<_> = (0..14).map(|i| format!("(a{i} = 1 OR b{i} = 2)")).collect();
    let error = JsonFilter::parse(&many.join(" AND "))
        .map(|_| ())
        .unwrap_err();
    assert!(error.to_string().contains("split it"), "{error}");
}

#[test]
fn numbers_have_one_text_each() {
    for (written, text) in [
        ("0", "0"),
        ("-0", "0"),
        ("0.0", "0"),
        ("-0e9", "0"),
        ("7", "7"),
        ("-7.50", "-7.5"),
        ("1e3", "1000"),
        ("1E+3", "1000"),
        ("0.001", "0.001"),
        ("1e-3", "0.001"),
        ("12.5e-1", "1.25"),
        ("1e30", "1e30"),
        ("-1.5e-9", "-1.5e-9"),
        ("100e-2", "1"),
        ("123456789012345678901", "123456789012345678901"),
        ("1234567890123456789012345", "1.234567890123456789012345e24"),
        ("1000000000000000000000000", "1e24"),
        ("0.0000001", "1e-7"),
    ] {
        assert_eq!(canonical(written), text, "{written}");
        assert_eq!(canonical(text), text, "{text}");
    }
    assert!(Number::parse("1e99999999999999999999") > Number::parse("9e999"));
    for no_number in [
        "", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x1", "1 ", "NaN", "1_0",
    ] {
        assert_eq!(Number::parse(no_number), None, "{no_number}");
    }
}

#[test]
fn paths_are_followed_to_values() {
    let text = r#" {"a": {"b c": [10, {"d": "x\ny"}, {"d": null}, {"d": [ 1 , "e f" ]}]}, "a.b": 1.50, "z": {"z": 1, "z": true}} "#;
    let found = |path: &str| extract(text, &JsonPath::parse(path).unwrap()).unwrap();
    assert_eq!(found("$['a.b']"), Found::One(JsonValue::Number("1.50")));
    assert_eq!(found("$.z.z"), Found::One(JsonValue::Boolean(true)));
    assert_eq!(found("$.a.b"), Found::Missing);
    assert_eq!(found("$.a['b c'][0]"), Found::One(JsonValue::Number("10")));
    assert_eq!(
        found("$.a['b c'][1].d"),
        Found::One(JsonValue::Text("x\ny".into()))
    );
    assert_eq!(found("a['b c'][2].d"), Found::One(JsonValue::Null));
    assert_eq!(found("$.a['b c'][9]"), Found::Missing);
    let Found::One(JsonValue::Nested(nested)) = found("$.a[\"b c\"][3]") else {
        panic!("not nested");
    };
    assert_eq!(compact(nested), r#"{"d":[1,"e f"]}"#);
    let Found::Many(all) = found("$.a['b c'][*].d") else {
        panic!("not many");
    };
    assert_eq!(all.len(), 3);
    assert_eq!(
        found("$.a['b c'][3].d").elements().unwrap().unwrap().len(),
        2
    );
    assert_eq!(found("$.nothing[*]"), Found::Missing);
    assert!(extract("{\"a\": 1,}", &JsonPath::parse("$.a").unwrap()).is_err());
    assert_eq!(
        compact(r#"{ "a b" : "c \" : d" , "e":[ ] }"#),
        r#"{"a b":"c \" : d","e":[]}"#
    );
}

/// A place in a record: a field, or the element that was chosen.
#[derive(Clone, Debug)]
enum At {
    Field(String),
    Element(u32),
}

type Record = Vec<(Vec<At>, String)>;

/// All records, made by choosing.
fn records(value: &Value) -> Vec<Record> {
    let under = |at: At, records: Vec<Record>| -> Vec<Record> {
        let place = |(path, text): (Vec<At>, String)| ([vec![at.clone()], path].concat(), text);
        records
            .into_iter()
            .map(|r| r.into_iter().map(place).collect())
            .collect()
    };
    match value {
        Value::Null => vec![],
        Value::Bool(b) => vec![vec![(vec![], b.to_string())]],
        Value::Number(n) => vec![vec![(vec![], canonical(&n.to_string()).into_owned())]],
        Value::String(s) => vec![vec![(vec![], s.clone())]],
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .flat_map(|(i, e)| under(At::Element(i as u32), records(e)))
            .collect(),
        Value::Object(fields) => {
            let mut product: Option<Vec<Record>> = None;
            for (name, value) in fields {
                let of_field = under(At::Field(name.clone()), records(value));
                if of_field.is_empty() {
                    continue;
                }
                let before = product.unwrap_or_else(|| vec![vec![]]);
                product = Some(
                    before
                        .iter()
                        .flat_map(|b| of_field.iter().map(|f| [b.clone(), f.clone()].concat()))
                        .collect(),
                );
            }
            product.unwrap_or_default()
        }
    }
}

fn holds(condition: &Condition, atoms: &[Atom], record: &Record) -> bool {
    match condition {
        Condition::All(parts) => parts.iter().all(|p| holds(p, atoms, record)),
        Condition::Any(parts) => parts.iter().any(|p| holds(p, atoms, record)),
        Condition::Not(inner) => !holds(inner, atoms, record),
        Condition::Atom(atom) => {
            let atom = &atoms[*atom];
            record.iter().any(|(path, text)| {
                path.len() == atom.path.len()
                    && path
                        .iter()
                        .zip(&atom.path)
                        .all(|(at, step)| match (at, step) {
                            (At::Field(a), Step::Field(b)) => a == b,
                            (At::Element(_), Step::Element(Index::Any)) => true,
                            (At::Element(a), Step::Element(Index::At(b))) => a == b,
                            _ => false,
                        })
                    && atom.test.passes(text)
            })
        }
    }
}

fn naive(filter: &str, document: &Value) -> bool {
    let (mut condition, atoms) = parse(filter).unwrap();
    let mut negated = false;
    while let Condition::Not(inner) = condition {
        negated = !negated;
        condition = *inner;
    }
    records(document)
        .iter()
        .any(|r| holds(&condition, &atoms, r))
        != negated
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        2 => any::<bool>().prop_map(Value::from),
        4 => (0i64..4).prop_map(Value::from),
        2 => prop::sample::select(vec![0.5, 1.0, 2.5]).prop_map(Value::from),
        4 => prop::sample::select(vec!["x", "y", "1", "", "yx"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(vec!["a", "b", "c"]), inner), 0..4)
                .prop_map(|fields| json!(
                    fields
                        .into_iter()
                        .collect::<std::collections::BTreeMap<_, _>>()
                )),
        ]
    })
}

fn filters() -> impl Strategy<Value = String> {
    let step = prop::sample::select(vec![".a", ".a", ".b", ".c", "[*]", "[*]", "[0]", "[1]"]);
    let path = prop::collection::vec(step, 0..4).prop_map(|s| format!("\"${}\"", s.concat()));
    let test = prop::sample::select(vec![
        "@ = 'x'",
        "@ = 1",
        "@ != 'x'",
        "@ IN (1, 'y')",
        "@ NOT IN (0, 'x')",
        "@ IS NULL",
        "@ IS NOT NULL",
        "@ > 0",
        "@ BETWEEN 1 AND 2.5",
        "@ NOT BETWEEN 1 AND 2",
        "@ <= 'x'",
        "@ > 'x'",
        "@ = true",
        "REGEXP_LIKE(@, '.*x')",
    ]);
    let condition = (path, test).prop_map(|(path, test)| test.replace('@', &path));
    condition.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|c| format!("({})", c.join(" AND "))),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|c| format!("({})", c.join(" OR "))),
            inner.prop_map(|c| format!("NOT {c}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_filter_holds_exactly_when_it_does_for_a_record(document in documents(), filter in filters()) {
        let found = matches(&filter, &document.to_string());
        prop_assert_eq!(found, naive(&filter, &document), "{} on {}", filter, document);
    }

    #[test]
    fn numbers_are_ordered_as_they_are(a in any::<i64>(), b in -100i64..100, shift in 0usize..4) {
        let text = |n: i64| match shift {
            0 => n.to_string(),
            1 => format!("{n}.000"),
            2 => format!("{n}e0"),
            _ if n == 0 => "0e-1".to_owned(),
            _ => format!("{n}0e-1"),
        };
        let number = |n: i64| Number::parse(&text(n)).unwrap();
        prop_assert_eq!(number(a).cmp(&number(b)), a.cmp(&b));
        prop_assert_eq!(number(b).cmp(&number(b + 1)), std::cmp::Ordering::Less);
        prop_assert_eq!(number(b).text(), b.to_string());
        let written = text(a);
        prop_assert_eq!(canonical(&written), a.to_string());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[\"'$.a\\[\\]*0-9 =<>!(),-]{0,24}|.{0,16}") {
        let _ = JsonFilter::parse(&text);
        let _ = JsonPath::parse(&text);
        prop_assert_eq!(Document::parse(&text).is_ok(), check(&text).is_ok());
        prop_assert_eq!(extract(&text, &JsonPath { steps: vec![] }).is_ok(), check(&text).is_ok());
    }
}

proptest! {
    #[test]
    fn plain_values_are_those_that_are_read_otherwise(
        text in "-?[0-9]{0,20}(\\.[0-9]{0,12})?([eE][0-9])?[ ,}a]?|\"[a-zé\\\\\"]{0,20}\"?",
    ) {
        let (mut plain, mut other) = (JsonReader::new(&text), JsonReader::new(&text));
        if let Some(number) = plain.plain_number() {
            prop_assert!(other.skip_number().is_ok());
            prop_assert_eq!(plain.at(), other.at());
            let read = other.since(0);
            if let Some(integer) = number.integer() {
                prop_assert_eq!(Ok(integer), read.parse());
            }
            if let Some(double) = number.double() {
                prop_assert_eq!(Ok(double.to_bits()), read.parse().map(f64::to_bits));
            }
            if let Some(float) = number.float() {
                prop_assert_eq!(Ok(float.to_bits()), read.parse().map(f32::to_bits));
            }
        } else if let Some(string) = plain.plain_string() {
            prop_assert_eq!(Ok(string.into()), other.string());
            prop_assert_eq!(plain.at(), other.at());
        } else {
            prop_assert_eq!(plain.at(), 0);
        }
    }
}
