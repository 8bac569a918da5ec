//! Rows of segments go into other segments, which take their place in one step: merged, cut, or moved to the other half.
//!
//! The new ones are stored and held first; one transaction, which checks that the old ones are still what they were, names
//! them; then the old ones go, when no query can name them any more. A process that is killed before the transaction
//! leaves files that the next start removes.

use super::added::{Added, Places};
use super::catalog::PushedChange;
use super::moved_keys::{KeysChange, Moving};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_index::DocId;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{Half, OffsetRange, StreamPartition};
use strandline_proto::lineage::Lineage;
use strandline_proto::{Error, ErrorKind, Result};
use strandline_storage::config::TableConfig;
use strandline_storage::deep_store::Finished;
use strandline_storage::environment::{Files, blocking, in_background};
use strandline_storage::keys::TableKeys;
use strandline_storage::meta::minutes::MinuteCounts;
use strandline_storage::meta::{
    ChangeReason, ChangeSegments, IngestCounts, LeftRows, SegmentContent,
};
use strandline_storage::segment::adapted::adapt;
use strandline_storage::segment::builder::SegmentBuilder;
use strandline_storage::segment::event_time::{EventTime, RowsByMinute};
use strandline_storage::segment::immutable::ImmutableSegment;
use strandline_storage::segment::merge::{Source, add_rows, docs_by_time};
use strandline_storage::segment::{DeletedKey, SegmentReader};

/// What a segment in the making may hold in memory before it is cut, in bytes.
const BYTES_MAX: usize = 192 << 20;
/// Rows of a segment that is made of others, at most.
pub const ROWS_MAX: u64 = 4_000_000;

/// Rows of one segment.
pub struct Part {
    /// The segment.
    pub source: Arc<SegmentInfo>,
    /// Which of its rows.
    pub take: Take,
    /// Rows besides whose keys are to be remembered as deleted, ascending.
    pub deleted: Vec<DocId>,
}

/// Which rows of a segment.
pub enum Take {
    /// All.
    All,
    /// These, ascending.
    Docs(Vec<DocId>),
    /// Those of these times.
    Inside(Vec<Interval>),
    /// Those of all other times, and those without one.
    Outside(Vec<Interval>),
}

/// Rows that go into one segment, or, without an origin, into as many as they need; into none when there are none.
pub struct Planned {
    /// The half that the rows will be of.
    pub half: Half,
    /// The stream offsets that they are of.
    pub origin: Option<(StreamPartition, OffsetRange)>,
    /// Whether they were taken over from the stream.
    pub moved: bool,
    /// Whether they were made again of the archive.
    pub rebuilt: bool,
    /// The rows.
    pub parts: Vec<Part>,
}

impl Planned {
    /// Some rows of a segment, which stay where they are.
    pub fn part_of(source: &Arc<SegmentInfo>, take: Take) -> Self {
        Self::deleting(source, take, Vec::new())
    }

    /// The same where others are deleted whose keys are to be remembered, ascending.
    pub fn deleting(source: &Arc<SegmentInfo>, take: Take, deleted: Vec<DocId>) -> Self {
        Self {
            half: source.half,
            origin: source.origin.clone(),
            moved: source.moved,
            rebuilt: source.rebuilt,
            parts: vec![Part {
                source: Arc::clone(source),
                take,
                deleted,
            }],
        }
    }
}

/// Whether an error says that segments have changed under a change, which may be tried again.
pub fn has_changed(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::FailedPrecondition | ErrorKind::SegmentGone
    )
}

/// Segments by name and checksum.
pub fn contents(segments: &[Arc<SegmentInfo>]) -> Vec<SegmentContent> {
    let content = |s: &Arc<SegmentInfo>| (s.name.clone(), s.checksum);
    segments.iter().map(content).collect()
}

/// What is left of segments without the rows of an interval.
pub fn outside(segments: &[Arc<SegmentInfo>], interval: Interval) -> Vec<Planned> {
    let reach_out = segments.iter().filter(|s| {
        s.time_ms
            .is_none_or(|(min, max)| min < interval.start_ms || interval.end_ms <= max)
    });
    let left = |s| Planned::part_of(s, Take::Outside(vec![interval]));
    reach_out.map(left).collect()
}

/// Makes and adds segments of a table.
///
/// # Errors
/// `FailedPrecondition` when a source is not held any more, and what making and storing them meets.
pub async fn build(
    places: &Places,
    table: &str,
    planned: Vec<Planned>,
    added: &mut Added,
) -> Result<Vec<SegmentInfo>> {
    let mut all = Vec::new();
    for planned in planned {
        let config = places.publisher.config(table, planned.half);
        let config = config.ok_or_else(|| {
            Error::precondition(format!("table {table} has no {} half", planned.half))
        })?;
        let hosted = places.publisher.registry().table(table);
        let mut sources = Vec::with_capacity(planned.parts.len());
        let pushed_in = planned.parts.iter().map(|part| part.source.pushed_in).max();
        for part in planned.parts {
            let segment = hosted.open(&part.source.name, part.source.checksum)?;
            sources.push((segment, part));
        }
        let run = &places.environment.random.uuid().simple().to_string()[..12];
        let job = Job {
            files: Arc::clone(&places.environment.files),
            staging: places.staging.clone(),
            name: format!("{table}__{run}"),
            config,
            lineage: places.publisher.lineage(table),
            half: planned.half,
            origin: planned.origin,
            moved: planned.moved,
            pushed_in: pushed_in.unwrap_or_default(),
            rebuilt: planned.rebuilt,
            keys: hosted.keys().filter(|_| planned.half == Half::Realtime),
        };
        let built = blocking(&places.environment.spawner, "merge segments", move || {
            in_background(|| job.run(sources))
        })
        .await?;
        for (info, path) in built {
            let stored = added.add(&info, Finished::Ours(&path)).await;
            let _ = places.environment.files.remove(&path);
            stored?;
            all.push(info);
        }
    }
    Ok(all)
}

/// Segments that were made and stored, and are not named yet.
pub struct Prepared<'a> {
    places: &'a Places,
    table: &'a str,
    added: Added,
    new: Vec<SegmentInfo>,
    /// Where rows have keys.
    moving: Option<Moving>,
}

impl<'a> Prepared<'a> {
    /// Makes segments of a table.
    ///
    /// # Errors
    /// Those of [`build`]; nothing is left of them then.
    pub async fn new(places: &'a Places, table: &'a str, planned: Vec<Planned>) -> Result<Self> {
        let config = places.publisher.config(table, Half::Realtime);
        let has_keys = config.is_some_and(|config| config.keys.is_some());
        let moving = has_keys.then(|| Moving::new(&planned)).transpose()?;
        let mut added = Added::new(places, table);
        match build(places, table, planned, &mut added).await {
            Ok(new) => Ok(Self {
                places,
                table,
                added,
                new,
                moving,
            }),
            Err(e) => {
                added.discard().await;
                Err(e)
            }
        }
    }

    /// The segments.
    pub fn segments(&self) -> &[SegmentInfo] {
        &self.new
    }

    /// Puts them in the place of `removed`, and shows that. Realtime rows that are not in them leave their half: `left` gives
    /// what so many rows count as.
    ///
    /// # Errors
    /// `FailedPrecondition` when one of those has changed meanwhile; nothing of the new ones is left then.
    pub async fn apply(
        mut self,
        removed: &[Arc<SegmentInfo>],
        reason: ChangeReason,
        left: Option<Left>,
    ) -> Result<Vec<SegmentInfo>> {
        let of_half = |half: Half| {
            let mut all = removed.iter().map(|s| s.half);
            all.any(|of| of == half) || self.new.iter().any(|s| s.half == half)
        };
        if self.moving.is_some() && of_half(Half::Offline) && of_half(Half::Realtime) {
            self.added.discard().await;
            return Err(Error::internal(
                "both halves of a table whose rows have keys change at once",
            ));
        }
        let changes_pushed = of_half(Half::Offline);
        let left = match left {
            Some(left) => left_rows(self.places, self.table, (removed, &self.new), left).await?,
            None => Vec::new(),
        };
        let publisher = &self.places.publisher;
        let change = ChangeSegments {
            table: self.table.to_owned(),
            removed: contents(removed),
            added: self.new.clone(),
            reason,
            left,
        };
        let keys = async {
            if changes_pushed {
                let pushed = self.begin_pushed(removed).await?;
                return Ok((None, pushed));
            }
            let keys = KeysChange::begin(
                self.places,
                self.table,
                removed,
                (&self.new, self.moving.take()),
            );
            Ok((keys.await?, None))
        };
        let (keys, pushed) = match keys.await {
            Ok(keys) => keys,
            Err(e) => {
                self.added.discard().await;
                return Err(e);
            }
        };
        let of_change = self.added.hand_over();
        let changed = self.places.metastore.change_segments(change).await;
        self.added.take_back(of_change);
        self.added.discard().await;
        let version = match changed {
            Ok(version) => version.into_inner(),
            Err(e) => {
                if let Some(keys) = keys {
                    keys.give_up().await;
                }
                return Err(e);
            }
        };
        if let Some(keys) = &keys {
            keys.note_made();
        }
        publisher.publish().await?;
        if let Some(pushed) = pushed {
            pushed.shown();
        }
        let old = removed.iter().map(|s| (**s).clone()).collect();
        publisher.retire_segments(version, self.table, old);
        if let Some(keys) = keys {
            keys.finish(version).await;
        }
        Ok(self.new)
    }
}

impl Prepared<'_> {
    async fn begin_pushed(&self, removed: &[Arc<SegmentInfo>]) -> Result<Option<PushedChange>> {
        PushedChange::begin(self.places, self.table, |_, there| {
            let stays = |s: &&Arc<SegmentInfo>| removed.iter().all(|r| r.name != s.name);
            let stay = there.iter().filter(stays).cloned();
            stay.chain(self.new.iter().cloned().map(Arc::new)).collect()
        })
        .await
    }
}

/// [`Prepared::new`] and [`Prepared::apply`].
pub async fn apply(
    places: &Places,
    table: &str,
    removed: &[Arc<SegmentInfo>],
    planned: Vec<Planned>,
    reason: ChangeReason,
    left: Option<Left>,
) -> Result<Vec<SegmentInfo>> {
    let prepared = Prepared::new(places, table, planned).await?;
    prepared.apply(removed, reason, left).await
}

/// What rows that leave the realtime half count as.
pub type Left = fn(u64) -> IngestCounts;

/// Rows that the offline half takes over.
pub fn moved(rows: u64) -> IngestCounts {
    IngestCounts {
        moved: rows,
        ..IngestCounts::NONE
    }
}

/// Rows that are deleted.
pub fn deleted(rows: u64) -> IngestCounts {
    IngestCounts {
        deleted: rows,
        ..IngestCounts::NONE
    }
}

/// Rows that are given up because of their age.
pub fn expired(rows: u64) -> IngestCounts {
    IngestCounts {
        expired: rows,
        ..IngestCounts::NONE
    }
}

/// Rows that are superseded and not needed any more.
pub fn compacted(rows: u64) -> IngestCounts {
    IngestCounts {
        compacted: rows,
        ..IngestCounts::NONE
    }
}

/// Segments of a stream partition that go, and what comes in their place.
#[derive(Default)]
struct Group<'a> {
    old: Vec<&'a SegmentInfo>,
    new: Option<&'a SegmentInfo>,
}

/// For the offsets of each realtime segment of `added`, and of each of `removed` of whose offsets none of these is: the rows that
/// are not there any more, by the minutes of their events. Those of segments that can't be read have none.
async fn left_rows(
    places: &Places,
    table: &str,
    (removed, added): (&[Arc<SegmentInfo>], &[SegmentInfo]),
    left: Left,
) -> Result<Vec<LeftRows>> {
    let config = places.publisher.config(table, Half::Realtime);
    let time = config.and_then(|config| {
        EventTime::of(&config.spec.schema, config.time_column.as_deref()).map(Arc::new)
    });
    let mut groups: BTreeMap<(&StreamPartition, u64, u64), Group<'_>> = BTreeMap::new();
    for new in added {
        if let Some((partition, range)) = &new.origin {
            let of = (partition, range.start, range.end);
            groups.entry(of).or_default().new = Some(new);
        }
    }
    for old in removed {
        let Some((partition, range)) = &old.origin else {
            continue;
        };
        let holds = |(of, start, end): &&(&StreamPartition, u64, u64)| {
            *of == partition && *start <= range.start && range.end <= *end
        };
        let found = groups.keys().find(holds).copied();
        let of = found.unwrap_or((partition, range.start, range.end));
        groups.entry(of).or_default().old.push(old);
    }
    let mut all = Vec::new();
    for ((partition, start, end), Group { old, new }) in groups {
        let before: u64 = old.iter().map(|s| s.rows).sum();
        let rows = before.saturating_sub(new.map_or(0, |new| new.rows));
        if rows == 0 {
            continue;
        }
        let mut minutes: Option<RowsByMinute> = Some(RowsByMinute::new());
        for old in old {
            let of_old = rows_by_minute(places, table, &time, old).await;
            minutes = minutes.zip(of_old).map(|(mut sum, of_old)| {
                for (minute, rows) in of_old {
                    *sum.entry(minute).or_default() += rows;
                }
                sum
            });
        }
        let of_new = match new {
            Some(new) => rows_by_minute(places, table, &time, new).await,
            None => Some(RowsByMinute::new()),
        };
        let mut counts = MinuteCounts::default();
        match minutes.zip(of_new) {
            Some((of_old, of_new)) => {
                for (minute, rows) in of_old {
                    let stay = of_new.get(&minute).copied().unwrap_or(0);
                    counts.add(minute, left(rows.saturating_sub(stay)));
                }
            }
            None => counts.add(None, left(rows)),
        }
        all.push(LeftRows {
            partition: partition.clone(),
            range: OffsetRange { start, end },
            counts,
        });
    }
    Ok(all)
}

/// The rows of a segment by the minutes of their events; none where they can't be read.
async fn rows_by_minute(
    places: &Places,
    table: &str,
    time: &Option<Arc<EventTime>>,
    info: &SegmentInfo,
) -> Option<RowsByMinute> {
    let Some(time) = time.clone() else {
        return Some(RowsByMinute::from([(None, info.rows)]));
    };
    let hosted = places.publisher.registry().table(table);
    let read = match hosted.open(&info.name, info.checksum) {
        Ok(segment) => {
            let spawner = &places.environment.spawner;
            blocking(spawner, "look at times", move || {
                in_background(|| time.of_segment(&*segment))
            })
            .await
        }
        Err(e) => Err(e),
    };
    match read {
        Ok(rows) => Some(rows),
        Err(e) => {
            tracing::warn!(table, segment = %info.name, error = %e, "rows leave without being counted by their times");
            None
        }
    }
}

struct Job {
    files: Arc<dyn Files>,
    staging: PathBuf,
    name: String,
    config: Arc<TableConfig>,
    lineage: Arc<Lineage>,
    half: Half,
    origin: Option<(StreamPartition, OffsetRange)>,
    moved: bool,
    pushed_in: u64,
    rebuilt: bool,
    /// Of the rows, where they have any.
    keys: Option<Arc<TableKeys>>,
}

impl Job {
    /// `sources`: parts, each with its segment.
    fn run(
        self,
        sources: Vec<(Arc<ImmutableSegment>, Part)>,
    ) -> Result<Vec<(SegmentInfo, PathBuf)>> {
        let mut built = Vec::new();
        let mut current: Option<SegmentBuilder> = None;
        for (segment, part) in sources {
            let version = part.source.schema_version;
            let docs = self.docs(&segment, part.take)?;
            let remembered = self.remembered(&segment, version, &part.deleted)?;
            let coming = docs
                .as_ref()
                .map_or(segment.info().rows, |d| d.len() as u64);
            if coming == 0 && remembered.is_empty() {
                continue;
            }
            let is_full = |builder: &SegmentBuilder| {
                builder.rows() + coming > ROWS_MAX || builder.bytes_estimate() >= BYTES_MAX
            };
            if self.origin.is_none() && current.as_ref().is_some_and(is_full) {
                self.cut(&mut current, &mut built)?;
            }
            let builder = match &mut current {
                Some(builder) => builder,
                None => {
                    let name = format!("{}_{}", self.name, built.len());
                    let spec = Arc::clone(&self.config.spec);
                    let origin = self.origin.clone();
                    current.insert(SegmentBuilder::new(spec, &name, self.half, origin)?)
                }
            };
            builder.remember(remembered);
            let schema = &self.config.spec.schema;
            let source = Source {
                segment: &segment,
                version,
                lineage: &self.lineage,
            };
            add_rows(
                builder,
                schema,
                source,
                docs.as_deref(),
                self.origin.is_some(),
            )?;
        }
        self.cut(&mut current, &mut built)?;
        Ok(built)
    }

    /// The deleted keys that are to be remembered instead of by `segment`.
    fn remembered(
        &self,
        segment: &Arc<ImmutableSegment>,
        version: u32,
        deleted: &[DocId],
    ) -> Result<Vec<DeletedKey>> {
        let Some(keys) = &self.keys else {
            return Ok(Vec::new());
        };
        let name = &segment.info().name;
        let segment = Arc::clone(segment) as Arc<dyn SegmentReader>;
        let adapted = adapt(segment, version, &self.config.spec.schema, &self.lineage);
        keys.remembered(name, &*adapted, deleted)
    }

    fn docs(&self, segment: &ImmutableSegment, take: Take) -> Result<Option<Vec<DocId>>> {
        let by_time = |intervals: &[Interval], outside| {
            let schema = &self.config.spec.schema;
            let time = self.config.time_column.as_deref();
            let column = time.and_then(|name| schema.column(name)).ok_or_else(|| {
                Error::precondition(format!("table {} has no time column", self.config.name))
            })?;
            docs_by_time(segment, column, intervals, outside).map(Some)
        };
        match take {
            Take::All => Ok(None),
            Take::Docs(docs) => Ok(Some(docs)),
            Take::Inside(intervals) => by_time(&intervals, false),
            Take::Outside(intervals) => by_time(&intervals, true),
        }
    }

    fn cut(
        &self,
        current: &mut Option<SegmentBuilder>,
        built: &mut Vec<(SegmentInfo, PathBuf)>,
    ) -> Result<()> {
        let Some(builder) = current.take() else {
            return Ok(());
        };
        let path = self
            .staging
            .join(format!("{}_{}.merge", self.name, built.len()));
        let info = builder.finish(&self.files, &path)?;
        let info = SegmentInfo {
            stored_as: Some(self.config.spec.fingerprint()),
            moved: self.moved,
            pushed_in: self.pushed_in,
            rebuilt: self.rebuilt,
            ..info
        };
        built.push((info, path));
        Ok(())
    }
}
