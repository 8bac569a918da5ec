//! Files become segment files: the blocking part of a load, and all that `strandline build` does on a job's own machine.
//!
//! One job reads and converts batches, another builds segments of them, a few batches behind; a segment's columns are
//! written several at a time. One segment at a time is in memory. Each is handed over when it is made, so that it is stored
//! while the next is made.

use crate::allocator::{give_back, memory};
use arrow::array::RecordBatch;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::available_parallelism;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::Half;
use strandline_proto::v1::LoadCount;
use strandline_proto::{Error, Result};
use strandline_storage::config::TableConfig;
use strandline_storage::environment::{Environment, Files, blocking};
use strandline_storage::input::{self, InputFormat};
use strandline_storage::segment::builder::SegmentBuilder;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

/// Rows of a segment unless it is asked for other: few enough that to build one takes as much memory as to build a
/// hundred.
pub const SEGMENT_ROWS_DEFAULT: u64 = 1_000_000;
/// What a segment in the making may hold in memory before it is cut, in bytes.
const SEGMENT_BYTES_MAX: u64 = 160 << 20;
/// The same for one of more rows than [`SEGMENT_ROWS_DEFAULT`], as a part of the memory there is; no less than the above.
const MEMORY_PART_MAX: u64 = 16;
/// Rows read together.
const BATCH_ROWS: usize = 8_192;
/// Places for batches that are read before the one that is built: while a segment is written, nothing is taken.
const PLACES_AHEAD: usize = 12;
/// Bytes of rows to a place; larger batches take several.
const PLACE_BYTES: usize = 8 << 20;

/// Called with what was done so far.
pub type Progress = Arc<dyn Fn(LoadCount) + Send + Sync>;

/// Segment files of a table's offline half, to be made.
pub struct SegmentBuild {
    /// The offline table.
    pub config: Arc<TableConfig>,
    /// Files, as [`input::expand`] gives them.
    pub inputs: Vec<PathBuf>,
    /// Format of the files; by their names otherwise.
    pub format: Option<InputFormat>,
    /// Rows of a segment at most.
    pub rows_max: u64,
    /// Folder for the segment files.
    pub dir: PathBuf,
    /// Told after each batch.
    pub progress: Progress,
    /// Ends the build.
    pub stop: CancellationToken,
}

/// A segment file that was made.
pub struct BuiltSegment {
    /// What it holds.
    pub info: SegmentInfo,
    /// Where it is.
    pub path: PathBuf,
}

/// A place on the way to the builder: rows, or none where the next ones take more than it.
type Place = Option<Read>;

/// Rows on their way to the builder.
struct Read {
    rows: RecordBatch,
    /// Bytes of all files up to here.
    bytes: u64,
    /// Rows of all files up to here that were left out.
    filtered: u64,
}

impl SegmentBuild {
    /// Makes the segment files, and hands each to `made`; gives how many rows the table's filter left out. Ends early when
    /// nobody takes them.
    ///
    /// # Errors
    /// What is wrong with a file, by file, column and row; what was made until then stays in the folder.
    pub async fn run(
        self,
        environment: &Environment,
        made: UnboundedSender<BuiltSegment>,
    ) -> Result<u64> {
        let inputs: Arc<[PathBuf]> = self.inputs.into();
        let (batches, read) = sync_channel(PLACES_AHEAD);
        let reading = Reading {
            config: Arc::clone(&self.config),
            inputs: Arc::clone(&inputs),
            format: self.format,
            stop: self.stop.clone(),
        };
        let building = Building {
            cutter: Cutter::new(self.config, environment, self.rows_max, self.dir),
            inputs,
            progress: self.progress,
            stop: self.stop,
            count: LoadCount::default(),
            made,
        };
        let (read, built) = tokio::join!(
            blocking(&environment.spawner, "read files", move || reading
                .run(&batches)),
            blocking(&environment.spawner, "build segments", move || building
                .run(&read)),
        );
        // The builder ends early when the reader does, so the reader's error comes first.
        read?;
        built
    }
}

/// The job that reads.
struct Reading {
    config: Arc<TableConfig>,
    inputs: Arc<[PathBuf]>,
    format: Option<InputFormat>,
    stop: CancellationToken,
}

impl Reading {
    fn run(self, batches: &SyncSender<Place>) -> Result<()> {
        // Whatever ends the reading early, also a panic, must not look like the end of the files.
        let stop_builder = self.stop.clone().drop_guard();
        let (mut before, mut filtered_before) = (0, 0);
        for file in self.inputs.iter() {
            let mut source = input::open(file, self.format, &self.config, BATCH_ROWS)?;
            while let Some(rows) = source.next_batch()? {
                let bytes = before + source.bytes_read();
                let filtered = filtered_before + source.filtered();
                let more = rows.get_array_memory_size() / PLACE_BYTES;
                let empty = std::iter::repeat_with(|| None).take(more);
                let mut places = empty.chain([Some(Read {
                    rows,
                    bytes,
                    filtered,
                })]);
                if self.stop.is_cancelled() || places.any(|place| batches.send(place).is_err()) {
                    // The builder says why.
                    return Ok(());
                }
            }
            before += source.bytes_total();
            filtered_before += source.filtered();
        }
        stop_builder.disarm();
        Ok(())
    }
}

/// What a segment of at most so many rows may hold while it is made, in bytes.
fn bytes_max(rows: u64) -> u64 {
    let part = match memory() {
        Some(memory) if rows > SEGMENT_ROWS_DEFAULT => memory / MEMORY_PART_MAX,
        _ => 0,
    };
    part.max(SEGMENT_BYTES_MAX)
}

/// The job that builds.
struct Building {
    cutter: Cutter,
    inputs: Arc<[PathBuf]>,
    progress: Progress,
    stop: CancellationToken,
    count: LoadCount,
    made: UnboundedSender<BuiltSegment>,
}

impl Building {
    fn run(mut self, batches: &Receiver<Place>) -> Result<u64> {
        self.count.bytes_total = input::total_bytes(&self.inputs);
        while let Ok(place) = batches.recv() {
            self.check_stop()?;
            let Some(Read {
                rows,
                bytes,
                filtered,
            }) = place
            else {
                continue;
            };
            self.add(&rows)?;
            self.count.rows += rows.num_rows() as u64;
            self.count.bytes_read = bytes;
            self.count.rows_filtered = filtered;
            (self.progress)(self.count);
        }
        self.check_stop()?;
        if let Some(segment) = self.cutter.cut()? {
            self.hand_over(segment)?;
        }
        self.count.bytes_read = self.count.bytes_total;
        (self.progress)(self.count);
        Ok(self.count.rows_filtered)
    }

    fn check_stop(&self) -> Result<()> {
        // Where nobody takes segments any more, who was to says why.
        if self.stop.is_cancelled() || self.made.is_closed() {
            return Err(Error::cancelled("cancelled; nothing of it was kept"));
        }
        Ok(())
    }

    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut from = 0;
        while from < rows.num_rows() {
            let (taken, segment) = self.cutter.add(rows, from)?;
            from += taken;
            if let Some(segment) = segment {
                self.hand_over(segment)?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, segment: BuiltSegment) -> Result<()> {
        if self.made.send(segment).is_err() {
            return self.check_stop();
        }
        self.count.segments_built += 1;
        Ok(())
    }
}

/// Makes segment files of an offline half of rows that come in batches. The rows of one segment are in memory.
pub(super) struct Cutter {
    config: Arc<TableConfig>,
    files: Arc<dyn Files>,
    run: String,
    rows_max: u64,
    bytes_max: u64,
    dir: PathBuf,
    current: Option<(String, SegmentBuilder)>,
    built: u64,
}

impl Cutter {
    /// Segments of at most `rows_max` rows, whose files go into the folder `dir`.
    pub(super) fn new(
        config: Arc<TableConfig>,
        environment: &Environment,
        rows_max: u64,
        dir: PathBuf,
    ) -> Self {
        Self {
            // Unique for all time, so that what is built apart can be pushed into one table.
            run: environment.random.uuid().simple().to_string()[..12].to_owned(),
            files: Arc::clone(&environment.files),
            config,
            rows_max: rows_max.max(1),
            bytes_max: bytes_max(rows_max),
            dir,
            current: None,
            built: 0,
        }
    }

    /// Adds rows from a batch's row `from` on, which it has, as far as they go into the segment in the making; gives how many, and
    /// the segment when that is full.
    pub(super) fn add(
        &mut self,
        rows: &RecordBatch,
        from: usize,
    ) -> Result<(usize, Option<BuiltSegment>)> {
        let (_, builder) = match &mut self.current {
            Some(current) => current,
            None => {
                let table = &self.config.name;
                let name = format!("{table}__{}_{}", self.run, self.built);
                let spec = Arc::clone(&self.config.spec);
                let builder = SegmentBuilder::new(spec, &name, Half::Offline, None)?;
                let threads = available_parallelism().map_or(1, usize::from);
                self.current.insert((name, builder.with_threads(threads)))
            }
        };
        let room = self.rows_max.saturating_sub(builder.rows());
        let take = usize::try_from(room)
            .unwrap_or(usize::MAX)
            .clamp(1, rows.num_rows().saturating_sub(from).max(1));
        builder.push(&rows.slice(from, take))?;
        let is_full =
            builder.rows() >= self.rows_max || builder.bytes_estimate() as u64 >= self.bytes_max;
        let segment = match is_full {
            true => self.cut()?,
            false => None,
        };
        Ok((take, segment))
    }

    /// Ends the segment in the making, if there is one.
    pub(super) fn cut(&mut self) -> Result<Option<BuiltSegment>> {
        let Some((name, builder)) = self.current.take() else {
            return Ok(None);
        };
        let path = self.dir.join(format!("{name}.seg"));
        let finished = builder.finish(&self.files, &path).map(|info| SegmentInfo {
            stored_as: Some(self.config.spec.fingerprint()),
            ..info
        });
        // Else the next segment would grow beside what was this one.
        give_back();
        let info = finished?;
        self.built += 1;
        check_times(&self.config, &info)?;
        Ok(Some(BuiltSegment { info, path }))
    }
}

/// A row without a time would belong to neither half.
pub(super) fn check_times(config: &TableConfig, info: &SegmentInfo) -> Result<()> {
    let Some(time) = &config.time_column else {
        return Ok(());
    };
    match info.columns.iter().find(|c| c.name == *time) {
        Some(stats) if stats.nulls > 0 => Err(Error::invalid(format!(
            "{} rows have no value in the time column {time}: give each row a time, or the column a defaultNullValue in the schema",
            stats.nulls
        ))),
        _ => Ok(()),
    }
}
