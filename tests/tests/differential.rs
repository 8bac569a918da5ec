//! Drawn queries over drawn tables, held against plain DataFusion over the same rows.
//!
//! `STRANDLINE_DIFFERENTIAL_QUERIES` sets how many (2,000 otherwise), `STRANDLINE_DIFFERENTIAL_SEED` from which seed on.
//! The long run, with its tally:
//!
//! ```text
//! STRANDLINE_DIFFERENTIAL_QUERIES=20000 cargo test --workspace --test differential drawn_queries_agree -- --nocapture
//! ```
//!
//! A difference is told with its shape. A shape is `(seed * 1,000,000 + round) * 10,000 + number`: the same seed with
//! `STRANDLINE_DIFFERENTIAL_ROUND` at that round and 250 queries draws it again. `duckdb_oracle.py` asks DuckDB.

use std::collections::BTreeMap;
use std::path::PathBuf;
use strandline_tests::answer::{Answer, Cell, compare};
use strandline_tests::directed::statements_for_all;
use strandline_tests::export::write_round;
use strandline_tests::oracle::Oracle;
use strandline_tests::process::number_from;
use strandline_tests::query::{Query, SHAPES_PER_ROUND, named};
use strandline_tests::table::Table;
use strandline_tests::tally::Tally;
use strandline_tests::variants::{Subject, Variant};

/// Queries over one draw of tables: enough for every operator on every column.
const QUERIES_PER_ROUND: u64 = 250;

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
                let seed = round * SHAPES_PER_ROUND + i;
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

#[test]
fn a_round_goes_through_every_operator_on_every_column() {
    for round in 0..16 {
        let t = Table::main(round, round as usize, 100);
        let directed_shapes = QUERIES_PER_ROUND / 2 * 2 / 3;
        assert!(
            statements_for_all(&t) as u64 <= directed_shapes,
            "round {round}"
        );
    }
}

/// The tables of a round, and an oracle that holds them.
fn draw_round(first_seed: u64, round: usize, rows: usize) -> (Table, Table, Oracle) {
    let seed = first_seed + round as u64;
    let t = Table::main(seed, round, rows);
    let u = Table::joined(seed, round, 60, &t);
    let oracle = Oracle::new();
    oracle.put("t", t.visible());
    oracle.put("u", u.visible());
    (t, u, oracle)
}

fn first_shape(first_seed: u64, round: usize) -> u64 {
    (first_seed * 1_000_000 + round as u64) * SHAPES_PER_ROUND
}

/// The query of these seeds with the oracle's answer. Empty answers say little: most of them are left out.
async fn draw_query(
    t: &Table,
    u: &Table,
    oracle: &Oracle,
    (shape, literals): (u64, u64),
) -> Option<(Query, Result<Answer, String>)> {
    let query = Query::draw(t, u, shape, literals);
    let answer = oracle.answer(&named(&query.sql.plain, "t", "u")).await;
    let is_empty = answer.as_ref().is_ok_and(|a| a.rows.is_empty());
    (!is_empty || shape.is_multiple_of(5)).then_some((query, answer))
}

/// What one run of drawn queries found.
#[derive(Default)]
struct Findings {
    tally: Tally,
    wrong: Vec<String>,
    last_wrong: Option<(u64, u64)>,
    types: BTreeMap<String, String>,
}

impl Findings {
    fn wrong(&mut self, seeds: (u64, u64), query: &Query, variant: Variant, sql: &str, what: &str) {
        let plain = &query.sql.plain;
        let mut text = format!(
            "shape {} literals {} ({}, {variant:?}): {what}",
            seeds.0, seeds.1, query.kind
        );
        // The other variants' statements are the same but for the tables' names.
        if self.last_wrong != Some(seeds) {
            text.push_str(&format!("\n  ours:  {sql}\n  plain: {plain}"));
        }
        self.last_wrong = Some(seeds);
        println!("{text}");
        self.wrong.push(text);
    }
}

/// Where queries are asked.
struct Round<'a> {
    subject: &'a Subject,
    oracle: &'a Oracle,
    number: usize,
    t: &'a Table,
    u: &'a Table,
}

/// One query of every variant, and twice of the hybrid one, held against the oracle.
async fn check(
    round: &Round<'_>,
    query: &Query,
    expected: Result<Answer, String>,
    seeds: (u64, u64),
    findings: &mut Findings,
) {
    let subject = round.subject;
    let unlimited = match &query.unlimited {
        Some(sql) => round.oracle.answer(&named(&sql.plain, "t", "u")).await.ok(),
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
            &variant.name(round.t, round.number),
            &variant.name(round.u, round.number),
        );
        let sql = format!("{set}{statement}");
        findings.tally.runs += 1;
        let (ours, statistics) = match subject.ask_guarded(&sql).await {
            Ok((answer, statistics)) => (Ok(answer), Some(statistics)),
            Err(error) => (Err(error), None),
        };
        if let Some(statistics) = statistics {
            findings.tally.cached += u64::from(statistics.plan_cached);
            findings.tally.by_star_tree += u64::from(statistics.star_tree_segments > 0);
        }
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
        // The scan is an aggregation itself.
        if line.contains(", group by=[") {
            continue;
        }
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
    let first_round = number_from("STRANDLINE_DIFFERENTIAL_ROUND", 0);
    println!(
        "{queries} queries from seed {first_seed}, round {first_round} on, {rows} rows a table"
    );
    run(async move {
        let subject = Subject::open().await;
        let mut findings = Findings::default();
        let mut round = first_round as usize;
        while findings.tally.queries < queries {
            let (t, u, oracle) = draw_round(first_seed, round, rows);
            subject.create_variants(&t, round).await;
            subject.create_variants(&u, round).await;
            let until = (findings.tally.queries + QUERIES_PER_ROUND).min(queries);
            let mut seed = first_shape(first_seed, round);
            while findings.tally.queries < until {
                // Each shape twice, with other literals: the second finds the first's plan.
                for literals in [seed, seed ^ 0x5eed] {
                    let seeds = (seed, literals);
                    if let Some((query, expected)) = draw_query(&t, &u, &oracle, seeds).await {
                        let here = Round {
                            subject: &subject,
                            oracle: &oracle,
                            number: round,
                            t: &t,
                            u: &u,
                        };
                        check(&here, &query, expected, seeds, &mut findings).await;
                    }
                }
                seed += 1;
            }
            subject.drop_variants(&t, round).await;
            subject.drop_variants(&u, round).await;
            round += 1;
        }
        println!("{}", findings.tally);
        for (difference, sql) in &findings.types {
            println!("type: {difference}: {sql}");
        }
        assert!(
            findings.wrong.is_empty(),
            "{} of {} runs are wrong; the first: {}",
            findings.wrong.len(),
            findings.tally.runs,
            findings.wrong[0]
        );
        assert!(findings.tally.cached > 0, "no plan was used twice");
        assert!(
            findings.tally.by_star_tree >= queries / 40,
            "star-trees answered only {} runs",
            findings.tally.by_star_tree
        );
        let (rarest, count) = findings.tally.rarest().expect("there are combinations");
        assert!(
            count >= 20 * queries / 20_000,
            "{rarest:?} was used {count} times only"
        );
        let (rarest, count) = findings.tally.rarest_by_nulls().expect("there are some");
        assert!(
            count >= 4 * queries / 20_000,
            "{rarest:?} was used {count} times only"
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

/// Writes tables and queries to the folder that `STRANDLINE_DIFFERENTIAL_EXPORT` names, for `duckdb_oracle.py`.
#[test]
fn drawn_queries_are_exported_when_a_folder_is_named() {
    let Some(folder) = std::env::var_os("STRANDLINE_DIFFERENTIAL_EXPORT").map(PathBuf::from) else {
        return;
    };
    let queries = number_from("STRANDLINE_DIFFERENTIAL_QUERIES", 2_000);
    let first_seed = number_from("STRANDLINE_DIFFERENTIAL_SEED", 1);
    let rows = number_from("STRANDLINE_DIFFERENTIAL_ROWS", 1_200) as usize;
    run(async move {
        let mut exported = 0;
        let mut round = 0;
        while exported < queries {
            let (t, u, oracle) = draw_round(first_seed, round, rows);
            let until = (exported + QUERIES_PER_ROUND).min(queries);
            let mut drawn = Vec::new();
            let mut shape = first_shape(first_seed, round);
            while exported < until {
                if let Some((query, answer)) = draw_query(&t, &u, &oracle, (shape, shape)).await
                    && query.sql.duck.is_some()
                {
                    exported += 1;
                    drawn.push((shape, query, answer.ok()));
                }
                shape += 1;
            }
            write_round(&folder, round, &t, &u, &drawn).expect("the export is written");
            round += 1;
        }
    });
}
