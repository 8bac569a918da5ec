//! The log under `kill -9`: a child process appends, is killed, and what it had acknowledged is looked for.
//!
//! The child is this test binary, asked for the one ignored test.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const DIR: &str = "STRANDLINE_KILL_TEST_DIR";
const PRODUCERS: usize = 4;
const ROUNDS: u64 = 8;

async fn open(dir: &Path) -> Arc<EmbeddedLog> {
    // Small files, so that kills also fall into the change from one to the next.
    let log = EmbeddedLog::open_with(
        dir,
        Environment::real(),
        LogOptions {
            file_bytes_max: 4_000,
        },
    )
    .await
    .unwrap();
    log.create_topic("t", 1).await.unwrap();
    log
}

async fn read_all(log: &Arc<EmbeddedLog>) -> Vec<String> {
    let stream = log.stream("t").unwrap();
    let end = stream.offsets(0).await.unwrap().end;
    let (mut reader, mut all) = (stream.open(0, 0).await.unwrap(), Vec::new());
    while (all.len() as u64) < end {
        let batch = reader
            .next(1000, 1 << 20, Duration::from_secs(10))
            .await
            .unwrap();
        all.extend(
            batch
                .messages
                .into_iter()
                .map(|m| String::from_utf8(m.payload.to_vec()).unwrap()),
        );
    }
    all
}

/// Not a test of its own: the child of the one below. Appends for ever and prints what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started and killed by the test below"]
async fn appends_until_it_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let log = open(Path::new(&dir)).await;
    let tasks = (0..PRODUCERS).map(|producer| {
        let log = log.clone();
        tokio::spawn(async move {
            // From the beginning: what an earlier life stored is acknowledged again and not stored twice.
            for sequence in 0_u64.. {
                let message = LogMessage {
                    payload: Bytes::from(format!("{producer}:{sequence}")),
                    ..LogMessage::default()
                };
                log.append(
                    "t",
                    Some(0),
                    vec![message],
                    &format!("p{producer}"),
                    sequence,
                )
                .await
                .unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {producer} {sequence}")
                    .and_then(|()| out.flush())
                    .unwrap();
            }
        })
    });
    futures::future::join_all(tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_acknowledged_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [0_u64; PRODUCERS];
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "stream::log::kill_tests::appends_until_it_is_killed",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let reading = std::thread::spawn(move || {
            let mut seen = [0_u64; PRODUCERS];
            for line in lines.map_while(std::io::Result::ok) {
                if let ["acknowledged", producer, sequence] =
                    line.split(' ').collect::<Vec<_>>()[..]
                    && let (Ok(producer), Ok(sequence)) =
                        (producer.parse::<usize>(), sequence.parse::<u64>())
                {
                    seen[producer] = sequence + 1;
                    // Nobody listens after the first.
                    let _ = begun.send(());
                }
            }
            seen
        });
        has_begun.recv_timeout(Duration::from_secs(60)).unwrap();
        std::thread::sleep(Duration::from_millis(40 + round * 23));
        child.kill().unwrap();
        child.wait().unwrap();
        for (all, seen) in acknowledged.iter_mut().zip(reading.join().unwrap()) {
            *all = (*all).max(seen);
        }
        let all = read_all(&open(dir.path()).await).await;
        for (producer, acknowledged) in acknowledged.iter().enumerate() {
            let mine: Vec<_> = all
                .iter()
                .filter(|m| m.starts_with(&format!("{producer}:")))
                .cloned()
                .collect();
            assert!(
                mine.len() as u64 >= *acknowledged,
                "round {round}: {} of {acknowledged} messages",
                mine.len()
            );
            assert_eq!(
                mine,
                (0..mine.len())
                    .map(|i| format!("{producer}:{i}"))
                    .collect::<Vec<_>>(),
                "round {round}"
            );
        }
    }
    assert!(acknowledged.iter().all(|count| *count > 0));
}
