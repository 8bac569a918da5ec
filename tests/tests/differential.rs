//! Drawn queries over drawn tables, held against plain DataFusion over the same rows.
//!
//! `STRANDLINE_DIFFERENTIAL_QUERIES` sets how many (2,000 otherwise), `STRANDLINE_DIFFERENTIAL_SEED` from which seed on.
//! `STRANDLINE_DIFFERENTIAL_EXPORT` names a folder that tables and queries are written to, for `duckdb_oracle.py`.

use std::path::PathBuf;
use strandline_tests::export::write_round;
use strandline_tests::oracle::Oracle;
use strandline_tests::query::{Query, named};
use strandline_tests::table::Table;
use strandline_tests::tally::Tally;

/// Queries over one draw of tables.
const QUERIES_PER_ROUND: u64 = 200;

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
        let export = std::env::var_os("STRANDLINE_DIFFERENTIAL_EXPORT").map(PathBuf::from);
        for round in 0..10 {
            let t = Table::main(round, round as usize, 400);
            let u = Table::joined(round, round as usize, 40, &t);
            let oracle = Oracle::new();
            oracle.put("t", t.visible());
            oracle.put("u", u.visible());
            let mut queries = Vec::new();
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
                queries.push((seed, query, answer.ok()));
            }
            if let Some(folder) = &export {
                write_round(folder, round as usize, &t, &u, &queries)
                    .expect("the export is written");
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
