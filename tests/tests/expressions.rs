//! Expressions of transforms and filters, drawn at random, against the same in DataFusion.

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use datafusion::arrow::datatypes::Int64Type;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use strandline_storage::config::{TableConfig, parse_schema, parse_table};
use strandline_storage::decode::Decoder;
use strandline_storage::stream::Message;
use strandline_tests::answer::{Answer, Cell};
use strandline_tests::oracle::Oracle;

const ROWS: usize = 80;
const ROUNDS: u64 = 120;
const EXPRESSIONS: usize = 24;

/// What an expression gives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Truth,
    Whole,
    Text,
}

struct Draw(StdRng);

impl Draw {
    fn below(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn whole(&mut self, depth: usize) -> String {
        let depth = depth.saturating_sub(1);
        match self.below(if depth == 0 { 3 } else { 10 }) {
            0 => "a".to_owned(),
            1 => "b".to_owned(),
            2 => self.below(9).to_string(),
            3 => format!("({} + {})", self.whole(depth), self.whole(depth)),
            4 => format!("({} - {})", self.whole(depth), self.whole(depth)),
            5 => format!("(-{})", self.whole(depth)),
            6 => format!("abs({})", self.whole(depth)),
            7 => format!("coalesce({}, {})", self.whole(depth), self.whole(depth)),
            8 => format!("nullif({}, {})", self.whole(depth), self.whole(depth)),
            _ => self.case(depth, Kind::Whole),
        }
    }

    fn number(&mut self, depth: usize) -> String {
        match self.below(4) {
            0 => "x".to_owned(),
            1 => self.one(&["0.5", "2.25", "-1.0"]).to_owned(),
            _ => self.whole(depth),
        }
    }

    fn text(&mut self, depth: usize) -> String {
        let depth = depth.saturating_sub(1);
        match self.below(if depth == 0 { 3 } else { 9 }) {
            0 | 1 => "s".to_owned(),
            2 => format!("'{}'", self.one(&["", "ab", "Ba", "a%b", "_"])),
            3 => format!("({} || {})", self.text(depth), self.text(depth)),
            4 => format!("upper({})", self.text(depth)),
            5 => format!("reverse({})", self.text(depth)),
            6 => format!("coalesce({}, {})", self.text(depth), self.text(depth)),
            7 => format!("replace({}, 'a', 'xy')", self.text(depth)),
            _ => self.case(depth, Kind::Text),
        }
    }

    fn case(&mut self, depth: usize, kind: Kind) -> String {
        let value = |draw: &mut Self| match kind {
            Kind::Whole => draw.whole(depth),
            Kind::Text => draw.text(depth),
            Kind::Truth => draw.truth(depth),
        };
        let branches: String = (0..1 + self.below(2))
            .map(|_| format!("WHEN {} THEN {} ", self.truth(depth), value(self)))
            .collect();
        let other = match self.below(2) {
            0 => String::new(),
            _ => format!("ELSE {} ", value(self)),
        };
        format!("CASE {branches}{other}END")
    }

    fn truth(&mut self, depth: usize) -> String {
        let depth = depth.saturating_sub(1);
        let not = self.one(&["", "NOT "]);
        match self.below(if depth == 0 { 4 } else { 13 }) {
            0 => "f".to_owned(),
            1 => self.one(&["TRUE", "FALSE", "NULL"]).to_owned(),
            2 | 3 => {
                let operator = self.one(&["=", "<>", "<", "<=", ">", ">="]);
                match self.below(3) {
                    0 => format!("{} {operator} {}", self.text(depth), self.text(depth)),
                    _ => format!("{} {operator} {}", self.number(depth), self.number(depth)),
                }
            }
            4 => format!("({} AND {})", self.truth(depth), self.truth(depth)),
            5 => format!("({} OR {})", self.truth(depth), self.truth(depth)),
            6 => format!("(NOT {})", self.truth(depth)),
            7 => format!("({} IS {not}NULL)", self.whole(depth)),
            8 => {
                let word = self.one(&["TRUE", "FALSE"]);
                format!("(({}) IS {not}{word})", self.truth(depth))
            }
            9 => {
                // DataFusion takes the nulls of a list that is no constant for no match.
                let null = self.one(&["", ", NULL"]);
                let list = format!("{}, {}{null}", self.below(9), self.below(9));
                format!("({} {not}IN ({list}))", self.whole(depth))
            }
            10 => format!(
                "({} {not}BETWEEN {} AND {})",
                self.number(depth),
                self.number(depth),
                self.number(depth)
            ),
            11 => {
                let like = self.one(&["LIKE", "ILIKE"]);
                let pattern = self.one(&["%", "a%", "%b", "_a%", "%a%b%", "ab", "", "__"]);
                format!("({} {not}{like} '{pattern}')", self.text(depth))
            }
            _ => format!(
                "({} IS {not}DISTINCT FROM {})",
                self.whole(depth),
                self.whole(depth)
            ),
        }
    }
}

/// Rows as JSON, and as the columns that they are.
fn rows(draw: &mut Draw) -> (Vec<Json>, RecordBatch) {
    let mut objects = Vec::new();
    for row in 0..ROWS {
        let mut object = json!({"row": row});
        for (name, value) in [
            ("a", json!(draw.below(9) as i64 - 4)),
            ("b", json!(draw.below(3))),
            ("x", json!(draw.below(12) as f64 / 4.0 - 1.0)),
            (
                "s",
                json!(draw.one(&["", "a", "ab", "Ba", "b", "é", "a%b"])),
            ),
            ("f", json!(draw.below(2) == 0)),
        ] {
            if draw.below(4) > 0 {
                object[name] = value;
            }
        }
        objects.push(object);
    }
    let whole = |name: &str| -> ArrayRef {
        Arc::new(
            objects
                .iter()
                .map(|o| o[name].as_i64())
                .collect::<Int64Array>(),
        )
    };
    let columns = [
        ("row", whole("row")),
        ("a", whole("a")),
        ("b", whole("b")),
        (
            "x",
            Arc::new(
                objects
                    .iter()
                    .map(|o| o["x"].as_f64())
                    .collect::<Float64Array>(),
            ) as ArrayRef,
        ),
        (
            "s",
            Arc::new(
                objects
                    .iter()
                    .map(|o| o["s"].as_str())
                    .collect::<StringArray>(),
            ),
        ),
        (
            "f",
            Arc::new(
                objects
                    .iter()
                    .map(|o| o["f"].as_bool())
                    .collect::<BooleanArray>(),
            ),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    (objects, batch)
}

fn config(transforms: &[(String, Kind, String)], filter: &str) -> TableConfig {
    let column = |name: &str, kind: &str| json!({"name": name, "dataType": kind});
    let mut columns = vec![
        column("row", "LONG"),
        column("a", "LONG"),
        column("b", "LONG"),
        column("x", "DOUBLE"),
        column("s", "STRING"),
        column("f", "BOOLEAN"),
    ];
    columns.extend(transforms.iter().map(|(name, kind, _)| {
        column(
            name,
            match kind {
                Kind::Truth => "BOOLEAN",
                Kind::Whole => "LONG",
                Kind::Text => "STRING",
            },
        )
    }));
    let schema = json!({"schemaName": "t", "dimensionFieldSpecs": columns}).to_string();
    let (schema, _) = parse_schema(&schema, 1).expect("a schema");
    let configs: Vec<Json> = (transforms.iter())
        .map(|(name, _, text)| json!({"columnName": name, "transformFunction": text}))
        .collect();
    let table = json!({
        "tableName": "t", "tableType": "REALTIME",
        "ingestionConfig": {
            "streamIngestionConfig": {"streamConfigMaps": [{"streamType": "log"}]},
            "transformConfigs": configs,
            "filterConfig": {"filterFunction": filter},
        },
    });
    let (config, warnings) = parse_table(&table.to_string(), &Arc::new(schema)).expect("a config");
    assert_eq!(warnings, []);
    config
}

/// A value of a column of ours, as the oracle's answers show it.
fn cell(array: &ArrayRef, kind: Kind, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    match kind {
        Kind::Truth => Cell::Boolean(array.as_boolean().value(row)),
        Kind::Whole => Cell::Number(i128::from(array.as_primitive::<Int64Type>().value(row)), 0),
        Kind::Text => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
    }
}

#[tokio::test]
async fn drawn_expressions_give_what_datafusion_gives() {
    let mut truths = [0, 0, 0];
    for round in 0..ROUNDS {
        let mut draw = Draw(StdRng::seed_from_u64(round));
        let (objects, batch) = rows(&mut draw);
        let transforms: Vec<(String, Kind, String)> = (0..EXPRESSIONS)
            .map(|at| {
                let (kind, text) = match at % 3 {
                    0 => (Kind::Truth, draw.truth(5)),
                    1 => (Kind::Whole, draw.whole(4)),
                    _ => (Kind::Text, draw.text(4)),
                };
                (format!("c{at}"), kind, text)
            })
            .collect();
        let filter = draw.truth(4);
        let config = config(&transforms, &filter);
        let mut decoder = Decoder::new(&config, &config.streams[0], 0, None).expect("a decoder");
        let messages: Vec<Message> = (0..)
            .zip(&objects)
            .map(|(offset, object)| Message {
                offset,
                key: None,
                payload: object.to_string().into(),
                timestamp_ms: 0,
                headers: Vec::new(),
            })
            .collect();
        let decoded = decoder.decode(&messages);
        assert_eq!(decoded.rejected, [], "round {round}");
        let oracle = Oracle::new();
        oracle.put("t", batch);
        let select: Vec<String> = (transforms.iter())
            .map(|(name, kind, text)| {
                let sql = match kind {
                    Kind::Truth => "BOOLEAN",
                    Kind::Whole => "BIGINT",
                    Kind::Text => "VARCHAR",
                };
                format!("CAST({text} AS {sql}) AS {name}")
            })
            .collect();
        let sql = format!(
            "SELECT row, {} FROM t WHERE (({filter}) IS NOT TRUE) ORDER BY row",
            select.join(", ")
        );
        let expected: Answer =
            (oracle.answer(&sql).await).unwrap_or_else(|e| panic!("round {round}: {e}: {sql}"));
        let kept: Vec<i64> = decoded.batch["row"]
            .as_primitive::<Int64Type>()
            .values()
            .to_vec();
        let rows: Vec<i64> = (expected.rows.iter())
            .map(|row| match row[0] {
                Cell::Number(n, 0) => n as i64,
                ref other => panic!("{other}"),
            })
            .collect();
        assert_eq!(kept, rows, "round {round}: the filter {filter}");
        assert_eq!(decoded.filtered as usize, ROWS - kept.len());
        for (at, (name, kind, text)) in transforms.iter().enumerate() {
            let column = &decoded.batch[name.as_str()];
            for (row, expected) in expected.rows.iter().enumerate() {
                let found = cell(column, *kind, row);
                assert_eq!(
                    found,
                    expected[at + 1],
                    "round {round}: {text} of {}",
                    objects[kept[row] as usize]
                );
                match found {
                    Cell::Boolean(true) => truths[0] += 1,
                    Cell::Boolean(false) => truths[1] += 1,
                    Cell::Null if *kind == Kind::Truth => truths[2] += 1,
                    _ => {}
                }
            }
        }
    }
    // What is drawn must not be all of one kind.
    let all: usize = truths.iter().sum();
    assert!(truths.iter().all(|count| count * 10 > all), "{truths:?}");
}
