//! The flights, carried inside of the binary so that the quickstart works from any folder and offline.

use bytes::Bytes;
use std::path::{Path, PathBuf};
use strandline_proto::v1::Message;
use strandline_proto::{Error, Result};

/// The table.
pub(super) const TABLE: &str = "airlineStats";
/// The topic that its realtime half reads, with two partitions.
pub(super) const TOPIC: &str = "flights";
/// Partitions of the topic.
pub(super) const PARTITIONS: u32 = 2;
/// Rows of the stream.
pub(super) const STREAM_ROWS: u64 = 3_705;
/// The days that the offline files hold completely: [2014-01-01, 2014-01-25).
pub(super) const COVERAGE_MS: (i64, i64) = (1_388_534_400_000, 1_390_608_000_000);

pub(super) const SCHEMA: &str = include_str!("../../../quickstart/schema.json");
pub(super) const OFFLINE_CONFIG: &str = include_str!("../../../quickstart/offline.json");
pub(super) const REALTIME_CONFIG: &str = include_str!("../../../quickstart/realtime.json");

const OFFLINE_FILES: [(&str, &[u8]); 3] = [
    (
        "airlineStats_2014-01-01_08.parquet",
        include_bytes!("../../../quickstart/airlineStats_2014-01-01_08.parquet"),
    ),
    (
        "airlineStats_2014-01-09_16.parquet",
        include_bytes!("../../../quickstart/airlineStats_2014-01-09_16.parquet"),
    ),
    (
        "airlineStats_2014-01-17_24.parquet",
        include_bytes!("../../../quickstart/airlineStats_2014-01-17_24.parquet"),
    ),
];
const STREAM: &[u8] = include_bytes!("../../../quickstart/airlineStats_2014-01-20_31.jsonl.zst");

/// Writes the offline half's files into `folder`.
pub(super) fn write_offline_files(folder: &Path) -> Result<Vec<PathBuf>> {
    OFFLINE_FILES
        .iter()
        .map(|(name, bytes)| {
            let path = folder.join(name);
            std::fs::write(&path, bytes)
                .map_err(|error| Error::unavailable(format!("file {}: {error}", path.display())))?;
            Ok(path)
        })
        .collect()
}

/// The stream's messages in order, each a JSON object.
pub(super) fn stream_messages() -> Result<Vec<Message>> {
    let text = zstd::decode_all(STREAM)
        .map_err(|error| Error::internal(format!("the stream's data: {error}")))?;
    let text = Bytes::from(text);
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    Ok(lines
        .map(|line| Message {
            payload: text.slice_ref(line),
            ..Message::default()
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_has_the_rows_that_are_promised() {
        let messages = stream_messages().unwrap();
        assert_eq!(messages.len() as u64, STREAM_ROWS);
        let hidden = messages.iter().filter(|message| {
            let row: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            row["DaysSinceEpoch"].as_i64().unwrap() < COVERAGE_MS.1 / 86_400_000
        });
        assert_eq!(hidden.count(), 1_548);
    }

    #[test]
    fn the_files_have_the_rows_that_are_promised() {
        let rows = |bytes: &'static [u8]| {
            let reader =
                parquet::file::reader::SerializedFileReader::new(Bytes::from_static(bytes))
                    .unwrap();
            use parquet::file::reader::FileReader as _;
            reader.metadata().file_metadata().num_rows()
        };
        assert_eq!(
            OFFLINE_FILES
                .iter()
                .map(|(_, bytes)| rows(bytes))
                .sum::<i64>(),
            7_589
        );
    }

    #[test]
    fn the_documents_are_json() {
        for text in [SCHEMA, OFFLINE_CONFIG, REALTIME_CONFIG] {
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
        assert!(REALTIME_CONFIG.contains(TOPIC) && OFFLINE_CONFIG.contains(TABLE));
    }
}
