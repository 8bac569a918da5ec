//! The results as documents.

use super::run::Line;
use crate::load::{CELLS, Loaded};
use crate::ratios::{FLOOR_MS, geometric_mean, ratio};
use crate::results::{Table, number, thousands};
use serde_json::{Map, Value, json};

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) rows: u64,
    pub(super) runs: u32,
    /// Key, title and version of each.
    pub(super) peers: Vec<(&'static str, String, String)>,
    /// What the load into Strandline took.
    pub(super) loaded: Loaded,
    /// What the loads into peers took: key, title, cost.
    pub(super) loads: Vec<(&'static str, String, Loaded)>,
    pub(super) parquet_bytes: u64,
    pub(super) lines: Vec<Line>,
}

impl Report {
    fn mean(&self) -> Option<f64> {
        geometric_mean(self.lines.iter().map(Line::ratio_to_best))
    }

    /// Of the statements that star-trees answered, at least for some segments.
    fn mean_by_star_tree(&self) -> Option<f64> {
        let answered = self
            .lines
            .iter()
            .filter(|line| line.ours.star_tree_segments > 0);
        geometric_mean(answered.map(Line::ratio_to_best))
    }

    fn mean_to(&self, peer: usize) -> Option<f64> {
        let ratios = self
            .lines
            .iter()
            .map(|l| ratio(l.ours.ms, l.peers_ms.get(peer).copied().unwrap_or(f64::NAN)));
        geometric_mean(ratios)
    }

    /// The sizes and loads of all.
    fn loads_json(&self) -> Value {
        let ours = [("strandline", &self.loaded)];
        let theirs = self.loads.iter().map(|(key, _, loaded)| (*key, loaded));
        ours.into_iter()
            .chain(theirs)
            .map(|(key, loaded)| (key.to_owned(), loaded.document()))
            .collect::<Map<_, _>>()
            .into()
    }

    /// `ssb.json`.
    pub(super) fn document(&self) -> Value {
        let mut queries = Map::new();
        for line in &self.lines {
            let times: Map<String, Value> = self
                .peers
                .iter()
                .zip(&line.peers_ms)
                .map(|((key, _, _), ms)| ((*key).to_owned(), json!(ms)))
                .collect();
            let document = json!({
                "strandline_ms": line.ours.ms,
                "strandline_in_process_ms": line.ours.in_process_ms,
                "star_tree_segments": line.ours.star_tree_segments,
                "peers_ms": times,
                "ratio_to_best": line.ratio_to_best(),
                "plan_cached": line.ours.plan_cached,
            });
            queries.insert(line.name.clone(), document);
        }
        let versions: Map<String, Value> = self
            .peers
            .iter()
            .map(|(key, _, version)| ((*key).to_owned(), json!(version)))
            .collect();
        let means: Map<String, Value> = self
            .peers
            .iter()
            .enumerate()
            .map(|(at, (key, _, _))| ((*key).to_owned(), json!(self.mean_to(at))))
            .collect();
        json!({
            "rows": self.rows,
            "runs": self.runs,
            "peers": versions,
            "floor_ms": FLOOR_MS,
            "geometric_mean_ratio_to_best": self.mean(),
            "geometric_mean_ratio_to": means,
            "geometric_mean_ratio_to_best_by_star_tree": self.mean_by_star_tree(),
            "answers_agree": true,
            "debug_build": cfg!(debug_assertions),
            "queries": queries,
            "loads": self.loads_json(),
            "parquet_bytes": self.parquet_bytes,
        })
    }

    /// `ssb.md`.
    pub(super) fn markdown(&self) -> String {
        let titles = self.peers.iter().map(|(_, title, _)| title.as_str());
        let header = ["query", "Strandline", "in process"]
            .into_iter()
            .chain(titles.clone())
            .chain(["ratio"]);
        let mut table = Table::new(header);
        for line in &self.lines {
            let peers = line.peers_ms.iter().map(|ms| number(Some(*ms), 2));
            let mark = if line.ours.star_tree_segments > 0 {
                " *"
            } else {
                ""
            };
            let mut cells = vec![format!("{}{mark}", line.name)];
            cells.push(number(Some(line.ours.ms), 2));
            cells.push(number(Some(line.ours.in_process_ms), 2));
            cells.extend(peers);
            cells.push(number(Some(line.ratio_to_best()), 2));
            table.row(cells);
        }
        let mut means = vec!["mean of ratios".to_owned(), String::new(), String::new()];
        means.extend((0..self.peers.len()).map(|at| number(self.mean_to(at), 2)));
        means.push(number(self.mean(), 2));
        table.row(means);
        let by_star_tree = self.mean_by_star_tree().map(|mean| {
            format!(" Statements with a * were answered by star-trees, in some segments or all; the mean of their ratios is {mean:.3}.")
        });
        format!(
            "# Star Schema Benchmark, flat, {} rows\n\n\
             Strandline over gRPC, beside {}; one statement at a time in the same run; median of {} after the first, milliseconds.\n\
             The ratio is Strandline's time by that of the fastest peer for the statement, times below {FLOOR_MS} ms taken for {FLOOR_MS} ms; \
             the means are geometric, of the ratios to each peer and to the fastest. In process is the part of Strandline's time within the \
             server, from the statement's text to the last of its rows.{}\n\n\
             {}\n![ratios](ssb.svg)\n\n{}",
            thousands(self.rows),
            titles.collect::<Vec<_>>().join(", "),
            self.runs,
            by_star_tree.unwrap_or_default(),
            table.text(),
            self.sizes(),
        )
    }

    fn sizes(&self) -> String {
        let mut table = Table::new(CELLS);
        let ours = ("Strandline", &self.loaded);
        let theirs = self
            .loads
            .iter()
            .map(|(_, title, loaded)| (title.as_str(), loaded));
        let parquet = Loaded {
            rows: self.rows,
            seconds: None,
            bytes: self.parquet_bytes,
        };
        for (name, loaded) in std::iter::once(ours)
            .chain(theirs)
            .chain([("Parquet (zstd)", &parquet)])
        {
            table.row(std::iter::once(name.to_owned()).chain(loaded.cells()));
        }
        format!(
            "Loaded from the Parquet files into tables on disk, Strandline over gRPC into segment files with their inverted indexes.\n\n{}",
            table.text()
        )
    }

    /// `load.json`.
    pub(super) fn load_document(&self) -> Value {
        json!({
            "rows": self.rows,
            "loads": self.loads_json(),
            "parquet_bytes": self.parquet_bytes,
            "debug_build": cfg!(debug_assertions),
        })
    }

    /// `load.md`.
    pub(super) fn load_markdown(&self) -> String {
        format!(
            "# Loads of the Star Schema Benchmark, flat, {} rows of 30 columns\n\n{}",
            thousands(self.rows),
            self.sizes()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssb::run::Timed;

    fn report() -> Report {
        let line = |name: &str, ours_ms: f64, peers_ms: [f64; 2]| Line {
            name: name.to_owned(),
            ours: Timed {
                ms: ours_ms,
                in_process_ms: ours_ms / 2.0,
                plan_cached: true,
                star_tree_segments: u64::from(name == "P1"),
            },
            peers_ms: peers_ms.to_vec(),
        };
        let loaded = |seconds: f64| Loaded {
            rows: 1_000,
            seconds: Some(seconds),
            bytes: 1 << 20,
        };
        Report {
            rows: 1_000,
            runs: 3,
            peers: vec![
                ("duckdb", "DuckDB 2".to_owned(), "2".to_owned()),
                ("pinot", "Pinot 1.5".to_owned(), "1.5".to_owned()),
            ],
            loaded: loaded(0.5),
            loads: vec![("duckdb", "DuckDB 2".to_owned(), loaded(0.25))],
            parquet_bytes: 2 << 20,
            lines: vec![line("Q1.1", 2.0, [4.0, 8.0]), line("P1", 0.1, [8.0, 0.2])],
        }
    }

    #[test]
    fn a_query_has_our_time_and_that_of_each_peer() {
        let document = report().document();
        assert_eq!(document["rows"], 1_000);
        let query = &document["queries"]["Q1.1"];
        assert_eq!(query["strandline_ms"], 2.0);
        assert_eq!(query["peers_ms"], json!({"duckdb": 4.0, "pinot": 8.0}));
        assert_eq!(query["ratio_to_best"], 0.5);
        assert_eq!(document["queries"]["P1"]["ratio_to_best"], 1.0);
        let mean = document["geometric_mean_ratio_to_best"].as_f64().unwrap();
        assert!((mean - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(document["geometric_mean_ratio_to_best_by_star_tree"], 1.0);
        assert_eq!(document["loads"]["strandline"]["rows_per_s"], 2_000.0);
        assert_eq!(document["loads"]["duckdb"]["bytes"], 1 << 20);
        assert!(document["loads"]["pinot"].is_null());
    }

    #[test]
    fn the_loads_have_a_document_of_their_own() {
        let document = report().load_document();
        assert_eq!(document["loads"]["duckdb"]["rows_per_s"], 4_000.0);
        assert_eq!(document["parquet_bytes"], 2 << 20);
        let text = report().load_markdown();
        assert!(
            text.contains("| Strandline | 0.5 | 2,000 | 1.0 | 1048.6 |"),
            "{text}"
        );
        assert!(
            text.contains("| Parquet (zstd) | - | - | 2.0 | 2097.2 |"),
            "{text}"
        );
    }

    #[test]
    fn the_table_has_a_line_for_each_query_and_the_means() {
        let text = report().markdown();
        assert!(
            text.contains("| query | Strandline | in process | DuckDB 2 | Pinot 1.5 | ratio |"),
            "{text}"
        );
        assert!(
            text.contains("| Q1.1 | 2.00 | 1.00 | 4.00 | 8.00 | 0.50 |"),
            "{text}"
        );
        assert!(
            text.contains("| mean of ratios |  |  | 0.18 | 0.50 | 0.71 |"),
            "{text}"
        );
    }
}
