use super::fixture::{Fixture, Numbers};

/// Queries that mean the same in plain DataFusion.
const SHARED: &[&str] = &[
    "SELECT count(*) FROM trips",
    "SELECT count(*), count(Delay), sum(Delay), min(Delay), max(Delay), avg(Delay) FROM trips",
    "SELECT count(*), sum(Delay), min(Carrier) FROM trips WHERE Delay > 1000",
    "SELECT Carrier, count(*), sum(price), avg(price), min(ratio), max(speed), sum(speed) FROM trips GROUP BY Carrier",
    "SELECT Carrier, flag, day, count(*) FROM trips GROUP BY Carrier, flag, day HAVING count(*) > 2",
    "SELECT count(DISTINCT Carrier), count(DISTINCT day), count(*) FROM trips",
    "SELECT flag, count(DISTINCT Carrier), sum(DISTINCT Delay) FROM trips GROUP BY flag",
    "SELECT DISTINCT Carrier, flag FROM trips",
    "SELECT DISTINCT Carrier FROM trips ORDER BY Carrier LIMIT 3",
    "SELECT id, Delay FROM trips WHERE Delay BETWEEN 3 AND 9 OR Carrier = 'AA' AND NOT flag",
    "SELECT id FROM trips WHERE Carrier IN ('AA', 'UA', NULL)",
    "SELECT id FROM trips WHERE Carrier NOT IN ('AA', 'UA')",
    "SELECT id FROM trips WHERE Carrier NOT IN ('AA', NULL)",
    "SELECT id FROM trips WHERE NOT (Delay > 5 AND ratio < 2.5)",
    "SELECT id FROM trips WHERE Delay = 2.5 OR Delay < 1.5 OR Delay >= 40.0",
    "SELECT id FROM trips WHERE ratio = 1 OR ratio > 3",
    "SELECT id FROM trips WHERE speed = 1.25 OR speed > 4",
    "SELECT id FROM trips WHERE price > 12.5 AND price <= 60",
    "SELECT id FROM trips WHERE price = 12.25",
    "SELECT id FROM trips WHERE Carrier LIKE 'a%' OR Carrier LIKE '_A' OR Carrier ILIKE 'd%'",
    "SELECT id FROM trips WHERE Carrier NOT LIKE '%A%'",
    "SELECT id FROM trips WHERE Carrier ~ '^[AD]' OR Carrier !~* 'l'",
    "SELECT id FROM trips WHERE REGEXP_LIKE(Carrier, '^[AD]') OR NOT regexp_like(Carrier, 'l', 'i')",
    "SELECT id FROM trips WHERE ts >= TIMESTAMP '1970-01-03 00:00:00' AND ts < '1970-01-05T12:00:00'",
    "SELECT id FROM trips WHERE ts >= TIMESTAMP '1970-01-03 00:00:00.0005' AND ts < CAST('1970-01-05' AS TIMESTAMP)",
    "SELECT id FROM trips WHERE CAST(ts AS DATE) = DATE '1970-01-04'",
    "SELECT id FROM trips WHERE date_trunc('day', ts) = TIMESTAMP '1970-01-04'",
    "SELECT id FROM trips WHERE flag IS NULL OR flag IS FALSE",
    "SELECT id FROM trips WHERE flag IS NOT TRUE AND Delay IS NOT NULL",
    "SELECT id FROM trips WHERE (Delay IS DISTINCT FROM 3) AND (Delay IS NOT DISTINCT FROM Delay)",
    "SELECT id FROM trips WHERE CASE WHEN Delay > 3 THEN flag ELSE ratio > 1 END",
    "SELECT id, upper(Carrier) || '!' , Delay * 2 + day FROM trips WHERE Delay % 3 = 1",
    "SELECT id FROM trips WHERE coalesce(Delay, 0) + day > 15",
    "SELECT day + 1, sum(Delay + day), max(upper(Carrier)) FROM trips GROUP BY day + 1",
    "SELECT count(*) FILTER (WHERE flag), sum(Delay) FILTER (WHERE Carrier = 'AA' OR ratio IS NULL), avg(ratio) FILTER (WHERE Delay > 0) FROM trips",
    "SELECT Carrier, count(*) FILTER (WHERE flag) FROM trips GROUP BY Carrier",
    "SELECT sum(Delay) + 1, count(*) * 2 FROM trips WHERE day < 5",
    "SELECT id, Delay FROM trips WHERE Delay IS NOT NULL ORDER BY Delay DESC, id LIMIT 7",
    "SELECT id, Delay FROM trips ORDER BY Delay NULLS FIRST, id DESC LIMIT 5 OFFSET 3",
    "SELECT id FROM trips ORDER BY upper(Carrier) NULLS LAST, ratio, id LIMIT 9",
    "SELECT * FROM trips WHERE id < 20",
    "SELECT a.id, b.id FROM trips a JOIN trips b ON a.id = b.id + 1 WHERE a.Delay > b.Delay",
    "SELECT a.Carrier, count(*) FROM trips a LEFT JOIN trips b ON a.day = b.day AND b.flag GROUP BY a.Carrier",
    "SELECT id FROM trips WHERE Delay > (SELECT avg(Delay) FROM trips)",
    "SELECT id FROM trips WHERE day IN (SELECT day FROM trips WHERE Delay > 50)",
    "SELECT Carrier FROM trips t WHERE EXISTS (SELECT 1 FROM trips u WHERE u.id = t.id + 1 AND u.Delay > t.Delay)",
    "WITH x AS (SELECT day, count(*) AS n FROM trips GROUP BY day) SELECT day, n FROM x WHERE n > (SELECT avg(n) FROM x)",
    "SELECT id, row_number() OVER (PARTITION BY Carrier ORDER BY id) FROM trips",
    "SELECT day, sum(Delay) OVER (ORDER BY id) FROM trips WHERE id < 50",
    "SELECT Carrier, flag, count(*) FROM trips GROUP BY ROLLUP (Carrier, flag)",
    "SELECT id FROM trips WHERE day < 5 UNION ALL SELECT id FROM trips WHERE day >= 15",
    "SELECT day FROM trips EXCEPT SELECT day FROM trips WHERE Delay > 0",
    "SELECT stddev(Delay), median(Delay), count(Carrier) FROM trips",
    "SELECT count(*) FROM trips WHERE false",
    "SELECT count(1), count(NULL), sum(1), max(3) FROM trips",
    "SELECT min(flag), max(ts), min(ts), max(flag), bool_and(flag) FROM trips",
    "SELECT 1, 'a' FROM trips LIMIT 2",
    "SELECT day, max(Delay) FROM trips GROUP BY day ORDER BY max(Delay) DESC, day LIMIT 3",
    "SELECT count(*) FROM (SELECT DISTINCT day, Carrier FROM trips)",
    "SELECT avg(CAST(day AS DOUBLE)), sum(CAST(id AS DECIMAL(30, 2))) FROM trips",
    "SELECT avg(CAST(day AS DECIMAL(10, 2))) FROM trips",
    "SELECT id FROM trips WHERE id >= 100 AND id > 110 AND id < 1005 AND id <= 1003",
    "SELECT id FROM trips WHERE CAST(id AS DOUBLE) > 9007199254740993 OR id = 7",
    "SELECT nullif(Carrier, 'AA'), count(*) FROM trips GROUP BY 1",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT sum(CASE WHEN Delay > 0 THEN 1 ELSE 0 END) FROM trips WHERE Carrier <> ''",
];

/// Queries over multi-value columns, which plain DataFusion does not have; the leaf must agree with the plan above it.
const MULTI_VALUE: &[&str] = &[
    "SELECT id FROM trips WHERE tags = 'x'",
    "SELECT id FROM trips WHERE tags != 'x'",
    "SELECT id FROM trips WHERE NOT tags = 'x'",
    "SELECT id FROM trips WHERE tags IN ('x', 'zz')",
    "SELECT id FROM trips WHERE tags NOT IN ('x', 'zz')",
    "SELECT id FROM trips WHERE tags LIKE 'x%'",
    "SELECT id FROM trips WHERE TEXT_MATCH(tags, 'x') OR text_match(Carrier, 'aa OR d*')",
    "SELECT id FROM trips WHERE NOT TEXT_MATCH(tags, '+x -y') AND NOT TEXT_MATCH(Carrier, 'AA~1', 'defaultOperator=AND')",
    "SELECT id, TEXT_MATCH(tags, 'x AND y') FROM trips",
    "SELECT TEXT_MATCH(Carrier, '/[a-d]+/'), count(*) FROM trips GROUP BY 1",
    "SELECT a.id FROM trips a JOIN trips b ON a.id = b.id + 1 WHERE TEXT_MATCH(a.Carrier, 'aa') OR TEXT_MATCH(b.tags, 'x')",
    "SELECT id FROM trips WHERE tags NOT LIKE '%y'",
    "SELECT id FROM trips WHERE tags ~ '^.$' AND tags IS NOT NULL",
    "SELECT id FROM trips WHERE codes > 4",
    "SELECT id FROM trips WHERE 4 < codes",
    "SELECT id FROM trips WHERE codes BETWEEN 2 AND 3",
    "SELECT id FROM trips WHERE codes NOT BETWEEN 2 AND 3",
    "SELECT id FROM trips WHERE codes = 2.0 OR codes >= 4.5",
    "SELECT id FROM trips WHERE codes = day",
    "SELECT id FROM trips WHERE tags = 'x' AND tags = 'y'",
    "SELECT id FROM trips WHERE tags IS NULL",
    "SELECT id FROM trips WHERE tags = NULL",
    "SELECT id, tags = 'x', codes FROM trips",
    "SELECT count(*) FILTER (WHERE tags = 'x'), count(*) FROM trips",
    "SELECT tags, count(*), sum(Delay) FROM trips GROUP BY tags",
    "SELECT tags, codes, count(*) FROM trips WHERE tags = 'x' GROUP BY tags, codes",
    "SELECT tags, Carrier, count(DISTINCT id) FROM trips GROUP BY tags, Carrier HAVING count(*) > 3",
    "SELECT codes, sum(price) AS p FROM trips GROUP BY codes ORDER BY p DESC, codes LIMIT 3",
    "SELECT tags, count(tags) FROM trips GROUP BY tags",
    "SELECT cardinality(codes), count(*) FROM trips GROUP BY cardinality(codes)",
    "SELECT a.tags, count(*) FROM trips a JOIN trips b ON a.id = b.id WHERE b.codes = 3 GROUP BY a.tags",
];

#[tokio::test]
async fn answers_are_those_of_plain_datafusion() {
    let mut wrong = Vec::new();
    for seed in [1, 2] {
        let fixture = Fixture::new(seed);
        for sql in SHARED {
            let expected = fixture
                .plain_rows(sql)
                .await
                .unwrap_or_else(|e| panic!("{sql}: plain: {e}"));
            // The second run of a shape is that of a kept plan.
            for options in [
                "",
                "",
                "SET useLeafPushdown = false; ",
                "SET usePlanCache = false; ",
            ] {
                match fixture.rows(&format!("{options}{sql}")).await {
                    Ok(answer) if answer == expected => {}
                    Ok(answer) => wrong.push(format!(
                        "seed {seed}: {options}{sql}\n{answer:?}\n{expected:?}\n{}",
                        fixture.explain(sql).await
                    )),
                    Err(error) => wrong.push(format!("seed {seed}: {options}{sql}: {error}")),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn leaf_and_fallback_agree_on_multi_value_columns() {
    let fixture = Fixture::new(3);
    for sql in MULTI_VALUE {
        let expected = fixture
            .rows(&format!("SET useLeafPushdown = false; {sql}"))
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let answer = fixture
            .rows(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(answer, expected, "{sql}\n{}", fixture.explain(sql).await);
    }
}

#[tokio::test]
async fn multi_value_predicates_mean_any() {
    let fixture = Fixture::new(4);
    let same = [
        ("tags = 'x'", "array_has(tags, 'x')"),
        ("tags != 'x'", "NOT array_has(tags, 'x')"),
        (
            "tags NOT IN ('x', 'y')",
            "NOT array_has(tags, 'x') AND NOT array_has(tags, 'y')",
        ),
        ("codes > 4", "array_has(codes, 5)"),
        (
            "codes BETWEEN 2 AND 3",
            "array_has(codes, 2) OR array_has(codes, 3)",
        ),
    ];
    for (ours, plain) in same {
        let plain = plain
            .replace(
                "NOT array_has(tags",
                "(cardinality(tags) = 0 OR NOT array_has(tags",
            )
            .to_owned();
        let closed = plain.matches("(cardinality").count();
        let plain = match closed {
            0 => plain,
            1 => format!("{plain})"),
            _ => plain.replace(") AND (", ")) AND (") + ")",
        };
        let expected = fixture
            .plain_rows(&format!("SELECT id FROM trips WHERE {plain}"))
            .await
            .unwrap();
        assert_eq!(
            fixture
                .rows(&format!("SELECT id FROM trips WHERE {ours}"))
                .await
                .unwrap(),
            expected,
            "{ours}"
        );
    }
    let exploded = fixture
        .rows("SELECT tags, count(*) FROM trips GROUP BY tags")
        .await
        .unwrap();
    let unnested = "SELECT x, count(*) FROM (SELECT unnest(tags) AS x FROM trips WHERE cardinality(tags) > 0 UNION ALL SELECT NULL FROM trips WHERE tags IS NULL OR cardinality(tags) = 0) GROUP BY x";
    assert_eq!(exploded, fixture.plain_rows(unnested).await.unwrap());
}

#[tokio::test]
async fn drawn_queries_are_answered_as_plain_datafusion_does() {
    let numbers = &mut Numbers(42);
    let fixture = Fixture::new(5);
    let mut empty = 0;
    let count = std::env::var("STRANDLINE_BROKER_QUERIES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(300);
    for n in 0..count {
        let sql = draw(numbers);
        let expected = fixture.plain_rows(&sql).await;
        let expected = match expected {
            Ok(expected) => expected,
            // Ours may name two columns alike, as PostgreSQL does.
            Err(e) if e.to_string().contains("unique expression names") => continue,
            Err(_) => {
                assert!(fixture.rows(&sql).await.is_err(), "query {n}: {sql}");
                continue;
            }
        };
        empty += usize::from(expected.is_empty());
        let answer = fixture
            .rows(&sql)
            .await
            .unwrap_or_else(|e| panic!("query {n}: {sql}: {e}"));
        assert_eq!(
            answer,
            expected,
            "query {n}: {sql}\n{}",
            fixture.explain(&sql).await
        );
    }
    assert!(
        empty * 4 < count,
        "{empty} of {count} queries have empty answers"
    );
}

fn predicate(n: &mut Numbers, depth: u32) -> String {
    if depth > 0 && n.below(3) == 0 {
        let (a, b) = (predicate(n, depth - 1), predicate(n, depth - 1));
        return match n.below(3) {
            0 => format!("({a} AND {b})"),
            1 => format!("({a} OR {b})"),
            _ => format!("NOT ({a})"),
        };
    }
    let op = *n.pick(&["=", "<>", "<", "<=", ">", ">="]);
    let small = n.below(30) as i64 - 10;
    match n.below(13) {
        0 => format!("Delay {op} {small}"),
        1 => format!("Delay {op} {}.5", small.abs()),
        2 => format!("day {op} {}", n.below(22)),
        3 => format!("ratio {op} {}", n.below(5)),
        4 => format!("price {op} {}.25", n.below(90)),
        5 => format!("Carrier {op} '{}'", n.pick(&["AA", "DL", "", "a%b", "M"])),
        6 => format!(
            "Carrier {} ('AA', '{}')",
            n.pick(&["IN", "NOT IN"]),
            n.pick(&["UA", "QQ"])
        ),
        7 => format!(
            "Carrier {} '{}'",
            n.pick(&["LIKE", "NOT LIKE", "ILIKE"]),
            n.pick(&["%A%", "_L", "a\\%%", "", "u_"])
        ),
        8 => format!(
            "{} IS {}NULL",
            n.pick(&["Delay", "flag", "ts", "ratio"]),
            n.pick(&["", "NOT "])
        ),
        9 => format!(
            "Delay {}BETWEEN {small} AND {}",
            n.pick(&["", "NOT "]),
            small + 12
        ),
        10 => format!("{}flag", n.pick(&["", "NOT "])),
        11 => format!(
            "ts {op} TIMESTAMP '1970-01-{:02} 06:00:00'",
            1 + n.below(20)
        ),
        _ => format!("Delay + day {op} {small}"),
    }
}

fn draw(n: &mut Numbers) -> String {
    let filter = if n.below(5) == 0 {
        String::new()
    } else {
        format!(" WHERE {}", predicate(n, 3))
    };
    let aggregates = [
        "count(*)",
        "count(Delay)",
        "sum(Delay)",
        "min(price)",
        "max(ts)",
        "avg(ratio)",
        "sum(price)",
        "count(DISTINCT Carrier)",
        "avg(Delay)",
        "max(Carrier)",
        "min(flag)",
        "sum(speed)",
    ];
    let keys = [
        "Carrier",
        "flag",
        "day",
        "Delay % 4",
        "speed",
        "upper(Carrier)",
    ];
    match n.below(4) {
        0 => format!("SELECT id, {} FROM trips{filter}", n.pick(&keys)),
        1 => {
            let key = *n.pick(&["Delay", "ratio", "Carrier", "ts", "price"]);
            format!(
                "SELECT id, {key} FROM trips{filter} ORDER BY {key} {}, id LIMIT {}",
                n.pick(&["", "DESC", "NULLS FIRST", "DESC NULLS LAST"]),
                1 + n.below(20)
            )
        }
        2 => {
            let extra = if n.below(2) == 0 {
                format!(" FILTER (WHERE {})", predicate(n, 1))
            } else {
                String::new()
            };
            format!(
                "SELECT {}{extra}, {} FROM trips{filter}",
                n.pick(&aggregates),
                n.pick(&aggregates).replace("count(*)", "count(id)")
            )
        }
        _ => {
            let (a, b) = (*n.pick(&keys[..3]), *n.pick(&keys[3..]));
            format!(
                "SELECT {a}, {b}, {}, count(id) FROM trips{filter} GROUP BY {a}, {b}",
                n.pick(&aggregates)
            )
        }
    }
}
