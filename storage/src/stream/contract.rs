//! What every stream must do, as a suite to run against any of them.
//!
//! It needs a topic with at least two partitions, empty or not, to which nobody else writes meanwhile, and a
//! way to produce. The embedded log runs it here, Apache Kafka in the end-to-end tests.

use super::{Message, MessageBatch, Stream};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::time::Duration;
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, ErrorKind, Result};

/// Appends (key, payload) pairs, in order, to a partition, and ends when they can be read.
pub type Produce<'a> =
    &'a (dyn Fn(u32, Vec<(Option<Bytes>, Bytes)>) -> BoxFuture<'a, Result<()>> + Sync);

const SOON: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

fn claim(holds: bool, claim: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::internal(format!("stream contract: {claim}")))
    }
}

fn payloads(messages: &[Message]) -> Vec<Bytes> {
    messages.iter().map(|m| m.payload.clone()).collect()
}

fn numbered(prefix: &str, count: usize) -> Vec<(Option<Bytes>, Bytes)> {
    (0..count)
        .map(|i| {
            (
                (i % 2 == 0).then(|| Bytes::from(format!("k{i}"))),
                Bytes::from(format!("{prefix}{i}")),
            )
        })
        .collect()
}

/// Reads until `count` messages came; checks order and progress on the way.
async fn read(
    stream: &dyn Stream,
    partition: u32,
    from: u64,
    count: usize,
    messages_max: usize,
) -> Result<(Vec<Message>, u64)> {
    let mut reader = stream.open(partition, from).await?;
    let (mut all, mut next): (Vec<Message>, u64) = (Vec::new(), from);
    while all.len() < count {
        let MessageBatch {
            messages,
            next_offset,
            lost,
            archived: _,
        } = reader.next(messages_max, 1 << 20, LONG).await?;
        claim(lost.is_none(), "nothing is lost while nothing is removed")?;
        claim(
            !messages.is_empty(),
            "messages that are there come within the wait",
        )?;
        claim(
            messages.len() <= messages_max,
            "a batch holds no more messages than asked for",
        )?;
        for message in &messages {
            claim(message.offset >= next, "offsets ascend")?;
            next = message.offset + 1;
        }
        claim(
            next_offset >= next,
            "the next offset is past the last message",
        )?;
        next = next_offset;
        all.extend(messages);
    }
    Ok((all, next))
}

/// Runs the whole suite; the error says which claim did not hold.
pub async fn check(stream: &dyn Stream, produce: Produce<'_>) -> Result<()> {
    claim(
        stream.partitions().await? >= 2,
        "the suite is given a topic with two partitions",
    )?;
    reads_what_was_produced(stream, produce).await?;
    waits_and_wakes(stream, produce).await?;
    limits_batches(stream, produce).await?;
    refuses_offsets_past_the_end(stream).await
}

/// Whether offsets are found by time; messages get the time at which they are produced.
pub async fn check_times(stream: &dyn Stream, produce: Produce<'_>) -> Result<()> {
    let OffsetRange { end: from, .. } = stream.offsets(0).await?;
    for text in ["early", "late"] {
        // No two messages of one moment, nor one of what was there before.
        tokio::time::sleep(SOON / 4).await;
        produce(0, vec![(None, Bytes::from_static(text.as_bytes()))]).await?;
    }
    let (messages, _) = read(stream, 0, from, 2, 10).await?;
    let [early, late] = messages.as_slice() else {
        return claim(false, "both messages are read");
    };
    claim(early.timestamp_ms < late.timestamp_ms, "times ascend")?;
    for (timestamp_ms, expected) in [
        (early.timestamp_ms, early.offset),
        (early.timestamp_ms + 1, late.offset),
        (late.timestamp_ms, late.offset),
        (late.timestamp_ms + 86_400_000, stream.offsets(0).await?.end),
    ] {
        claim(
            stream.offset_at(0, timestamp_ms).await? == expected,
            "the first offset of a time is that of the first message written then or later",
        )?;
    }
    claim(
        stream.offset_at(0, 1).await? == stream.offsets(0).await?.start,
        "all that is held was written after 1970",
    )
}

async fn reads_what_was_produced(stream: &dyn Stream, produce: Produce<'_>) -> Result<()> {
    let before = stream.offsets(0).await?;
    let other = stream.offsets(1).await?;
    let produced = numbered("a", 25);
    produce(0, produced.clone()).await?;
    produce(0, vec![(None, Bytes::new())]).await?;
    claim(stream.offsets(1).await? == other, "partitions are apart")?;
    let after = stream.offsets(0).await?;
    claim(
        after.start == before.start && after.end >= before.end + 26,
        "the end moves with what is produced",
    )?;
    for messages_max in [1, 7, 1000] {
        let (messages, next) = read(stream, 0, before.end, 26, messages_max).await?;
        let expected: Vec<_> = produced
            .iter()
            .map(|(_, payload)| payload.clone())
            .chain([Bytes::new()])
            .collect();
        claim(
            payloads(&messages) == expected,
            "the payloads are those produced, in order",
        )?;
        let keys = messages
            .iter()
            .zip(&produced)
            .all(|(message, (key, _))| message.key == *key);
        claim(
            keys,
            "keys are those produced, and absent where none was given",
        )?;
        claim(
            messages.iter().all(|m| m.timestamp_ms > 0),
            "each message has a time",
        )?;
        claim(next <= after.end, "the next offset does not pass the end")?;
        if let Some(tenth) = messages.get(10) {
            let (rest, _) = read(stream, 0, tenth.offset, 16, 100).await?;
            claim(
                rest.first() == Some(tenth),
                "a reader begins at the offset it was given",
            )?;
        }
    }
    Ok(())
}

async fn waits_and_wakes(stream: &dyn Stream, produce: Produce<'_>) -> Result<()> {
    let OffsetRange { end, .. } = stream.offsets(1).await?;
    let mut reader = stream.open(1, end).await?;
    let idle = reader.next(10, 1 << 20, SOON).await?;
    claim(
        idle.messages.is_empty() && idle.lost.is_none() && idle.next_offset >= end,
        "an idle read ends empty after its wait",
    )?;
    let (read, produced) = futures::join!(reader.next(10, 1 << 20, LONG), async {
        tokio::time::sleep(SOON / 4).await;
        produce(1, vec![(None, Bytes::from_static(b"wake"))]).await
    });
    produced?;
    claim(
        payloads(&read?.messages) == [Bytes::from_static(b"wake")],
        "a waiting reader gets a message as it arrives",
    )?;
    // A read that is dropped while it waits must not take messages with it.
    for i in 0..5 {
        let dropped =
            tokio::time::timeout(Duration::from_millis(i), reader.next(10, 1 << 20, LONG)).await;
        claim(dropped.is_err(), "nothing comes while nothing is produced")?;
    }
    produce(1, numbered("after", 3)).await?;
    let mut got = Vec::new();
    while got.len() < 3 {
        got.extend(payloads(&reader.next(2, 1 << 20, LONG).await?.messages));
    }
    claim(
        got == numbered("after", 3)
            .into_iter()
            .map(|(_, p)| p)
            .collect::<Vec<_>>(),
        "a dropped read loses nothing",
    )
}

async fn limits_batches(stream: &dyn Stream, produce: Produce<'_>) -> Result<()> {
    let OffsetRange { end, .. } = stream.offsets(0).await?;
    let large = Bytes::from(vec![7; 10_000]);
    produce(0, vec![(None, large.clone()); 10]).await?;
    let mut reader = stream.open(0, end).await?;
    let mut read = 0;
    while read < 10 {
        let batch = reader.next(100, 25_000, LONG).await?;
        claim(
            (1..=3).contains(&batch.messages.len()),
            "a batch ends with the message that reaches the byte limit",
        )?;
        read += batch.messages.len();
    }
    let mut reader = stream.open(0, end).await?;
    let batch = reader.next(100, 1, LONG).await?;
    claim(
        payloads(&batch.messages) == [large],
        "a message larger than the limit comes alone",
    )
}

async fn refuses_offsets_past_the_end(stream: &dyn Stream) -> Result<()> {
    let OffsetRange { end, .. } = stream.offsets(0).await?;
    let refused = match stream.open(0, end + 1_000).await {
        Ok(mut reader) => reader.next(10, 1 << 20, LONG).await.err(),
        Err(error) => Some(error),
    };
    claim(
        refused.is_some_and(|e| e.kind() == ErrorKind::FailedPrecondition),
        "an offset past the end is refused",
    )?;
    let partitions = stream.partitions().await?;
    claim(
        stream.offsets(partitions).await.is_err(),
        "a partition that is not there is refused",
    )
}
