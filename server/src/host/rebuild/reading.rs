//! Archived messages of one partition into rows, and rows into segments of the range.

use crate::host::added::Places;
use crate::host::build::{BuiltSegment, Cutter};
use crate::host::realtime::{ConsumedStream, schemas};
use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{OffsetRange, StreamPartition};
use strandline_proto::{Error, Result};
use strandline_storage::archive::{Archive, ArchiveObject, covering, next_start};
use strandline_storage::config::{StreamConfig, StreamKind, TableConfig};
use strandline_storage::decode::registry::SchemaRegistry;
use strandline_storage::decode::{Decoded, Decoder, Stopped};
use strandline_storage::environment::{Environment, blocking, in_background};
use strandline_storage::segment::event_time::EventTime;
use strandline_storage::stream::Message;
use tokio::sync::mpsc::UnboundedSender;

/// What became of the messages that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// How many they are.
    pub(super) messages: u64,
    /// Rows that the table's filter left out.
    pub(super) filtered: u64,
    /// Messages that gave no row.
    pub(super) failed: u64,
    /// Rows of other times.
    pub(super) outside: u64,
}

/// The archive of a partition while it is read.
pub(super) struct Reading {
    partition: StreamPartition,
    stream: Arc<StreamConfig>,
    archive: Archive,
    /// Its objects when they were looked at last.
    objects: Vec<ArchiveObject>,
    /// None while it works.
    decoder: Option<Decoder>,
    schemas: Option<Arc<SchemaRegistry>>,
    /// Messages before it were read; none before it began.
    next: Option<u64>,
}

impl Reading {
    /// Of a partition of a stream of `config`.
    pub(super) async fn new(
        places: &Places,
        config: &Arc<TableConfig>,
        (partition, stream): (&StreamPartition, &ConsumedStream),
    ) -> Result<Self> {
        let stream = Arc::clone(&stream.config);
        let schemas = schemas(&stream, &places.environment);
        let (of_table, of_stream) = (Arc::clone(config), Arc::clone(&stream));
        let (number, registry) = (partition.partition, schemas.clone());
        let spawner = &places.environment.spawner;
        let decoder = blocking(spawner, "make decoder", move || {
            Decoder::new(&of_table, &of_stream, number, registry)
        });
        let archive = Archive::of_partition(&places.deep_store, &config.name, partition);
        Ok(Self {
            partition: partition.clone(),
            stream,
            archive,
            objects: Vec::new(),
            decoder: Some(decoder.await?),
            schemas,
            next: None,
        })
    }

    /// The partition.
    pub(super) fn partition(&self) -> &StreamPartition {
        &self.partition
    }

    /// The kind of its stream, as configs write it.
    pub(super) fn stream_kind(&self) -> &'static str {
        match self.stream.kind {
            StreamKind::Kafka => "kafka",
            StreamKind::Log => "log",
        }
    }

    /// Whether what is read of it now is archived.
    pub(super) fn archives(&self) -> bool {
        self.stream.archive
    }

    /// Looks at what there is.
    pub(super) async fn look(&mut self) -> Result<()> {
        self.objects = self.archive.objects(self.partition.partition).await?;
        Ok(())
    }

    /// What there was when it was looked.
    pub(super) fn objects(&self) -> &[ArchiveObject] {
        &self.objects
    }

    /// Reads on up to the end of `committed`, each offset once. It begins with the archive, which may have more than the table
    /// has read since it was created.
    pub(super) async fn read_to(
        &mut self,
        committed: OffsetRange,
        environment: &Environment,
        (mut rows, made): (Rows, &UnboundedSender<BuiltSegment>),
    ) -> Result<Rows> {
        let oldest = self.objects.first().map(|object| object.offsets().start);
        let begin = oldest.map_or(committed.start, |oldest| oldest.min(committed.start));
        let mut next = self.next.unwrap_or(begin);
        while next < committed.end {
            let Some(object) = covering(&self.objects, next).cloned() else {
                // What nobody has; whether that may be was looked at before.
                let later = next_start(&self.objects, next);
                next = later.unwrap_or(committed.end).min(committed.end);
                continue;
            };
            let mut reader = self.archive.open(&object, next).await?;
            while let Some(mut messages) = reader.next_block().await? {
                messages.retain(|message| message.offset < committed.end);
                rows = self.decode(messages, environment, (rows, made)).await?;
            }
            next = object.offsets().end.min(committed.end);
        }
        self.next = Some(next);
        Ok(rows)
    }

    async fn decode(
        &mut self,
        messages: Vec<Message>,
        environment: &Environment,
        (mut rows, made): (Rows, &UnboundedSender<BuiltSegment>),
    ) -> Result<Rows> {
        let messages: Arc<[Message]> = messages.into();
        let mut done = 0;
        while done < messages.len() {
            let mut decoder = (self.decoder.take())
                .ok_or_else(|| Error::internal("a decoder that failed is asked again"))?;
            let rest = Arc::clone(&messages);
            let spawner = &environment.spawner;
            let (decoder, back, read, built, stopped) =
                blocking(spawner, "rebuild rows", move || {
                    in_background(|| {
                        let decoded = decoder.decode(rest.get(done..).unwrap_or_default());
                        let (read, stopped) = (decoded.read, decoded.stopped.clone());
                        let built = rows.add(decoded)?;
                        Ok((decoder, rows, read, built, stopped))
                    })
                })
                .await?;
            self.decoder = Some(decoder);
            rows = back;
            done += read;
            hand_over(built, made)?;
            match stopped {
                None => {}
                Some(Stopped::Schema(id)) => match &self.schemas {
                    Some(schemas) => schemas.fetch(id).await?,
                    None => return Err(Error::internal("a message's schema without a registry")),
                },
                Some(Stopped::Wrong(wrong)) => {
                    return Err(Error::precondition(format!(
                        "{}: offset {}: {}; the stream is strict, so nothing was rebuilt: mend the table's config or schema, or set strict to false, which leaves the message out",
                        self.partition, wrong.offset, wrong.reason
                    )));
                }
            }
        }
        Ok(rows)
    }
}

/// Rows on their way into segments of the range.
pub(super) struct Rows {
    cutter: Cutter,
    time: EventTime,
    interval: Interval,
    counts: Counts,
}

impl Rows {
    /// None yet, for segments of at most so many rows, whose files go into a folder.
    pub(super) fn new(
        (offline, rows_max, dir): (&Arc<TableConfig>, u64, PathBuf),
        interval: Interval,
        environment: &Environment,
    ) -> Result<Self> {
        let time = EventTime::of(&offline.spec.schema, offline.time_column.as_deref());
        Ok(Self {
            cutter: Cutter::new(Arc::clone(offline), environment, rows_max, dir),
            time: time.ok_or_else(|| {
                Error::precondition(format!("table {} has no time column", offline.name))
            })?,
            interval,
            counts: Counts::default(),
        })
    }

    /// What became of the messages up to here.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Adds those rows of a batch that are of the range; gives the segments that are full.
    fn add(&mut self, decoded: Decoded) -> Result<Vec<BuiltSegment>> {
        let rows = self.of_range(&decoded.batch)?;
        self.counts.messages += decoded.read as u64;
        self.counts.filtered += decoded.filtered;
        self.counts.failed += decoded.rejected.len() as u64;
        self.counts.outside += (decoded.batch.num_rows() - rows.num_rows()) as u64;
        let mut built = Vec::new();
        let mut from = 0;
        while from < rows.num_rows() {
            let (taken, segment) = self.cutter.add(&rows, from)?;
            from += taken;
            built.extend(segment);
        }
        Ok(built)
    }

    fn of_range(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let column = &self.time.column().name;
        let times = batch
            .column_by_name(column)
            .ok_or_else(|| Error::internal(format!("rows came without their time {column}")))?;
        let within = self.time.within(times, self.interval);
        filter_record_batch(batch, &within)
            .map_err(|e| Error::internal(format!("rows of the range can't be taken: {e}")))
    }

    /// Makes the last segment; gives what became of the messages.
    pub(super) async fn finish(
        mut self,
        environment: &Environment,
        made: &UnboundedSender<BuiltSegment>,
    ) -> Result<Counts> {
        let counts = self.counts;
        let built = blocking(&environment.spawner, "build segment", move || {
            in_background(|| self.cutter.cut())
        });
        hand_over(built.await?, made)?;
        Ok(counts)
    }
}

fn hand_over(
    built: impl IntoIterator<Item = BuiltSegment>,
    made: &UnboundedSender<BuiltSegment>,
) -> Result<()> {
    for BuiltSegment { mut info, path } in built {
        info.rebuilt = true;
        // Where nobody takes segments any more, who was to says why.
        made.send(BuiltSegment { info, path })
            .map_err(|_| Error::cancelled("cancelled; nothing of it was kept"))?;
    }
    Ok(())
}
