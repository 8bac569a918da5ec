//! One drawn table as a server holds it in three ways: realtime only, offline only, and hybrid.
//!
//! All three show the same rows. The offline one has several segments from several pushes; the realtime one has
//! sealed and consuming segments in every partition; the hybrid one has both, and rows on each side that its coverage hides.

use crate::answer::Answer;
use crate::arrow_files::write_parquet;
use crate::pinot::{messages, offline_json, realtime_json, schema_json};
use crate::table::Table;
use arrow::array::RecordBatch;
use futures::TryStreamExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_broker::QueryRequest;
use strandline_proto::v1::{
    AppendRequest, LoadOptions, Message, PushMode, QueryStatistics, TimeInterval,
};
use strandline_server::engine::{Engine, EngineOptions};

/// How a table is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says it")]
pub enum Variant {
    Realtime,
    Offline,
    Hybrid,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hybrid, Self::Realtime, Self::Offline];

    /// The name of `table`'s variant in a round.
    pub fn name(self, table: &Table, round: usize) -> String {
        let suffix = match self {
            Self::Realtime => "rt",
            Self::Offline => "off",
            Self::Hybrid => "hy",
        };
        format!("{}_{suffix}{round}", table.name)
    }
}

/// Partitions of each topic.
const PARTITIONS: u32 = 3;

/// An engine in this process over a folder of its own.
pub struct Subject {
    engine: Arc<Engine>,
    folder: tempfile::TempDir,
}

impl Subject {
    /// An engine without tables.
    ///
    /// # Panics
    /// When it does not open.
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Engine::open(EngineOptions::new(folder.path().join("data")))
            .await
            .expect("the engine opens");
        Self { engine, folder }
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// A folder for files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The answer to a statement with its statistics, or the error's sentence.
    pub async fn ask(&self, sql: &str) -> Result<(Answer, QueryStatistics), String> {
        ask(&self.engine, sql).await
    }

    /// Like [`ask`](Self::ask), but a panic is an answer too, and so is silence for a minute.
    pub async fn ask_guarded(&self, sql: &str) -> Result<(Answer, QueryStatistics), String> {
        let (engine, sql) = (Arc::clone(&self.engine), sql.to_owned());
        let work = tokio::spawn(async move { ask(&engine, &sql).await });
        match tokio::time::timeout(Duration::from_secs(60), work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(format!("panic: {error}")),
            Err(_) => Err("panic: no answer within a minute".to_owned()),
        }
    }

    /// Makes the three variants of `table`.
    ///
    /// # Panics
    /// When the engine refuses any of it.
    pub async fn create_variants(&self, table: &Table, round: usize) {
        for variant in Variant::ALL {
            let name = variant.name(table, round);
            self.engine
                .put_schema(&schema_json(table, &name))
                .await
                .unwrap_or_else(|e| panic!("schema of {name}: {e}"));
            match variant {
                Variant::Offline => {
                    self.create(&offline_json(table, &name)).await;
                    let rows = table.visible();
                    let third = rows.num_rows() / 3;
                    for (push, from) in [0, third, 2 * third].into_iter().enumerate() {
                        let to = if push == 2 {
                            rows.num_rows()
                        } else {
                            from + third
                        };
                        self.load(&name, push, &rows.slice(from, to - from), None)
                            .await;
                    }
                }
                Variant::Realtime => {
                    self.stream(table, &name, &table.visible()).await;
                }
                Variant::Hybrid => {
                    self.create(&offline_json(table, &name)).await;
                    let pushes = table.covered.len();
                    let inside = table.inside.num_rows() / pushes;
                    for (push, (start_ms, end_ms)) in table.covered.iter().enumerate() {
                        let from = push * inside;
                        let to = if push + 1 == pushes {
                            table.inside.num_rows()
                        } else {
                            from + inside
                        };
                        let slice = table.inside.slice(from, to - from);
                        let rows = if push == 0 {
                            table.together(&[&slice, &table.hidden_offline])
                        } else {
                            slice
                        };
                        let interval = TimeInterval {
                            start_ms: *start_ms,
                            end_ms: *end_ms,
                        };
                        self.load(&name, push, &rows, Some(interval)).await;
                    }
                    let rows = table.together(&[&table.hidden_realtime, &table.outside]);
                    self.stream(table, &name, &rows).await;
                }
            }
        }
    }

    /// Drops the three variants of `table`.
    ///
    /// # Panics
    /// When the engine refuses.
    pub async fn drop_variants(&self, table: &Table, round: usize) {
        for variant in Variant::ALL {
            let name = variant.name(table, round);
            self.engine
                .drop_table(&name)
                .await
                .unwrap_or_else(|e| panic!("drop {name}: {e}"));
        }
    }

    async fn create(&self, config: &str) {
        self.engine
            .create_table(config)
            .await
            .unwrap_or_else(|e| panic!("create table: {e}\n{config}"));
    }

    async fn load(
        &self,
        name: &str,
        push: usize,
        rows: &RecordBatch,
        declared_coverage: Option<TimeInterval>,
    ) {
        let path = self.folder.path().join(format!("{name}-{push}.parquet"));
        write_parquet(&path, rows).expect("a file is written");
        let options = LoadOptions {
            push_id: format!("{name}-{push}"),
            mode: PushMode::Append.into(),
            declared_coverage,
            input_format: String::new(),
            segment_rows_max: (rows.num_rows() as u64 / 2).max(1) + 1,
            replaced: None,
        };
        let result = self
            .engine
            .load_local(name, vec![path], options, |_| {})
            .await
            .unwrap_or_else(|e| panic!("load into {name}: {e}"));
        assert_eq!(
            result.rows,
            rows.num_rows() as u64,
            "rows loaded into {name}"
        );
    }

    async fn stream(&self, table: &Table, name: &str, rows: &RecordBatch) {
        let topic = format!("{name}-topic");
        let per_partition = rows.num_rows() as u64 / u64::from(PARTITIONS);
        // Two seals and a rest in each partition.
        let flush_rows = (per_partition * 2 / 5).max(1);
        self.create(&realtime_json(table, name, &topic, PARTITIONS, flush_rows))
            .await;
        let all = messages(&table.columns, rows);
        for partition in 0..PARTITIONS {
            let mine: Vec<Message> = all
                .iter()
                .skip(partition as usize)
                .step_by(PARTITIONS as usize)
                .map(|payload| Message {
                    payload: payload.clone().into(),
                    ..Message::default()
                })
                .collect();
            for chunk in mine.chunks(500) {
                let request = AppendRequest {
                    topic: topic.clone(),
                    partition: Some(partition),
                    messages: chunk.to_vec(),
                    ..AppendRequest::default()
                };
                self.engine
                    .append(request)
                    .await
                    .unwrap_or_else(|e| panic!("append to {topic}: {e}"));
            }
        }
        self.wait_for_rows(&format!("{name}_REALTIME"), rows.num_rows() as i128)
            .await;
    }

    /// Waits until a table shows this many rows.
    ///
    /// # Panics
    /// When it shows more, or not that many within a minute.
    pub async fn wait_for_rows(&self, table: &str, expected: i128) {
        let since = Instant::now();
        let sql = format!("SELECT count(*) FROM {table}");
        loop {
            let (answer, _) = self
                .ask(&sql)
                .await
                .unwrap_or_else(|e| panic!("{sql}: {e}"));
            let crate::answer::Cell::Number(count, 0) = answer.rows[0][0] else {
                panic!("{sql} gave no number");
            };
            if count == expected {
                return;
            }
            assert!(count < expected, "{table} has {count} rows, not {expected}");
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "{table} has only {count} of {expected} rows after a minute; see its dead letters"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn ask(engine: &Engine, sql: &str) -> Result<(Answer, QueryStatistics), String> {
    let told = |e: strandline_proto::Error| format!("{:?}: {e}", e.kind());
    let answer = engine.query(QueryRequest::new(sql)).await.map_err(told)?;
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await.map_err(told)?;
    for batch in &batches {
        if batch.num_columns() != answer.schema.fields().len() {
            return Err("Internal: a batch with other columns than the schema's".to_owned());
        }
    }
    let rows = Answer::of(&answer.schema, &batches)?;
    Ok((rows, answer.statistics.finished()))
}
