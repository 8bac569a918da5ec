//! Offline loads: files -> segments -> deep store -> one transaction. All or nothing.

use super::added::{Added, Places};
use super::build::{BuiltSegment, Progress, SEGMENT_ROWS_DEFAULT, SegmentBuild, check_times};
use super::catalog::{Publisher, PushedChange};
use super::change::{self, contents, has_changed};
use std::path::PathBuf;
use std::sync::Arc;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{CatalogVersion, Half};
use strandline_proto::schema::{Column, ColumnRole, Schema};
use strandline_proto::v1::{LoadOptions, LoadResult, PushMode, TimeInterval};
use strandline_proto::{Error, ErrorKind, Result};
use strandline_storage::config::{PushType, TableConfig};
use strandline_storage::deep_store::Finished;
use strandline_storage::environment::{Environment, blocking, file_error};
use strandline_storage::input::{self, InputFormat};
use strandline_storage::meta::{Outcome, PUSH_ID_BYTES_MAX, PushOffline, Pushed, Replaces};
use strandline_storage::segment::immutable::ImmutableSegment;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Loads into offline halves.
#[derive(Clone)]
pub struct Loader {
    /// Where segments go.
    pub places: Places,
}

/// How often a push looks again at what it replaces, when that changes under it.
const ATTEMPTS_MAX: u32 = 20;

/// Staged files, removed when the load ends, however it ends.
pub(super) struct StagedFiles(PathBuf);

impl StagedFiles {
    /// An empty folder for them.
    pub(super) fn new(places: &Places, what: &str) -> Result<Self> {
        let name = format!("{what}-{}", places.environment.random.uuid());
        let dir = places.staging.join(name);
        let made = places.environment.files.create_dir(&dir);
        made.map_err(|e| file_error("make the folder", &dir, &e))?;
        Ok(Self(dir))
    }

    /// The folder.
    pub(super) fn dir(&self) -> PathBuf {
        self.0.clone()
    }
}

impl Drop for StagedFiles {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), error = %e, "cannot remove a load's staging folder; the next start does");
        }
    }
}

/// Segment files on their way in.
pub(super) enum Made {
    /// They are being made, and the end of it comes with how many rows were left out, when it went well.
    Here {
        segments: UnboundedReceiver<BuiltSegment>,
        ended: oneshot::Receiver<Result<u64>>,
        filtered: u64,
    },
    /// They were made before.
    Elsewhere(std::vec::IntoIter<BuiltSegment>),
}

impl Made {
    /// The next one, and whether it is a file of ours; none when there are no more and all went well.
    async fn next(&mut self) -> Result<Option<(BuiltSegment, bool)>> {
        let (segments, ended, filtered) = match self {
            Self::Elsewhere(segments) => return Ok(segments.next().map(|s| (s, false))),
            Self::Here {
                segments,
                ended,
                filtered,
            } => (segments, ended, filtered),
        };
        match segments.recv().await {
            Some(segment) => Ok(Some((segment, true))),
            None => {
                *filtered = ended
                    .await
                    .unwrap_or_else(|_| Err(Error::internal("a build ended without a word")))?;
                Ok(None)
            }
        }
    }

    /// Rows left out by the table's filter, known at the end.
    fn filtered(&self) -> u64 {
        match self {
            Self::Here { filtered, .. } => *filtered,
            Self::Elsewhere(_) => 0,
        }
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
        let request = PushRequest::new(config, &options, &self.places.environment)?;
        if let Some(done) = self.done_before(config, &request).await? {
            return Ok(done);
        }
        let staged_files = StagedFiles::new(&self.places, "load")?;
        let stop = CancellationToken::new();
        let _stop_when_dropped = stop.clone().drop_guard();
        let inputs = blocking(&self.places.environment.spawner, "list files", move || {
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
            dir: staged_files.dir(),
            progress,
            stop,
        };
        let (made, segments) = unbounded_channel();
        let (end, ended) = oneshot::channel();
        let building = async {
            // Nobody asks any more when the push has failed.
            let _ = end.send(build.run(&self.places.environment, made).await);
        };
        let made = Made::Here {
            segments,
            ended,
            filtered: 0,
        };
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
        let request = PushRequest::new(config, &options, &self.places.environment)?;
        if let Some(done) = self.done_before(config, &request).await? {
            return Ok(done);
        }
        let table = Arc::clone(config);
        let staged = blocking(
            &self.places.environment.spawner,
            "check segments",
            move || {
                files
                    .into_iter()
                    .map(|path| check_pushed(&table, path))
                    .collect::<Result<Vec<_>>>()
            },
        )
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
            .places
            .metastore
            .push_result(&config.name, &request.id)
            .await?;
        let Some(json) = stored else {
            return Ok(None);
        };
        // Who did it may not have come to show it.
        self.places.publisher.publish().await?;
        let result = PushResult::read(&json)?;
        result.into_message(&request.id, true).map(Some)
    }

    /// Names segments in one transaction, once all are made and stored, and shows them.
    pub(super) async fn push(
        &self,
        config: &TableConfig,
        request: PushRequest,
        made: Made,
    ) -> Result<LoadResult> {
        let mut added = Added::new(&self.places, &config.name);
        let (outcome, keys) = match self.store(config, &request, made, &mut added).await {
            Ok(outcome) => outcome,
            Err(e) => {
                added.discard().await;
                // The first try of this push may have ended since its id was looked up.
                return match e.kind() {
                    ErrorKind::AlreadyExists => self.done_before(config, &request).await?.ok_or(e),
                    _ => Err(e),
                };
            }
        };
        // When another request with this id came first, its segments stand, and these go.
        added.discard().await;
        let already_done = outcome.is_already_done();
        let pushed = outcome.into_inner();
        let result = PushResult::read(&pushed.result_json)?;
        match already_done {
            true => self.places.publisher.publish().await?,
            false => show_pushed(&self.places.publisher, &config.name, pushed).await?,
        }
        if let Some(keys) = keys.filter(|_| !already_done) {
            keys.shown();
        }
        result.into_message(&request.id, already_done)
    }

    /// Stores segments as they are made and, when all are, names them in one transaction.
    async fn store(
        &self,
        config: &TableConfig,
        request: &PushRequest,
        mut made: Made,
        added: &mut Added,
    ) -> Result<(Outcome<Pushed>, Option<PushedChange>)> {
        let mut segments = Vec::new();
        while let Some((BuiltSegment { info, path }, is_ours)) = made.next().await? {
            let file = match is_ours {
                true => Finished::Ours(&path),
                false => Finished::Theirs(&path),
            };
            request.check_times(config, &info)?;
            // What a refresh pushes again unchanged stays as it is.
            let stays = request.mode == PushType::Refresh && self.is_live(config, &info).await?;
            if !stays {
                added.add(&info, file).await?;
            }
            segments.push(info);
        }
        let result = PushResult {
            rows: segments.iter().map(|info| info.rows).sum(),
            segments: segments.len() as u64,
            filtered: made.filtered(),
        };
        let mut push = PushOffline {
            table: config.name.clone(),
            push_id: request.id.clone(),
            segments,
            mode: request.mode,
            declared: request.declared,
            replaces: None,
            keeps_replaced: config.kept_ms > 0,
            rebuilt: request.rebuilt,
            result_json: result.write()?,
        };
        for attempt in 1.. {
            let mut rest = Added::new(&self.places, &config.name);
            let pushed = match self.replaced(config, request, &mut rest).await {
                Ok(replaces) => {
                    push.replaces = replaces;
                    match self.keys_of(&mut push).await {
                        Ok(keys) => {
                            let (contents, of_rest) = (added.hand_over(), rest.hand_over());
                            let pushed = self.places.metastore.push_offline(push.clone()).await;
                            added.take_back(contents);
                            rest.take_back(of_rest);
                            pushed.map(|pushed| (pushed, keys))
                        }
                        Err(e) => Err(e),
                    }
                }
                Err(e) => Err(e),
            };
            rest.discard().await;
            match pushed {
                // What is to be replaced has changed since it was looked at: by a background job, or another push.
                Err(e) if request.looks() && attempt < ATTEMPTS_MAX && has_changed(&e) => {
                    tracing::info!(table = config.name, error = %e, "the push is tried again");
                }
                pushed => return pushed,
            }
        }
        Err(Error::internal("a push was never tried"))
    }

    /// Numbers a push, and prepares the keys of its rows, where the table's rows have any.
    async fn keys_of(&self, push: &mut PushOffline) -> Result<Option<PushedChange>> {
        let table = push.table.clone();
        // Keys that the table's rows get later go by it, too.
        number(push, self.places.metastore.state().await?.version);
        PushedChange::begin(&self.places, &table, |version, there| {
            number(push, version);
            let stays = |s: &&Arc<SegmentInfo>| {
                let mut removed = push.replaces.iter().flat_map(|r| &r.removed);
                let is_pushed = push.segments.iter().any(|new| new.name == s.name);
                // Everything else goes when the whole table is pushed.
                let is_refreshed = s.half == Half::Offline && push.mode == PushType::Refresh;
                !is_pushed && !is_refreshed && removed.all(|(name, _)| *name != s.name)
            };
            let stay = there.iter().filter(stays).cloned();
            let rest = push.replaces.iter().flat_map(|r| &r.rest);
            let come = push.segments.iter().chain(rest).cloned().map(Arc::new);
            stay.chain(come).collect()
        })
        .await
    }

    async fn is_live(&self, config: &TableConfig, info: &SegmentInfo) -> Result<bool> {
        let state = self.places.metastore.state().await?;
        let same = |s: &Arc<SegmentInfo>| s.name == info.name && s.checksum == info.checksum;
        let table = state.table(&config.name);
        Ok(table.is_some_and(|table| table.segments.iter().any(same)))
    }

    /// What a push takes the place of, with segments of what is left of it.
    async fn replaced(
        &self,
        config: &TableConfig,
        request: &PushRequest,
        rest: &mut Added,
    ) -> Result<Option<Replaces>> {
        let state = self.places.metastore.state().await?;
        let Some(table) = state.table(&config.name) else {
            return Ok(None);
        };
        // What was taken over from the stream gives way to what is declared complete.
        let (interval, only_moved) = match (request.replaced, request.declared) {
            (Some(interval), _) => (interval, false),
            (None, Some(declared)) if request.mode == PushType::Append => (declared, true),
            (None, _) => return Ok(None),
        };
        let gives_way = |s: &&Arc<SegmentInfo>| {
            s.half == Half::Offline && (s.moved || !only_moved) && s.reaches(interval)
        };
        let removed: Vec<_> = table.segments.iter().filter(gives_way).cloned().collect();
        if removed.is_empty() && only_moved {
            return Ok(None);
        }
        let outside = change::outside(&removed, interval);
        let rest = change::build(&self.places, &config.name, outside, rest).await?;
        Ok(Some(Replaces {
            interval,
            only_moved,
            removed: contents(&removed),
            rest,
        }))
    }
}

/// Shows what a push, or its reversal, made of a table, and lets go of what is not needed any more.
pub(crate) async fn show_pushed(publisher: &Publisher, table: &str, pushed: Pushed) -> Result<()> {
    publisher.publish().await?;
    publisher.close_segments(pushed.version, table, pushed.kept);
    publisher.retire_segments(pushed.version, table, pushed.removed);
    Ok(())
}

/// Has a push be the next after a version of the catalog.
fn number(push: &mut PushOffline, version: CatalogVersion) {
    for segment in &mut push.segments {
        segment.pushed_in = version.0 + 1;
    }
}

/// What a push answers, now and when it is repeated.
#[derive(serde::Serialize, serde::Deserialize)]
struct PushResult {
    rows: u64,
    segments: u64,
    #[serde(default)]
    filtered: u64,
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
            rows_filtered: self.filtered,
        })
    }
}

/// A push as its options say it.
pub(super) struct PushRequest {
    id: String,
    mode: PushType,
    declared: Option<Interval>,
    /// The times whose offline rows give way.
    replaced: Option<Interval>,
    /// Whether its rows were made again of the archive.
    rebuilt: bool,
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
        let interval = |given: &Option<TimeInterval>, what: &str| match given {
            None => Ok(None),
            Some(i) if i.start_ms >= i.end_ms => Err(Error::invalid(format!(
                "{what} is empty: it starts at {} ms and ends at {} ms",
                i.start_ms, i.end_ms
            ))),
            Some(_) if config.time_column.is_none() => Err(Error::invalid(format!(
                "table {} has no time column, so there is no {what} for it",
                config.name
            ))),
            Some(i) => Ok(Some(Interval {
                start_ms: i.start_ms,
                end_ms: i.end_ms,
            })),
        };
        let declared = interval(&options.declared_coverage, "declared coverage")?;
        let replaced = interval(&options.replaced, "interval to replace")?;
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
        if declared.is_some() && replaced.is_some() {
            return Err(Error::invalid(format!(
                "table {}: a push that replaces an interval covers it, and declares no other coverage",
                config.name
            )));
        }
        if mode == PushType::Refresh && replaced.is_some() {
            return Err(Error::invalid(format!(
                "table {}: a push that replaces the whole table (REFRESH) replaces no part of it",
                config.name
            )));
        }
        Ok(Self {
            id,
            mode,
            declared,
            replaced,
            rebuilt: false,
        })
    }

    /// A push of what was made again of the archive, in the place of an interval.
    pub(super) fn of_rebuilt(id: String, interval: Interval) -> Self {
        Self {
            id,
            mode: PushType::Append,
            declared: None,
            replaced: Some(interval),
            rebuilt: true,
        }
    }

    /// Whether it depends on what is there.
    fn looks(&self) -> bool {
        self.replaced.is_some() || self.declared.is_some()
    }

    /// Refuses rows outside of the times that the push replaces: they would be there twice after its repetition.
    fn check_times(&self, config: &TableConfig, info: &SegmentInfo) -> Result<()> {
        let Some(interval) = self.replaced else {
            return Ok(());
        };
        match info.time_ms {
            Some((min, max)) if interval.start_ms <= min && max < interval.end_ms => Ok(()),
            Some((min, max)) => {
                let at = |ms| show_time(config, ms);
                Err(Error::invalid(format!(
                    "rows have times from {} to {}, which are not all within the replaced ones from {} up to {}: push only rows of these times",
                    at(min),
                    at(max),
                    at(interval.start_ms),
                    at(interval.end_ms)
                )))
            }
            None => Ok(()),
        }
    }
}

/// A time as the table's time column holds it.
fn show_time(config: &TableConfig, ms: i64) -> String {
    let time = config.time_column.as_deref();
    match time.and_then(|name| config.spec.schema.column(name)) {
        Some(column) => match &column.role {
            ColumnRole::DateTime { format, .. } => format.display_ms(ms, column.data_type),
            _ => ms.to_string(),
        },
        None => ms.to_string(),
    }
}

fn check_pushed(config: &TableConfig, path: PathBuf) -> Result<BuiltSegment> {
    let segment = ImmutableSegment::open(&path)?;
    let info = SegmentInfo {
        // Whoever built it numbered the schema's versions from one.
        schema_version: config.spec.schema.version,
        ..segment.info().clone()
    };
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
