//! Corrections of the past under queries.

use super::{number_from, server};
use std::time::Duration;
use strandline_tests::versions::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_one_version_while_the_past_is_corrected() {
    let data = tempfile::tempdir().expect("a folder");
    let (process, _client) = server(data.path()).await;
    let plan = Plan {
        seed: number_from("STRANDLINE_VERSIONS_SEED", 1),
        steps: u32::try_from(number_from("STRANDLINE_VERSIONS", 60)).expect("few steps"),
        pause: Duration::from_millis(15),
    };
    let report = run(&process.grpc, &plan).await;
    println!("{report:?}");
    // Some versions last shorter than a question takes.
    assert!(report.seen > plan.steps as usize / 10, "{report:?}");
    for kind in [
        "replace",
        "revert",
        "delete",
        "drop offline",
        "pin",
        "release",
    ] {
        assert!(
            report.steps.contains_key(kind),
            "no {kind} among {:?}",
            report.steps
        );
    }
}
