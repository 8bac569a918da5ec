//! Drawn queries over drawn tables, held against plain DataFusion over the same rows.
//!
//! `STRANDLINE_DIFFERENTIAL_QUERIES` sets how many (2,000 otherwise), `STRANDLINE_DIFFERENTIAL_SEED` from which seed on.
//! `STRANDLINE_DIFFERENTIAL_EXPORT` names a folder that tables and queries are written to, for `duckdb_oracle.py`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use strandline_tests::answer::{Answer, Cell, compare};
use strandline_tests::export::write_round;
use strandline_tests::oracle::Oracle;
use strandline_tests::query::{Query, named};
use strandline_tests::table::Table;
use strandline_tests::tally::Tally;
use strandline_tests::variants::{Subject, Variant};

/// Queries over one draw of tables.
const QUERIES_PER_ROUND: u64 = 200;

fn number_from(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}"))
    })
}

/// Runs `work` on a runtime whose threads have room for deep expressions.
fn run<F: Future<Output = ()> + Send + 'static>(work: F) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(async { tokio::spawn(work).await.expect("the test ends well") });
}

#[test]
fn drawn_queries_are_understood_by_the_oracle() {
    run(async {
        let mut tally = Tally::default();
        let mut refused = Vec::new();
        for round in 0..10 {
            let t = Table::main(round, round as usize, 400);
            let u = Table::joined(round, round as usize, 40, &t);
            let oracle = Oracle::new();
            oracle.put("t", t.visible());
            oracle.put("u", u.visible());
            for i in 0..QUERIES_PER_ROUND / 2 {
                let seed = round * QUERIES_PER_ROUND + i;
                let query = Query::draw(&t, &u, seed, seed);
                let sql = named(&query.sql.plain, "t", "u");
                let answer = oracle.answer(&sql).await;
                tally.add(
                    &query,
                    answer.is_err(),
                    answer.as_ref().is_ok_and(|a| a.rows.is_empty()),
                );
                if let Err(error) = &answer
                    && query.kind != "error"
                {
                    refused.push(format!("seed {seed} ({}): {error}\n  {sql}", query.kind));
                }
            }
        }
        println!("{tally}");
        assert!(refused.is_empty(), "{}", refused.join("\n"));
        assert!(tally.barren_percent() < 10.0);
    });
}

#[test]
fn a_shape_drawn_again_differs_in_literals_only() {
    let t = Table::main(1, 1, 200);
    let u = Table::joined(1, 1, 20, &t);
    let without_literals = |sql: &str| {
        let sql = sql.replace("true", "").replace("false", "");
        let mut text = String::new();
        let mut in_quotes = false;
        for c in sql.chars() {
            match c {
                '\'' => in_quotes = !in_quotes,
                _ if in_quotes => {}
                c if c.is_ascii_digit() || "-().".contains(c) => {}
                c => text.push(c),
            }
        }
        text
    };
    for shape in 0..300 {
        let (a, b) = (Query::draw(&t, &u, shape, 1), Query::draw(&t, &u, shape, 2));
        assert_eq!(
            without_literals(&a.sql.plain).replace(['e', 'E'], ""),
            without_literals(&b.sql.plain).replace(['e', 'E'], "")
        );
    }
}

/// What one run of drawn queries found.
#[derive(Default)]
struct Findings {
    tally: Tally,
    wrong: Vec<String>,
    types: BTreeMap<String, String>,
}

impl Findings {
    fn wrong(&mut self, seeds: (u64, u64), query: &Query, variant: Variant, sql: &str, what: &str) {
        self.wrong.push(format!(
            "shape {} literals {} ({}, {variant:?}): {what}\n  ours:  {sql}\n  plain: {}",
            seeds.0, seeds.1, query.kind, query.sql.plain
        ));
    }
}

/// One query of every variant, and twice of the hybrid one, held against the oracle.
async fn check(
    subject: &Subject,
    oracle: &Oracle,
    query: &Query,
    seeds: (u64, u64),
    round: usize,
    tables: (&Table, &Table),
    findings: &mut Findings,
) -> Option<Answer> {
    let expected = oracle.answer(&named(&query.sql.plain, "t", "u")).await;
    let unlimited = match &query.unlimited {
        Some(sql) => oracle.answer(&named(&sql.plain, "t", "u")).await.ok(),
        None => None,
    };
    let empty = expected.as_ref().is_ok_and(|a| a.rows.is_empty());
    findings.tally.add(query, expected.is_err(), empty);
    // Other ways to the same answer: a plan made anew, and all the work above the leaf.
    let extra = match seeds.0 % 4 {
        0 => "SET usePlanCache = false; ",
        1 => "SET useLeafPushdown = false; ",
        _ => "",
    };
    for (run, (variant, set)) in [
        (Variant::Hybrid, ""),
        (Variant::Realtime, ""),
        (Variant::Offline, ""),
        (Variant::Hybrid, extra),
    ]
    .into_iter()
    .enumerate()
    {
        let statement = query.ours(
            &variant.name(tables.0, round),
            &variant.name(tables.1, round),
        );
        let sql = format!("{set}{statement}");
        findings.tally.runs += 1;
        let (ours, statistics) = match subject.ask_guarded(&sql).await {
            Ok((answer, statistics)) => (Ok(answer), Some(statistics)),
            Err(error) => (Err(error), None),
        };
        findings.tally.cached += u64::from(statistics.is_some_and(|s| s.plan_cached));
        match (&ours, &expected) {
            (Ok(ours), Ok(expected)) => {
                if let Err(what) = compare(query, ours, expected, unlimited.as_ref()) {
                    findings.wrong(seeds, query, variant, &sql, &what);
                }
                for (a, b) in ours.types.iter().zip(&expected.types) {
                    if a != b {
                        findings
                            .types
                            .entry(format!("{a} where plain DataFusion has {b}"))
                            .or_insert_with(|| sql.clone());
                    }
                }
            }
            (Err(error), Ok(_)) => {
                findings.wrong(seeds, query, variant, &sql, &format!("refused: {error}"));
            }
            // Plain DataFusion refuses two columns of one name; ours answers, as PostgreSQL does.
            (Ok(_), Err(error)) if error.contains("unique expression names") => {}
            (Ok(_), Err(error)) => findings.wrong(
                seeds,
                query,
                variant,
                &sql,
                &format!("answered where plain DataFusion says: {error}"),
            ),
            (Err(error), Err(_)) => {
                if error.starts_with("Internal") || error.starts_with("panic") {
                    findings.wrong(seeds, query, variant, &sql, &format!("ungraceful: {error}"));
                }
            }
        }
        if run == 0
            && expected.is_ok()
            && let Ok((plan, _)) = subject.ask_guarded(&format!("EXPLAIN {sql}")).await
        {
            findings.tally.explained += 1;
            findings.tally.by_leaf += u64::from(answered_by_leaf(&plan));
        }
    }
    expected.ok()
}

/// Whether every scan's filter and first stage of aggregation run in the leaf: going up from each scan, neither
/// stands before the plan's first breaker.
fn answered_by_leaf(plan: &Answer) -> bool {
    let lines: Vec<String> = plan
        .rows
        .iter()
        .flatten()
        .filter_map(|cell| match cell {
            Cell::Text(text) => Some(text.lines().map(str::to_owned).collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut scans = 0;
    for (at, line) in lines.iter().enumerate() {
        if !line.trim_start().starts_with("LeafExec") {
            continue;
        }
        scans += 1;
        let mut below = depth(line);
        for above in lines[..at].iter().rev() {
            if depth(above) >= below {
                continue;
            }
            below = depth(above);
            let node = above.trim_start();
            if node.starts_with("FilterExec")
                || node.starts_with("AggregateExec") && !node.contains("mode=Final")
            {
                return false;
            }
            if node.starts_with("AggregateExec")
                || node.contains("Join")
                || node.starts_with("Sort")
                || node.contains("Window")
                || node.starts_with("Union")
            {
                break;
            }
        }
    }
    scans > 0
}

#[test]
fn drawn_queries_agree_with_plain_datafusion_in_every_variant() {
    let queries = number_from("STRANDLINE_DIFFERENTIAL_QUERIES", 2_000);
    let first_seed = number_from("STRANDLINE_DIFFERENTIAL_SEED", 1);
    let rows = number_from("STRANDLINE_DIFFERENTIAL_ROWS", 1_200) as usize;
    let export = std::env::var_os("STRANDLINE_DIFFERENTIAL_EXPORT").map(PathBuf::from);
    println!("{queries} queries from seed {first_seed} on, {rows} rows a table");
    run(async move {
        let subject = Subject::open().await;
        let mut findings = Findings::default();
        let mut seed = first_seed * 1_000_000;
        let mut round = 0;
        while findings.tally.queries < queries {
            let table_seed = first_seed + round as u64;
            let t = Table::main(table_seed, round, rows);
            let u = Table::joined(table_seed, round, 60, &t);
            let oracle = Oracle::new();
            oracle.put("t", t.visible());
            oracle.put("u", u.visible());
            subject.create_variants(&t, round).await;
            subject.create_variants(&u, round).await;
            let mut asked = Vec::new();
            let until = (findings.tally.queries + QUERIES_PER_ROUND).min(queries);
            while findings.tally.queries < until {
                seed += 1;
                // Each shape twice, with other literals: the second finds the first's plan.
                for literals in [seed, seed ^ 0x5eed] {
                    let query = Query::draw(&t, &u, seed, literals);
                    // Empty answers say little: most of them are drawn again.
                    let plain = named(&query.sql.plain, "t", "u");
                    if !seed.is_multiple_of(5)
                        && oracle.answer(&plain).await.is_ok_and(|a| a.rows.is_empty())
                    {
                        continue;
                    }
                    let seeds = (seed, literals);
                    let answer = check(
                        &subject,
                        &oracle,
                        &query,
                        seeds,
                        round,
                        (&t, &u),
                        &mut findings,
                    )
                    .await;
                    asked.push((seed, query, answer));
                }
            }
            if let Some(folder) = &export {
                write_round(folder, round, &t, &u, &asked).expect("the export is written");
            }
            subject.drop_variants(&t, round).await;
            subject.drop_variants(&u, round).await;
            round += 1;
        }
        println!("{}", findings.tally);
        for (difference, sql) in &findings.types {
            println!("type: {difference}: {sql}");
        }
        let shown: Vec<&str> = findings.wrong.iter().take(40).map(String::as_str).collect();
        assert!(
            findings.wrong.is_empty(),
            "{} of {} runs are wrong; the first of them:\n{}",
            findings.wrong.len(),
            findings.tally.runs,
            shown.join("\n")
        );
        assert!(
            findings.tally.barren_percent() <= 5.0,
            "too many errors and empty answers"
        );
        assert!(
            findings.tally.leaf_percent() >= 70.0,
            "too few answers by the leaf"
        );
    });
}
