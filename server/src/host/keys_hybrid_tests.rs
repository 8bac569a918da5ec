//! Keys over both halves of a table, against a model of its rows.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use strandline_proto::v1::{LoadOptions, LoadResult, TimeInterval};

const DAY_MS: i64 = 86_400_000;

fn offline() -> String {
    r#"{"tableName": "t", "tableType": "OFFLINE",
        "segmentsConfig": {"timeColumnName": "ms", "replacedSegmentsRetentionPeriod": "1d"},
        "tableIndexConfig": {"invertedIndexColumns": ["k"], "starTreeIndexConfigs": [{"dimensionsSplitOrder": ["k"],
            "functionColumnPairs": ["COUNT__*", "SUM__v"], "maxLeafRecords": 1}]}}"#
        .to_owned()
}

/// A row: key, comparison value, whether it deletes the key, day.
type Row = (i64, i64, bool, i64);

fn json((k, v, gone, day): Row) -> String {
    let ms = day * DAY_MS + k;
    format!(r#"{{"k": {k}, "v": {v}, "gone": {gone}, "ms": {ms}}}"#)
}

/// Value, push, partition, place.
type Rank = (i64, u64, u32, usize);

/// What is in the table.
#[derive(Default)]
struct Model {
    /// With the partition.
    stream: Vec<(u32, Row)>,
    pushes: BTreeMap<u64, Vec<Row>>,
}

impl Model {
    /// Of each key the row that counts, and whether it was pushed.
    fn winners(&self) -> HashMap<i64, (Row, bool)> {
        let mut ranks: HashMap<i64, (Rank, Row)> = HashMap::new();
        let stream = self.stream.iter().map(|(of, row)| (0, *of, row));
        let pushed = self.pushes.iter();
        let pushed = pushed.flat_map(|(push, rows)| rows.iter().map(|row| (*push, 0, row)));
        for (place, (push, of, row)) in stream.chain(pushed).enumerate() {
            let rank = (row.1, push, of, place);
            let known = ranks.entry(row.0).or_insert((rank, *row));
            if rank > known.0 {
                *known = (rank, *row);
            }
        }
        let counted = ranks.into_iter().filter(|(_, (_, row))| !row.2);
        counted
            .map(|(k, ((_, push, ..), row))| (k, (row, push > 0)))
            .collect()
    }

    /// Rows and the sum of values: of the table, of what was pushed, of the stream.
    fn expected(&self) -> Vec<i64> {
        let winners = self.winners();
        let of = |is_pushed: Option<bool>| {
            let rows = winners.values();
            let rows = rows.filter(|(_, pushed)| is_pushed.is_none_or(|is| is == *pushed));
            let values: Vec<i64> = rows.map(|(row, _)| row.1).collect();
            [values.len() as i64, values.iter().sum()]
        };
        [of(None), of(Some(true)), of(Some(false))].concat()
    }
}

const HALVES: &str = "SELECT a.n, a.s, b.n, b.s, c.n, c.s FROM
    (SELECT count(*) AS n, coalesce(sum(v), 0) AS s FROM t) a,
    (SELECT count(*) AS n, coalesce(sum(v), 0) AS s FROM t_OFFLINE) b,
    (SELECT count(*) AS n, coalesce(sum(v), 0) AS s FROM t_REALTIME) c";

async fn load(engine: &Engine, folder: &Path, rows: &[Row], options: LoadOptions) -> LoadResult {
    let mut text = String::new();
    for row in rows {
        writeln!(text, "{}", json(*row)).unwrap();
    }
    let path = folder.join("rows.json");
    std::fs::write(&path, text).unwrap();
    let loaded = engine.load_local("t", vec![path], options, |_| {}).await;
    loaded.unwrap()
}

fn replacing(day: i64) -> LoadOptions {
    LoadOptions {
        replaced: Some(TimeInterval {
            start_ms: day * DAY_MS,
            end_ms: (day + 1) * DAY_MS,
        }),
        segment_rows_max: 40,
        ..LoadOptions::default()
    }
}

/// Asks without a pause until it is stopped: a key is never there twice, and in either half alone.
fn ask_for_each(engine: &Arc<Engine>) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (asking, stopped) = (Arc::clone(engine), Arc::clone(&stop));
    let asking = tokio::spawn(async move {
        let mut asked = 0;
        while !stopped.load(Ordering::SeqCst) {
            let seen = numbers(&asking, "SELECT count(*), count(DISTINCT k) FROM t").await;
            assert_eq!(seen[0], seen[1], "after {asked} answers");
            // Keys below 20 are always there: a change of a key shows either row of it.
            let always = "SELECT count(*) FROM t WHERE k < 20";
            assert_eq!(
                numbers(&asking, always).await,
                [20],
                "after {asked} answers"
            );
            let halves = "SELECT count(*), count(DISTINCT k) FROM
                (SELECT k FROM t_OFFLINE UNION ALL SELECT k FROM t_REALTIME) u";
            let seen = numbers(&asking, halves).await;
            assert_eq!(seen[0], seen[1], "after {asked} answers");
            asked += 1;
        }
        asked
    });
    (stop, asking)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_count_once_over_both_halves_while_days_are_replaced_and_reverted() {
    let seeds = std::env::var("STRANDLINE_KEYS_SEEDS").map_or(1, |text| text.parse().unwrap());
    for seed in 0..seeds {
        both_halves(seed).await;
    }
}

async fn both_halves(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = create(&data, UPSERT).await;
    engine.create_table(&offline()).await.unwrap();
    let mut model = Model::default();
    let mut random = StdRng::seed_from_u64(seed);
    let always = |v| (0..20).map(move |k| (k, v, false, 0));
    let stream: Vec<Row> = always(0).collect();
    append(&engine, 0, stream.iter().map(|row| json(*row))).await;
    model.stream.extend(stream.into_iter().map(|row| (0, row)));
    until(&engine, HALVES, &model.expected()).await;
    let (stop, asking) = ask_for_each(&engine);
    let mut push = 0;
    for step in 0..40_i64 {
        let row = |random: &mut StdRng, day| {
            let k = random.random_range(0..200);
            let gone = k >= 20 && random.random_bool(0.2);
            (k, random.random_range(0..40), gone, day)
        };
        match random.random_range(0..8) {
            0..3 => {
                let of = random.random_range(0..2);
                let rows: Vec<Row> = (0..30).map(|_| row(&mut random, step % 4)).collect();
                append(&engine, of, rows.iter().map(|row| json(*row))).await;
                model.stream.extend(rows.into_iter().map(|row| (of, row)));
                let counted = "SELECT CAST(sum(rows_committed + rows_consuming + rows_compacted) AS BIGINT) FROM system.ingestion";
                until(&engine, counted, &[model.stream.len() as i64]).await;
            }
            3 => {
                engine.force_commit("t").await.unwrap();
            }
            kind => {
                // A day is replaced; its rows of before go, and what they had superseded counts again.
                let day = random.random_range(0..4);
                push += 1;
                let mut rows = BTreeMap::new();
                for _ in 0..random.random_range(1..60) {
                    let row = row(&mut random, day);
                    rows.insert(row.0, row);
                }
                let rows: Vec<Row> = rows.into_values().collect();
                let before = model.pushes.clone();
                for pushed in model.pushes.values_mut() {
                    pushed.retain(|row| row.3 != day);
                }
                model.pushes.insert(push, rows.clone());
                let loaded = load(&engine, folder.path(), &rows, replacing(day)).await;
                if kind == 7 {
                    assert_eq!(
                        numbers(&engine, HALVES).await,
                        model.expected(),
                        "seed {seed}, step {step}"
                    );
                    engine.revert_push("t", &loaded.push_id).await.unwrap();
                    model.pushes = before;
                }
            }
        }
        assert_eq!(
            numbers(&engine, HALVES).await,
            model.expected(),
            "seed {seed}, step {step}"
        );
    }
    stop.store(true, Ordering::SeqCst);
    assert!(asking.await.unwrap() > 10);
    let every = "SET skipUpsert = true; SELECT count(*) FROM t";
    let pushed: usize = model.pushes.values().map(Vec::len).sum();
    let all = model.stream.len() + pushed;
    assert_eq!(numbers(&engine, every).await, [all as i64]);
    let by_key = "SELECT k, count(*), sum(v) FROM t GROUP BY k ORDER BY k LIMIT 1";
    let first = model.winners()[&0].0;
    assert_eq!(numbers(&engine, by_key).await, [0, 1, first.1]);
    let audit = engine.audit("t").await.unwrap();
    assert!(audit.exact, "{audit:?}");
    let kinds = [
        engine
            .delete_rows("t", Some("k = 1"))
            .await
            .unwrap_err()
            .kind(),
        engine.drop_table("t_REALTIME").await.unwrap_err().kind(),
        engine.boundary("t").await.unwrap_err().kind(),
    ];
    let precondition = ErrorKind::FailedPrecondition;
    assert_eq!(kinds, [ErrorKind::Unsupported, precondition, precondition]);
    engine.force_commit("t").await.unwrap();
    engine.shutdown().await;
    drop(engine);
    for is_lost in [false, true] {
        if is_lost {
            std::fs::remove_dir_all(data.join("keys")).unwrap();
        }
        let engine = Engine::open(EngineOptions::new(&data)).await.unwrap();
        until(&engine, HALVES, &model.expected()).await;
        // New rows of the stream go on from there.
        let rows: Vec<Row> = always(100 + i64::from(is_lost)).collect();
        append(&engine, 1, rows.iter().map(|row| json(*row))).await;
        model.stream.extend(rows.into_iter().map(|row| (1, row)));
        until(&engine, HALVES, &model.expected()).await;
        engine.shutdown().await;
    }
    let engine = Engine::open(EngineOptions::new(&data)).await.unwrap();
    engine.drop_table("t_OFFLINE").await.unwrap();
    model.pushes.clear();
    let stream = &model.expected()[..2];
    until(&engine, "SELECT count(*), sum(v) FROM t", stream).await;
    // What is there already is taken in by a half that comes later.
    engine.create_table(&offline()).await.unwrap();
    let rows: Vec<Row> = (0..50).map(|k| (k, 500, k % 7 == 3, 2)).collect();
    load(&engine, folder.path(), &rows, LoadOptions::default()).await;
    model.pushes.insert(1, rows);
    assert_eq!(numbers(&engine, HALVES).await, model.expected());
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realtime_half_with_keys_takes_in_rows_that_were_pushed_before() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::open(EngineOptions::new(folder.path().join("data")))
        .await
        .unwrap();
    engine.put_schema(SCHEMA).await.unwrap();
    engine.create_table(&offline()).await.unwrap();
    let first: Vec<Row> = (0..30).map(|k| (k, 5, false, 0)).collect();
    let second: Vec<Row> = (10..40).map(|k| (k, 5, false, 1)).collect();
    load(&engine, folder.path(), &first, LoadOptions::default()).await;
    load(&engine, folder.path(), &second, LoadOptions::default()).await;
    assert_eq!(numbers(&engine, "SELECT count(*) FROM t").await, [60]);
    engine
        .create_table(&config("REALTIME", UPSERT))
        .await
        .unwrap();
    let by_day = "SELECT count(*), min(ms), max(ms) FROM t WHERE k BETWEEN 10 AND 29";
    until(&engine, "SELECT count(*) FROM t", &[40]).await;
    assert_eq!(
        numbers(&engine, by_day).await,
        [20, DAY_MS + 10, DAY_MS + 29]
    );
    append(
        &engine,
        0,
        [
            json((0, 6, false, 0)),
            json((1, 4, false, 0)),
            json((2, 5, false, 3)),
        ]
        .into_iter(),
    )
    .await;
    let of_stream = "SELECT count(*), min(k), max(k) FROM t_REALTIME";
    until(&engine, of_stream, &[1, 0, 0]).await;
    assert_eq!(numbers(&engine, "SELECT count(*) FROM t").await, [40]);
    engine.shutdown().await;
}
