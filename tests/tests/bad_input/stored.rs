//! Stored segments whose files are damaged between two starts: no answer is ever given from them or without them, the
//! error names them, and everything else goes on.

use crate::PROGRAM;
use std::path::{Path, PathBuf};
use strandline_tests::refusal::{self, create_offline, expect, number};

fn files_under(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_under(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// A change of a file's bytes; none: the file goes.
type Damage = fn(Vec<u8>) -> Option<Vec<u8>>;

fn flipped(mut bytes: Vec<u8>, at: usize) -> Option<Vec<u8>> {
    bytes[at] ^= 1;
    Some(bytes)
}

const DAMAGES: [(&str, Damage); 7] = [
    (
        "a stored segment with a flipped bit in its header",
        |bytes| flipped(bytes, 9),
    ),
    (
        "a stored segment with a flipped bit in its middle",
        |bytes| {
            let middle = bytes.len() / 2;
            flipped(bytes, middle)
        },
    ),
    ("a stored segment with a flipped bit at its end", |bytes| {
        let last = bytes.len() - 1;
        flipped(bytes, last)
    }),
    ("a stored segment cut in half", |bytes| {
        Some(bytes[..bytes.len() / 2].to_vec())
    }),
    ("a stored segment cut by a byte", |bytes| {
        Some(bytes[..bytes.len() - 1].to_vec())
    }),
    ("a stored segment cut to nothing", |_| Some(Vec::new())),
    ("a stored segment that is gone", |_| None),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_is_named_and_the_rest_answers() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, mut client) = refusal::server(PROGRAM, data.path()).await;
    create_offline(&mut client, "hurt", 0..200).await;
    create_offline(&mut client, "whole", 0..30).await;
    let segment = {
        let request = strandline_proto::v1::ListSegmentsRequest {
            table: "hurt".to_owned(),
        };
        let listed = client.admin.list_segments(request).await.expect("a list");
        listed.into_inner().segments[0].name.clone()
    };
    let mut stored = Vec::new();
    files_under(&data.path().join("deep").join("hurt"), &mut stored);
    let [path] = stored.as_slice() else {
        panic!("one file is expected, not {stored:?}");
    };
    let good = std::fs::read(path).expect("the segment");
    drop(process);
    for (input, damage) in DAMAGES {
        match damage(good.clone()) {
            Some(bytes) => std::fs::write(path, bytes).expect("it is written"),
            None => std::fs::remove_file(path).expect("it is removed"),
        }
        let (_process, mut client) = refusal::server(PROGRAM, data.path()).await;
        for sql in [
            "SELECT count(*) FROM hurt",
            "SELECT max(amount) FROM hurt WHERE word = 'word3'",
            "SELECT count(*) FROM whole w JOIN hurt h ON w.id = h.id",
        ] {
            let error = client.ask(sql).await.expect_err(sql);
            expect(input, &error, &[&segment, "restore"]);
        }
        assert_eq!(number(&mut client, "SELECT count(*) FROM whole").await, 30);
        let (quarantined, _) = client
            .ask("SELECT segment_name, quarantined FROM system.segments WHERE quarantined IS NOT NULL")
            .await
            .expect("the segments are listed");
        assert_eq!(quarantined.rows.len(), 1, "{input}");
        std::fs::write(path, &good).expect("it is written");
    }
    let (_process, mut client) = refusal::server(PROGRAM, data.path()).await;
    assert_eq!(number(&mut client, "SELECT count(*) FROM hurt").await, 200);
}
