//! Offline loads: files -> segments -> deep store -> one transaction. All or nothing.

use super::build::{BuiltSegment, Progress, SEGMENT_ROWS_DEFAULT, SegmentBuild, check_times};
use super::catalog::Publisher;
use super::registry::{Claim, HostedTable};
use super::stored::store_and_hold;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{Half, SegmentName};
use strandline_proto::schema::{Column, Schema};
use strandline_proto::v1::{LoadOptions, LoadResult, PushMode};
use strandline_proto::{Error, ErrorKind, Result};
use strandline_storage::config::{PushType, TableConfig};
use strandline_storage::deep_store::{DeepStore, Finished};
use strandline_storage::environment::{Environment, blocking, file_error};
use strandline_storage::input::{self, InputFormat};
use strandline_storage::meta::{Metastore, Outcome, PUSH_ID_BYTES_MAX, PushOffline, Pushed};
use strandline_storage::segment::immutable::ImmutableSegment;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What loads work with.
#[derive(Clone)]
pub struct Loader {
    /// Where segments are named.
    pub metastore: Arc<dyn Metastore>,
    /// Where segments are kept.
    pub deep_store: Arc<DeepStore>,
    /// Makes what was pushed visible.
    pub publisher: Arc<Publisher>,
    /// Where files are made.
    pub staging: PathBuf,
    /// Time, randomness, tasks, files.
    pub environment: Environment,
}

/// Staged files, removed when the load ends, however it ends.
struct StagedFiles(PathBuf);

impl Drop for StagedFiles {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), error = %e, "cannot remove a load's staging folder; the next start does");
        }
    }
}

/// Segment files on their way in.
enum Made {
    /// They are being made, and the end of it comes with whether it went well.
    Here {
        segments: UnboundedReceiver<BuiltSegment>,
        ended: oneshot::Receiver<Result<()>>,
    },
    /// They were made before.
    Elsewhere(std::vec::IntoIter<BuiltSegment>),
}

impl Made {
    /// The next one, and whether it is a file of ours; none when there are no more and all went well.
    async fn next(&mut self) -> Result<Option<(BuiltSegment, bool)>> {
        let (segments, ended) = match self {
            Self::Elsewhere(segments) => return Ok(segments.next().map(|s| (s, false))),
            Self::Here { segments, ended } => (segments, ended),
        };
        match segments.recv().await {
            Some(segment) => Ok(Some((segment, true))),
            None => ended
                .await
                .unwrap_or_else(|_| Err(Error::internal("a build ended without a word")))
                .map(|()| None),
        }
    }
}

/// What a push has added so far. It is removed when the push is given up before all of it is there.
struct Added {
    loader: Loader,
    name: String,
    table: Arc<HostedTable>,
    claims: Vec<Claim>,
    segments: Vec<(SegmentName, u64)>,
}

impl Drop for Added {
    fn drop(&mut self) {
        let (segments, claims) = (
            std::mem::take(&mut self.segments),
            std::mem::take(&mut self.claims),
        );
        // When the process ends, the next start removes them.
        if segments.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (loader, name) = (self.loader.clone(), self.name.clone());
        let discard = async move {
            loader.discard(&name, segments).await;
            drop(claims);
        };
        let spawner = &self.loader.environment.spawner;
        spawner.spawn("discard a load", Box::pin(discard));
    }
}

impl Added {
    /// Files and held segments go by name: what stands under one already must neither be overwritten here nor removed when this
    /// push fails.
    fn claim(&mut self, table: &str, info: &SegmentInfo) -> Result<()> {
        let claim = self.table.claim(&info.name).ok_or_else(|| {
            Error::already_exists(format!(
                "table {table}: segment {} is there already, or on its way in another push; to repeat a push, give it the same push id and wait for the first to end",
                info.name
            ))
        })?;
        self.claims.push(claim);
        self.segments.push((info.name.clone(), info.checksum));
        Ok(())
    }
}

impl Loader {
    /// Loads `files` into the offline half that `config` describes. Dropping the future stops the load and leaves nothing.
    ///
    /// # Errors
    /// What is wrong with a file, by file, column and row; nothing of the load is then in the table.
    pub async fn load(
        &self,
        config: &Arc<TableConfig>,
        files: Vec<PathBuf>,
        options: LoadOptions,
        progress: Progress,
    ) -> Result<LoadResult> {
        let request = PushRequest::new(config, &options, &self.environment)?;
        if let Some(done) = self.done_before(config, &request).await? {
            return Ok(done);
        }
        let dir = self
            .staging
            .join(format!("load-{}", self.environment.random.uuid()));
        self.environment
            .files
            .create_dir(&dir)
            .map_err(|e| file_error("make the folder", &dir, &e))?;
        let _staged_files = StagedFiles(dir.clone());
        let stop = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        let inputs = blocking(&self.environment.spawner, "list files", move || {
            input::expand(&files)
        })
        .await?;
        let build = SegmentBuild {
            config: Arc::clone(config),
            inputs,
            format: (!options.input_format.is_empty())
                .then(|| InputFormat::parse(&options.input_format))
                .transpose()?,
            rows_max: match options.segment_rows_max {
                0 => SEGMENT_ROWS_DEFAULT,
                rows => rows,
            },
            dir,
            progress,
            stop,
        };
        let (made, segments) = unbounded_channel();
        let (end, ended) = oneshot::channel();
        let building = async {
            // Nobody asks any more when the push has failed.
            let _ = end.send(build.run(&self.environment, made).await);
        };
        let made = Made::Here { segments, ended };
        let ((), pushed) = tokio::join!(building, self.push(config, request, made));
        pushed
    }

    /// Takes segment files that were built elsewhere.
    ///
    /// # Errors
    /// When a file is damaged or does not fit the table; nothing of the push is then in the table.
    pub async fn push_files(
        &self,
        config: &Arc<TableConfig>,
        files: Vec<PathBuf>,
        options: LoadOptions,
    ) -> Result<LoadResult> {
        let request = PushRequest::new(config, &options, &self.environment)?;
        if let Some(done) = self.done_before(config, &request).await? {
            return Ok(done);
        }
        let table = Arc::clone(config);
        let staged = blocking(&self.environment.spawner, "check segments", move || {
            files
                .into_iter()
                .map(|path| check_pushed(&table, path))
                .collect::<Result<Vec<_>>>()
        })
        .await?;
        self.push(config, request, Made::Elsewhere(staged.into_iter()))
            .await
    }

    async fn done_before(
        &self,
        config: &TableConfig,
        request: &PushRequest,
    ) -> Result<Option<LoadResult>> {
        let stored = self
            .metastore
            .push_result(&config.name, &request.id)
            .await?;
        stored
            .map(|json| PushResult::read(&json)?.into_message(&request.id, true))
            .transpose()
    }

    async fn push(
        &self,
        config: &TableConfig,
        request: PushRequest,
        made: Made,
    ) -> Result<LoadResult> {
        let mut added = Added {
            loader: self.clone(),
            name: config.name.clone(),
            table: self.publisher.registry().table(&config.name),
            claims: Vec::new(),
            segments: Vec::new(),
        };
        let stored = self.store(config, &request, made, &mut added).await;
        let segments = std::mem::take(&mut added.segments);
        let outcome = match stored {
            Ok(outcome) => outcome,
            Err(e) => {
                self.discard(&config.name, segments).await;
                // The first try of this push may have ended since its id was looked up.
                return match e.kind() {
                    ErrorKind::AlreadyExists => self.done_before(config, &request).await?.ok_or(e),
                    _ => Err(e),
                };
            }
        };
        let already_done = outcome.is_already_done();
        if already_done {
            // Another request with this id came first: its segments stand, these go.
            self.discard(&config.name, segments).await;
        }
        let pushed = outcome.into_inner();
        if !already_done {
            self.publisher.publish().await?;
            self.publisher
                .retire_segments(pushed.version, &config.name, pushed.removed);
        }
        PushResult::read(&pushed.result_json)?.into_message(&request.id, already_done)
    }

    /// Stores segments as they are made and, when all are, names them in one transaction.
    async fn store(
        &self,
        config: &TableConfig,
        request: &PushRequest,
        mut made: Made,
        added: &mut Added,
    ) -> Result<Outcome<Pushed>> {
        let mut segments = Vec::new();
        while let Some((BuiltSegment { info, path }, is_ours)) = made.next().await? {
            added.claim(&config.name, &info)?;
            let file = match is_ours {
                true => Finished::Ours(&path),
                false => Finished::Theirs(&path),
            };
            let table = (&*config.name, &*added.table);
            store_and_hold(&self.deep_store, &self.environment, table, &info, file).await?;
            segments.push(info);
        }
        let result = PushResult {
            rows: segments.iter().map(|info| info.rows).sum(),
            segments: segments.len() as u64,
        };
        let push = PushOffline {
            table: config.name.clone(),
            push_id: request.id.clone(),
            segments,
            mode: request.mode,
            declared: request.declared,
            result_json: result.write()?,
        };
        // From here on only the metastore knows whether they are to go: not when this is given up, but at the next start.
        let segments = std::mem::take(&mut added.segments);
        let pushed = self.metastore.push_offline(push).await;
        added.segments = segments;
        pushed
    }

    /// Removes what a push added and the metastore does not name. Whether it does is asked, because a push whose
    /// answer was lost may have happened; when it can't be asked, the next start removes what is not named.
    async fn discard(&self, table: &str, added: Vec<(SegmentName, u64)>) {
        let state = match self.metastore.state().await {
            Ok(state) => state,
            Err(e) => {
                tracing::warn!(table, error = %e, "segments of a failed push stay until the next start");
                return;
            }
        };
        let named = |name: &SegmentName| {
            let table = state.table(table);
            table.is_some_and(|t| t.segments.iter().any(|s| s.name == *name))
        };
        for (name, checksum) in added.iter().filter(|(name, _)| !named(name)) {
            self.publisher
                .registry()
                .table(table)
                .forget(name, *checksum);
            if let Err(e) = self.deep_store.delete(table, name, *checksum).await {
                tracing::warn!(segment = %name, error = %e, "cannot remove an unused segment file; the next start does");
            }
        }
    }
}

/// What a push answers, now and when it is repeated.
#[derive(serde::Serialize, serde::Deserialize)]
struct PushResult {
    rows: u64,
    segments: u64,
}

impl PushResult {
    fn write(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal(format!("push result: {e}")))
    }

    fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|e| {
            Error::data_loss(format!("the stored result of a push can't be read: {e}"))
        })
    }

    fn into_message(self, push_id: &str, already_done: bool) -> Result<LoadResult> {
        Ok(LoadResult {
            push_id: push_id.to_owned(),
            rows: self.rows,
            segments: self.segments,
            already_done,
            coverage: None,
        })
    }
}

/// A push as its options say it.
struct PushRequest {
    id: String,
    mode: PushType,
    declared: Option<Interval>,
}

impl PushRequest {
    fn new(config: &TableConfig, options: &LoadOptions, environment: &Environment) -> Result<Self> {
        if options.push_id.len() > PUSH_ID_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a push id has at most {PUSH_ID_BYTES_MAX} bytes; this one has {}",
                options.push_id.len()
            )));
        }
        let mode = PushMode::try_from(options.mode)
            .map_err(|_| Error::invalid(format!("unknown push mode {}", options.mode)))?;
        let declared = match &options.declared_coverage {
            None => None,
            Some(i) if i.start_ms >= i.end_ms => {
                return Err(Error::invalid(format!(
                    "declared coverage is empty: it starts at {} ms and ends at {} ms",
                    i.start_ms, i.end_ms
                )));
            }
            Some(_) if config.time_column.is_none() => {
                return Err(Error::invalid(format!(
                    "table {} has no time column, so no coverage can be declared for it",
                    config.name
                )));
            }
            Some(i) => Some(Interval {
                start_ms: i.start_ms,
                end_ms: i.end_ms,
            }),
        };
        let id = if options.push_id.is_empty() {
            environment.random.uuid().to_string()
        } else {
            options.push_id.clone()
        };
        let mode = if mode == PushMode::Refresh || config.push_type == PushType::Refresh {
            PushType::Refresh
        } else {
            PushType::Append
        };
        Ok(Self { id, mode, declared })
    }
}

fn check_pushed(config: &TableConfig, path: PathBuf) -> Result<BuiltSegment> {
    let segment = ImmutableSegment::open(&path)?;
    let info = segment.info().clone();
    if info.half != Half::Offline {
        return Err(Error::invalid(format!(
            "segment {} was built for a realtime half; only offline segments can be pushed",
            info.name
        )));
    }
    check_columns(&config.spec.schema, segment.schema())
        .map_err(|e| e.at(format!("segment {}", info.name)))?;
    check_times(config, &info)?;
    Ok(BuiltSegment { info, path })
}

/// Whether a segment's columns hold what the table's columns of these names are.
fn check_columns(table: &Schema, segment: &Schema) -> Result<()> {
    for built in &segment.columns {
        if let Some(column) = table.column(&built.name)
            && (column.data_type, column.multi_value) != (built.data_type, built.multi_value)
        {
            let shown = |c: &Column| {
                format!(
                    "{}{}",
                    c.data_type.pinot_name(),
                    if c.multi_value { " (multi-value)" } else { "" }
                )
            };
            return Err(Error::invalid(format!(
                "column {} is {}, in the table {}: build it with the table's schema",
                built.name,
                shown(built),
                shown(column)
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
