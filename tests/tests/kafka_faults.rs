//! Rows through two small Kafka brokers that fail in every way, one after the other; see `strandline_tests::kafka_faults`.
//!
//! Runs when `STRANDLINE_KAFKA_CLUSTER` names the folder of a cluster (`tests/kafka.sh start-two DIR` makes one).
//! `STRANDLINE_KAFKA_FAULTS` (5) is how many faults there are, `STRANDLINE_KAFKA_FAULTS_SEED` (1) decides which, and
//! `STRANDLINE_KAFKA_FAULTS_SECONDS` (8) is what one lasts at most. `STRANDLINE_KAFKA_FAULTS_RATE` (2,000) rows are sent a second,
//! and `STRANDLINE_KAFKA_PROGRAM` names another build of `strandline-under-test`.

use std::path::Path;
use std::time::Duration;
use strandline_tests::kafka_faults::{Cluster, Plan, run};
use strandline_tests::process::number_from;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_row_is_lost_in_silence_whatever_becomes_of_brokers() {
    let Ok(folder) = std::env::var("STRANDLINE_KAFKA_CLUSTER") else {
        eprintln!(
            "SKIPPED no_row_is_lost_in_silence_whatever_becomes_of_brokers: STRANDLINE_KAFKA_CLUSTER (a folder) is not set; see tests/kafka.sh"
        );
        return;
    };
    let plan = Plan {
        seed: number_from("STRANDLINE_KAFKA_FAULTS_SEED", 1),
        faults: usize::try_from(number_from("STRANDLINE_KAFKA_FAULTS", 5)).expect("few faults"),
        lasts_max: Duration::from_secs(number_from("STRANDLINE_KAFKA_FAULTS_SECONDS", 8)),
        partitions: 4,
        rows_per_second: number_from("STRANDLINE_KAFKA_FAULTS_RATE", 2_000),
        flush_rows: number_from("STRANDLINE_KAFKA_FLUSH_ROWS", 2_500),
    };
    let cluster = Cluster::open(Path::new(&folder));
    let data = tempfile::tempdir().expect("a folder");
    let program = std::env::var("STRANDLINE_KAFKA_PROGRAM")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_strandline-under-test").to_owned());
    let report = run(&program, data.path(), &cluster, &plan).await;
    println!("{report}");
}
