use super::fixture::Fixture;
use crate::{BrokerOptions, QueryRequest};
use futures::{StreamExt, TryStreamExt};
use std::sync::atomic::Ordering;
use std::time::Duration;
use strandline_proto::ErrorKind;
use strandline_proto::leaf::LeafOutput;
use strandline_proto::value::Value;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn each_row_is_seen_once_and_hidden_ones_are_counted() {
    let fixture = Fixture::new(7);
    let answer = fixture
        .broker
        .query(QueryRequest::new("SELECT count(*) FROM trips"))
        .await
        .unwrap();
    let stats = answer.statistics.clone();
    let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
    assert_eq!(
        super::fixture::texts(&batches),
        [fixture.visible.to_string()]
    );
    let finished = stats.finished();
    assert_eq!(
        (
            finished.hidden_offline_rows as usize,
            finished.hidden_realtime_rows as usize
        ),
        fixture.hidden
    );
    assert_eq!(
        (
            finished.rows_returned,
            finished.catalog_version,
            finished.coverage.len()
        ),
        (1, 3, 1)
    );
    assert_eq!(
        fixture
            .rows("SELECT count(*) FROM trips_REALTIME")
            .await
            .unwrap(),
        [fixture.realtime.to_string()]
    );
    let halves = fixture
        .rows("SELECT count(*) FROM trips_offline")
        .await
        .unwrap()[0]
        .parse::<usize>()
        .unwrap();
    assert_eq!(
        halves + fixture.realtime - fixture.hidden.0 - fixture.hidden.1,
        fixture.visible
    );
}

#[tokio::test]
async fn filters_and_aggregates_reach_the_leaf() {
    let fixture = Fixture::new(8);
    fixture.rows("SELECT Carrier, sum(Delay), avg(ratio) FROM trips WHERE Delay > 3 AND tags = 'x' GROUP BY Carrier").await.unwrap();
    fixture
        .rows("SELECT tags, count(*) FROM trips GROUP BY tags")
        .await
        .unwrap();
    fixture
        .rows("SELECT count(DISTINCT Carrier), max(day + 1) FROM trips")
        .await
        .unwrap();
    fixture
        .rows("SELECT DISTINCT Carrier FROM trips")
        .await
        .unwrap();
    {
        let queries = fixture.leaf.queries.lock();
        assert_eq!(queries.len(), 4);
        assert!(
            queries
                .iter()
                .all(|q| matches!(q.work.output, LeafOutput::Aggregate { .. })),
            "{queries:#?}"
        );
    }
    fixture
        .rows("SELECT id FROM trips ORDER BY Delay DESC LIMIT 3")
        .await
        .unwrap();
    let queries = fixture.leaf.queries.lock();
    assert!(
        matches!(&queries[4].work.output, LeafOutput::Rows { limit: Some(3), order, .. } if order.len() == 1)
    );
}

#[tokio::test]
async fn result_columns_are_named_as_written() {
    let fixture = Fixture::new(9);
    let names = async |sql: &str| {
        let answer = fixture
            .broker
            .query(QueryRequest::new(sql))
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        answer
            .schema
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names("SELECT sum(delay), COUNT(*), carrier, upper(Carrier) FROM Trips GROUP BY carrier")
            .await,
        ["sum(delay)", "COUNT(*)", "Carrier", "upper(Carrier)"]
    );
    assert_eq!(
        names("SELECT count(*), count(*), 1, id, id FROM trips GROUP BY id").await,
        ["count(*)", "count(*)", "1", "id", "id"]
    );
    assert_eq!(
        names("SELECT a.id, b.id FROM trips a JOIN trips b ON a.id = b.id").await,
        ["id", "id"]
    );
    assert_eq!(
        names("SELECT $docId, \"$segment\" FROM trips").await,
        ["$docId", "$segment"]
    );
    assert!(
        !names("SELECT * FROM trips")
            .await
            .iter()
            .any(|n| n.starts_with('$'))
    );
    assert_eq!(
        names("SELECT \"sum(Delay)\" FROM (SELECT sum(Delay) FROM trips)").await,
        ["sum(Delay)"]
    );
}

#[tokio::test]
async fn virtual_columns_are_selected_and_filtered_by_name() {
    let fixture = Fixture::new(10);
    let rows = fixture.rows("SELECT $segment, count(*), min($offset) FROM trips WHERE $docId < 10 GROUP BY $segment").await.unwrap();
    assert!(
        rows.iter().any(|r| r.starts_with("old_0|10|NULL")),
        "{rows:?}"
    );
}

#[tokio::test]
async fn errors_name_the_place_and_the_nearest_names() {
    let fixture = Fixture::new(11);
    let error = async |sql: &str| match fixture.rows(sql).await {
        Err(error) => error.message().to_owned(),
        Ok(rows) => panic!("{sql} gave {rows:?}"),
    };
    assert_eq!(
        error("SELECT Delai FROM trips").await,
        "line 1, column 8: no column Delai; did you mean Delay?"
    );
    assert_eq!(
        error("SELECT id FROM trips\n WHERE t.x = 1").await,
        "line 2, column 10: no column t.x"
    );
    assert_eq!(
        error("SELECT id FROM tripz").await,
        "line 1, column 16: no table tripz; did you mean trips?"
    );
    assert_eq!(
        error("SELECT sun(id) FROM trips").await,
        "line 1, column 8: no function sun; did you mean sin, sum?"
    );
    assert!(
        error("SELECT id FROM trips WHERE flag > 3 AND codes = 'a b' AND nofunc(id)")
            .await
            .contains("no function nofunc")
    );
    assert!(
        error("SELECT id FROM trips a JOIN trips b ON a.id = b.id")
            .await
            .contains("the column id is ambiguous")
    );
    assert!(
        error("SELECT id, count(*) FROM trips")
            .await
            .contains("GROUP BY"),
        "{}",
        error("SELECT id, count(*) FROM trips").await
    );
    assert_eq!(
        error("SELECT id FROM trips WHERE JSON_MATCH(Delay, 'x')").await,
        r#"JSON_MATCH takes a column of type JSON or STRING and a filter as text: JSON_MATCH(c, '"$.a.b[*]" = ''x''')"#
    );
    for sql in [
        "COPY trips TO '/tmp/x'",
        "SELECT 1 INTO x",
        "SET nothing = 1; SELECT 1",
    ] {
        error(sql).await;
    }
}

#[tokio::test]
async fn statements_that_are_no_queries() {
    let fixture = Fixture::new(12);
    assert_eq!(fixture.rows("SHOW TABLES").await.unwrap(), ["trips|HYBRID"]);
    assert!(
        fixture
            .rows("DESCRIBE Trips")
            .await
            .unwrap()
            .contains(&"tags|STRING_ARRAY|DIMENSION|false".to_owned())
    );
    assert_eq!(
        fixture.rows("DROP TABLE trips").await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn parameters_are_bound_with_their_types() {
    let fixture = Fixture::new(13);
    let mut request =
        QueryRequest::new("SELECT count(*) FROM trips WHERE Delay > $1 AND Carrier = $2");
    request.parameters = vec![Value::Long(3), Value::String("AA".into())];
    let bound: Vec<_> = fixture
        .broker
        .query(request)
        .await
        .unwrap()
        .batches
        .try_collect()
        .await
        .unwrap();
    assert_eq!(
        super::fixture::texts(&bound),
        fixture
            .rows("SELECT count(*) FROM trips WHERE Delay > 3 AND Carrier = 'AA'")
            .await
            .unwrap()
    );
    let missing = fixture
        .broker
        .query(QueryRequest::new(
            "SELECT count(*) FROM trips WHERE Delay > $1",
        ))
        .await
        .unwrap_err();
    assert!(missing.message().contains("$1"), "{missing}");
}

#[tokio::test]
async fn a_replaced_segment_is_planned_again() {
    let fixture = Fixture::new(14);
    fixture.leaf.gone.store(2, Ordering::Relaxed);
    assert_eq!(
        fixture.rows("SELECT count(*) FROM trips").await.unwrap(),
        [fixture.visible.to_string()]
    );
    fixture.leaf.gone.store(1000, Ordering::Relaxed);
    assert_eq!(
        fixture
            .rows("SELECT count(*) FROM trips")
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn deadlines_and_callers_end_the_work() {
    let fixture = Fixture::new(15);
    fixture.leaf.stuck.store(1, Ordering::Relaxed);
    let late = fixture
        .rows("SET timeoutMs = 30; SELECT count(*) FROM trips")
        .await
        .unwrap_err();
    assert_eq!(late.kind(), ErrorKind::DeadlineExceeded);
    assert!(late.message().contains("30 ms"), "{late}");
    fixture.leaf.stuck.store(1, Ordering::Relaxed);
    let request = QueryRequest {
        cancel: CancellationToken::new(),
        ..QueryRequest::new("SELECT count(*) FROM trips")
    };
    let cancel = request.cancel.clone();
    let (answer, ()) = tokio::join!(fixture.broker.query(request), async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        cancel.cancel();
    });
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn dropping_an_answer_cancels_its_leaves() {
    let fixture = Fixture::new(16);
    let request = QueryRequest::new("SELECT id FROM trips");
    let mut answer = fixture.broker.query(request).await.unwrap();
    answer.batches.next().await.unwrap().unwrap();
    drop(answer);
}

#[tokio::test]
async fn memory_limits_name_themselves() {
    let fixture = Fixture::with_options(
        17,
        BrokerOptions {
            partitions: 2,
            query_memory_bytes_max: 20_000,
            ..BrokerOptions::default()
        },
    );
    let error = fixture
        .rows("SELECT a.id, b.id FROM trips a, trips b ORDER BY a.Delay, b.Carrier, a.id")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert!(
        error.message().contains("memory limit") && error.message().contains("memoryBytesMax"),
        "{error}"
    );
}

#[tokio::test]
async fn explain_shows_halves_coverage_and_pruning() {
    let fixture = Fixture::new(18);
    let text = fixture
        .explain("SELECT count(*) FROM trips WHERE id < 50")
        .await;
    assert!(text.contains("offline: 1 of 3 segments"), "{text}");
    assert!(
        text.contains(
            "coverage: [1970-01-01T00:00:00Z, 1970-01-11T00:00:00Z); boundary 1970-01-11T00:00:00Z"
        ),
        "{text}"
    );
    assert!(
        text.contains("pruned: 2 offline by min and max of id: old_1, old_2"),
        "{text}"
    );
    assert!(
        text.contains("aggregates=[count(*)], filter=id < 50"),
        "{text}"
    );
    let analyzed = fixture.explain("ANALYZE SELECT count(*) FROM trips").await;
    assert!(
        analyzed.contains(&format!("{} matched", fixture.visible)) && analyzed.contains("rows: 1"),
        "{analyzed}"
    );
}

#[tokio::test]
async fn one_query_sees_one_watermark() {
    let fixture = Fixture::new(19);
    fixture
        .rows("SELECT count(*) FROM trips a JOIN trips b ON a.id = b.id")
        .await
        .unwrap();
    let queries = fixture.leaf.queries.lock();
    assert_eq!(queries.len(), 2);
    assert_eq!(queries[0].tails, queries[1].tails);
}

#[tokio::test]
async fn kept_plans_are_bound_to_new_literals_and_new_snapshots() {
    let fixture = Fixture::new(20);
    let cached = async |sql: &str| {
        let answer = fixture
            .broker
            .query(QueryRequest::new(sql))
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let stats = answer.statistics.clone();
        let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
        (
            super::fixture::texts(&batches),
            stats.finished().plan_cached,
        )
    };
    let shapes = [
        [
            "SELECT Carrier, count(*), sum(Delay) FROM trips WHERE Delay > 3 AND Carrier IN ('AA', 'DL') GROUP BY Carrier",
            "SELECT Carrier, count(*), sum(Delay) FROM trips WHERE Delay > -5 AND Carrier IN ('UA', 'DL') GROUP BY Carrier",
        ],
        [
            "SELECT count(*) FROM trips WHERE tags = 'x' AND codes != 3",
            "SELECT count(*) FROM trips WHERE tags = 'y' AND codes != 1",
        ],
        [
            "SELECT tags, count(*) FROM trips WHERE ratio < 2.5 GROUP BY tags",
            "SELECT tags, count(*) FROM trips WHERE ratio < 1.25 GROUP BY tags",
        ],
        [
            "SELECT id, Delay FROM trips WHERE Delay > 3 ORDER BY Delay DESC, id LIMIT 5",
            "SELECT id, Delay FROM trips WHERE Delay > -4 ORDER BY Delay DESC, id LIMIT 5",
        ],
        [
            "SELECT count(*), min(ts) FROM trips WHERE ts >= TIMESTAMP '1970-01-02 00:00:00' AND ts < TIMESTAMP '1970-01-05T12:00:00Z'",
            "SELECT count(*), min(ts) FROM trips WHERE ts >= TIMESTAMP '1970-01-03 03:04:05.678' AND ts < TIMESTAMP '1970-01-08T00:00:00+02:00'",
        ],
        [
            "SELECT count(*) FROM trips WHERE ts BETWEEN DATE '1970-01-02' AND DATE '1970-01-06'",
            "SELECT count(*) FROM trips WHERE ts BETWEEN DATE '1969-12-31' AND DATE '1970-01-04'",
        ],
        [
            "SELECT count(*) FROM trips WHERE ts > CAST('1970-01-03 05:00:00' AS TIMESTAMP(3)) AND ts != '1970-01-04'::timestamp(0)",
            "SELECT count(*) FROM trips WHERE ts > CAST('1970-01-04' AS TIMESTAMP(3)) AND ts != '1970-01-06 01:00:00'::timestamp(0)",
        ],
        [
            "SELECT Carrier, sum(Delay) s FROM trips WHERE Delay < 9 GROUP BY Carrier ORDER BY s DESC, Carrier LIMIT 2 OFFSET 1",
            "SELECT Carrier, sum(Delay) s FROM trips WHERE Delay < 2 GROUP BY Carrier ORDER BY s DESC, Carrier LIMIT 2 OFFSET 1",
        ],
    ];
    for shape in shapes {
        for (run, sql) in shape.into_iter().chain(shape).enumerate() {
            // Whether the second is known by the first's text depends on the signs of its numbers.
            if run != 1 {
                assert_eq!(fixture.broker.recalls(sql), run > 1, "{sql}");
            }
            let (rows, kept) = cached(sql).await;
            assert_eq!(kept, run > 0, "{sql}");
            assert_eq!(
                rows,
                fixture
                    .rows(&format!("SET usePlanCache = false; {sql}"))
                    .await
                    .unwrap(),
                "{sql}"
            );
        }
    }
    // What is not compared in WHERE is part of the text; a comment makes it one that is parsed.
    for (sql, recalled) in [
        (
            "SELECT id, Delay FROM trips WHERE Delay > 0 ORDER BY Delay DESC, id LIMIT 6",
            false,
        ),
        (
            "SELECT id, Delay FROM trips WHERE Delay > 0 ORDER BY Delay DESC, id LIMIT 5 -- five",
            false,
        ),
        (
            "SELECT id, Delay FROM trips WHERE Delay > 0.5 ORDER BY Delay DESC, id LIMIT 5",
            false,
        ),
        (
            "SELECT id, Delay FROM trips WHERE Delay > '0' ORDER BY Delay DESC, id LIMIT 5",
            false,
        ),
        (
            "SELECT id, Delay FROM trips WHERE Delay > 0 ORDER BY Delay DESC, id LIMIT 5",
            true,
        ),
        (
            "SELECT id, Delay FROM trips WHERE Delay > 2147483648000 ORDER BY Delay DESC, id LIMIT 5",
            true,
        ),
    ] {
        assert_eq!(fixture.broker.recalls(sql), recalled, "{sql}");
        let rows = fixture.rows(sql).await.ok();
        let planned = fixture
            .rows(&format!("SET usePlanCache = false; {sql}"))
            .await;
        assert_eq!(rows, planned.ok(), "{sql}");
    }
    // What no timestamp can be is planned with the statement, and fails or answers as it does there.
    for moment in [
        "DATE '9999-12-31'",
        "DATE '0001-01-01'",
        "TIMESTAMP '9999-12-31 00:00:00'",
        "TIMESTAMP '2014-13-01 00:00:00'",
        "TIMESTAMP '1970-01-03 00:00:00.0005'",
        "TIMESTAMP '1969-12-31 23:59:59.999999999'",
        "TIMESTAMP WITH TIME ZONE '1970-01-04 00:00:00+05:00'",
        "TIMESTAMP '1970-01-08 00:00:00' + INTERVAL '400 years'",
        "CAST(NULL AS TIMESTAMP)",
    ] {
        let sql = format!("SELECT count(*) FROM trips WHERE ts < {moment}");
        for _ in 0..2 {
            let kept = fixture.rows(&sql).await;
            let planned = fixture
                .rows(&format!("SET usePlanCache = false; {sql}"))
                .await;
            assert_eq!(kept.ok(), planned.ok(), "{sql}");
        }
    }
    // Literals of another type, or elsewhere than in WHERE, are other shapes; functions of the moment are kept never.
    for sql in [
        "SELECT count(*) FROM trips WHERE Delay > 3.5",
        "SELECT count(*) + 1 FROM trips",
        "SELECT count(*) + 2 FROM trips",
    ] {
        assert!(!cached(sql).await.1, "{sql}");
    }
    for _ in 0..2 {
        assert!(
            !cached("SELECT count(*) FROM trips WHERE ts < now()")
                .await
                .1
        );
        assert!(
            !cached("SELECT a.id FROM trips a JOIN trips b ON a.id = b.id WHERE a.Delay = 3")
                .await
                .1
        );
    }
    let sql = "SELECT count(*) FROM trips WHERE id >= 0";
    assert_eq!(cached(sql).await.0, [fixture.visible.to_string()]);
    let shorter = {
        let mut snapshot = (**fixture.leaf.snapshot.lock()).clone();
        let mut table = (*snapshot.tables["trips"]).clone();
        table.segments.retain(|s| s.name.as_str() != "old_0");
        snapshot
            .tables
            .insert("trips".into(), std::sync::Arc::new(table));
        snapshot.version.0 += 1;
        snapshot
    };
    *fixture.leaf.snapshot.lock() = std::sync::Arc::new(shorter);
    assert_eq!(
        cached(sql).await,
        (vec![(fixture.visible - 100).to_string()], true)
    );
}

#[tokio::test]
async fn pinots_functions_of_time_count_milliseconds() {
    let fixture = Fixture::new(21);
    let rows = fixture.rows("SELECT fromEpochDays(2), toEpochHours(7200000), dateTrunc('day', 90000000), DISTINCTCOUNT(Carrier) FROM trips").await.unwrap();
    assert!(rows[0].starts_with("172800000|2|86400000|"), "{rows:?}");
}

#[tokio::test]
async fn pinots_aggregates_of_lists_are_those_of_their_elements() {
    let fixture = Fixture::new(22);
    let lists = "SELECT Carrier, COUNTMV(codes), SUMMV(codes), minmv(codes), MaxMV(codes), AVGMV(codes), \
                 SUMMV(codes) FILTER (WHERE delay > 0) FROM trips GROUP BY Carrier";
    let elements = r#"SELECT "Carrier", count(x), sum(x), min(x), max(x), avg(x), sum(x) FILTER (WHERE "Delay" > 0)
                    FROM (SELECT "Carrier", "Delay", unnest(codes) AS x FROM trips WHERE cardinality(codes) > 0
                    UNION ALL SELECT "Carrier", "Delay", NULL FROM trips WHERE codes IS NULL OR cardinality(codes) = 0)
                    GROUP BY "Carrier""#;
    let sorted = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    let expected = sorted(fixture.plain_rows(elements).await.unwrap());
    assert!(expected.len() > 3, "{expected:?}");
    for set in ["", "SET useLeafPushdown = false; "] {
        let found = fixture.rows(&format!("{set}{lists}")).await.unwrap();
        assert_eq!(sorted(found), expected);
    }
    let none = fixture
        .rows("SELECT COUNTMV(codes), SUMMV(codes), AVGMV(codes) FROM trips WHERE delay > 1000")
        .await
        .unwrap();
    assert_eq!(none, ["0|NULL|NULL"]);
    let error = fixture.rows("SELECT SUMMV(tags) FROM trips").await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("multi-value column of type INT"), "{error}");
}

#[tokio::test]
async fn a_list_of_the_negative_zero_finds_zeros_wherever_it_is_evaluated() {
    let fixture = Fixture::new(20);
    let zeros = fixture
        .rows("SELECT count(*) FROM trips WHERE ratio = 0.0")
        .await
        .unwrap();
    assert_ne!(zeros, ["0"]);
    for set in ["", "SET useLeafPushdown = false; "] {
        for sql in [
            "SELECT count(*) FROM trips WHERE ratio IN (-0.0, 6e7, 7e7, 8e7, 9e7)",
            "SELECT count(*) FROM trips WHERE NOT (ratio NOT IN (-0.0, 6e7, 7e7, 8e7, 9e7))",
            "SELECT sum(CASE WHEN ratio IN (-0.0, 6e7, 7e7, 8e7, 9e7) THEN 1 ELSE 0 END) FROM trips",
        ] {
            let found = fixture.rows(&format!("{set}{sql}")).await.unwrap();
            assert_eq!(found, zeros, "{set}{sql}");
        }
    }
}

#[tokio::test]
async fn a_statement_at_which_the_planner_panics_is_refused() {
    let fixture = Fixture::new(7);
    let sql = "SELECT id FROM trips WHERE id > (SELECT FROM trips)";
    let error = fixture.rows(sql).await.unwrap_err();
    assert!(error.message().contains("can't be planned"), "{error}");
    assert_eq!(fixture.rows("SELECT 1").await.unwrap().len(), 1);
}
