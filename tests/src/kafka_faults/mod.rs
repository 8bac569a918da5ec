//! Faults of Kafka while rows stream in: two small brokers are killed, frozen, cut off and overtaken by retention, and no row may
//! be missing at the end that the server has not reported as lost, nor be there twice.
//!
//! Queries are answered all along. After each fault every row that Kafka had acknowledged must be visible within a
//! minute, and the newest visible row of each partition be younger than ten seconds.

mod cluster;
mod faults;
mod producing;
mod relay;
mod watching;

pub use cluster::Cluster;
pub use faults::{Fault, Kind, Reach, draw};
pub use relay::{Cut, Relay};

use crate::client::Client;
use crate::kills::{TABLE, schema_json, table_json};
use crate::process::Process;
use producing::Rows;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strandline_proto::v1::{AuditReport, AuditRequest, ForceCommitRequest, SetPausedRequest};
use tokio::task::JoinHandle;
use watching::{Watch, whole};

/// What the server has to be back within after a fault.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// How old the newest visible row may be while nothing is wrong.
const LAG_MAX: Duration = Duration::from_secs(10);
/// How long nothing is wrong between two faults.
const CALM: Duration = Duration::from_secs(2);
/// What accounts of one moment may take to be read while rows come in.
const ACCOUNTS_WITHIN: Duration = Duration::from_secs(30);

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides the faults.
    pub seed: u64,
    /// How many there are.
    pub faults: usize,
    /// How long one lasts at most.
    pub lasts_max: Duration,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Rows sent, in all partitions together.
    pub rows_per_second: u64,
    /// Rows at which a partition's consuming segment is sealed.
    pub flush_rows: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// How long after each fault's end the server was back.
    pub back: Vec<Duration>,
    /// Rows that Kafka acknowledged.
    pub rows: u64,
    /// Those of them that are not in the table, each reported.
    pub lost: u64,
    /// Answers meanwhile.
    pub answers: u64,
    /// The slowest of them.
    pub slowest: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let back = self.back.iter().max().copied().unwrap_or_default();
        write!(
            f,
            "exact after {} faults: {} rows acknowledged, {} in the table once, {} reported as lost, 0 missing; back at most {:.1} s \
             after a fault; {} answers meanwhile, the slowest in {:.1} s",
            self.back.len(),
            self.rows,
            self.rows - self.lost,
            self.lost,
            back.as_secs_f64(),
            self.answers,
            self.slowest.as_secs_f64(),
        )
    }
}

struct Run<'a> {
    plan: &'a Plan,
    cluster: &'a Cluster,
    topic: String,
    client: Client,
    rows: Arc<Rows>,
    watch: Arc<Watch>,
    watching: JoinHandle<()>,
    /// What was deleted of each partition: everything below.
    deleted: Vec<u64>,
    /// Where it had been seen to when that was decided, and where it was deleted to.
    gaps: Vec<Vec<(u64, u64)>>,
}

/// Runs the plan against `program` in `data`.
///
/// # Panics
/// When an answer is wrong, rows are missing, or the server does not come back.
pub async fn run(program: &str, data: &Path, cluster: &Cluster, plan: &Plan) -> Report {
    println!("faults of Kafka: {plan:?}");
    let topic = format!("strandline-faults-{}", crate::kills::now_ms());
    cluster.create_topic(&topic, plan.partitions).await;
    let stream = json!({
        "streamType": "kafka",
        "stream.kafka.topic.name": topic,
        "stream.kafka.broker.list": cluster.outside,
        "stream.kafka.decoder.class.name": "org.apache.pinot.plugin.stream.kafka.KafkaJSONMessageDecoder",
        "stream.kafka.consumer.prop.auto.offset.reset": "smallest",
        "realtime.segment.flush.threshold.rows": plan.flush_rows.to_string(),
        "realtime.segment.flush.threshold.time": "24h",
    });
    let server = Process::start(program, data, None).unwrap_or_else(|e| panic!("start: {e}"));
    let mut client = Client::connect(&server.grpc).await.expect("it is up");
    client
        .create(&schema_json(false), &table_json(&stream, false))
        .await
        .expect("the table is made");
    let (rows, producers) = Rows::start(
        &cluster.inside,
        &topic,
        plan.partitions,
        plan.rows_per_second,
    );
    let watch = Watch::new(plan.partitions);
    let asking = Client::connect(&server.grpc).await.expect("it is up");
    let mut run = Run {
        plan,
        cluster,
        topic,
        client,
        watching: tokio::spawn(Arc::clone(&watch).run(asking, Arc::clone(&rows))),
        rows,
        watch,
        deleted: vec![0; plan.partitions as usize],
        gaps: vec![Vec::new(); plan.partitions as usize],
    };
    let mut report = Report::default();
    run.pass(CALM).await;
    run.back().await;
    let faults = draw(plan.seed, plan.faults, plan.lasts_max);
    for (number, fault) in faults.iter().enumerate() {
        cluster.wait_until_whole(&run.topic).await;
        run.pass(CALM).await;
        let lost_before = run.lost().await;
        run.watch.take_lags();
        run.watch.expect_lag(None);
        run.suffer(fault).await;
        let at_the_end = run.watch.take_lags();
        let back = run.back().await;
        run.watch.expect_lag(Some(LAG_MAX));
        let lost = run.check_counts().await;
        println!(
            "{} of {}: {fault}: lags of partitions at most {at_the_end:.1?} s; back {:.1} s after its end; {} offsets lost",
            number + 1,
            faults.len(),
            back.as_secs_f64(),
            lost - lost_before,
        );
        assert!(
            fault.kind == Kind::Overtaken || lost == lost_before,
            "offsets are said to be lost that Kafka holds"
        );
        assert!(
            fault.kind != Kind::Overtaken || lost > lost_before,
            "retention overtook nothing"
        );
        report.back.push(back);
    }
    run.rows.stop();
    for producer in producers {
        producer.await.expect("the producer ends well");
    }
    run.watch.expect_lag(None);
    run.back().await;
    run.watch.stop();
    (&mut run.watching).await.expect("every answer was right");
    (report.answers, report.slowest) = run.watch.totals();
    report.rows = run.rows.acknowledged().iter().sum();
    report.lost = run.check_rows().await;
    // What is committed must be there without the stream's help, too.
    let table = TABLE.to_owned();
    let commit = run.client.admin.force_commit(ForceCommitRequest { table });
    commit.await.expect("all is committed");
    drop(server);
    let server = Process::start(program, data, None).unwrap_or_else(|e| panic!("start: {e}"));
    run.client = Client::connect(&server.grpc).await.expect("it is up");
    assert_eq!(run.check_rows().await, report.lost);
    report
}

impl Run<'_> {
    /// Lets time pass, as long as each answer is right.
    async fn pass(&mut self, time: Duration) {
        tokio::select! {
            watched = &mut self.watching => panic!("no questions are asked any more: {watched:?}"),
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Has a fault happen and end.
    async fn suffer(&mut self, fault: &Fault) {
        let cluster = self.cluster;
        let leading = cluster.leading(&self.topic);
        match fault.kind {
            Kind::Killed => {
                cluster.kill(leading);
                self.pass(fault.lasts).await;
                cluster.restart(leading).await;
            }
            Kind::Frozen => {
                cluster.freeze(leading);
                self.pass(fault.lasts).await;
                cluster.thaw(leading);
            }
            Kind::Moved => {
                let partitions = self.plan.partitions;
                cluster.lead(&self.topic, partitions, 3 - leading).await;
                self.pass(fault.lasts).await;
                cluster.lead(&self.topic, partitions, leading).await;
            }
            Kind::Cut | Kind::Overtaken => {
                let brokers: &[usize] = match fault.reach {
                    Reach::Leading => &[leading],
                    Reach::Following => &[3 - leading],
                    Reach::Both => &[1, 2],
                };
                match fault.cut {
                    Some(how) => cluster.cut(brokers, how),
                    None => self.pause(true).await,
                }
                self.pass(fault.lasts).await;
                if fault.kind == Kind::Overtaken {
                    self.overtake(fault.deleted).await;
                }
                match fault.cut {
                    Some(_) => cluster.mend(),
                    None => self.pause(false).await,
                }
            }
        }
    }

    async fn pause(&mut self, paused: bool) {
        let table = TABLE.to_owned();
        let paused = self
            .client
            .admin
            .set_paused(SetPausedRequest { table, paused });
        paused.await.expect("consumption is paused or goes on");
    }

    /// Deletes a part of the messages that are acknowledged and not visible.
    async fn overtake(&mut self, part: f64) {
        let seen = self.watch.seen();
        let acknowledged = self.rows.acknowledged();
        for (partition, (seen, end)) in seen.iter().zip(acknowledged).enumerate() {
            let rows = end.saturating_sub(seen.next) as f64 * part;
            self.deleted[partition] = seen.next + rows as u64;
            self.gaps[partition].push((seen.next, self.deleted[partition]));
        }
        self.cluster.delete_before(&self.topic, &self.deleted).await;
    }

    /// Waits until what was acknowledged is visible, and new rows are soon; how long that took.
    async fn back(&mut self) -> Duration {
        let since = Instant::now();
        let acknowledged = self.rows.acknowledged();
        self.pass(Duration::from_millis(1)).await;
        loop {
            let seen = self.watch.seen();
            let is_back = seen.iter().zip(&acknowledged).all(|(seen, acknowledged)| {
                seen.next >= *acknowledged && u128::from(seen.lag_ms) < LAG_MAX.as_millis()
            });
            if is_back {
                return since.elapsed();
            }
            if since.elapsed() >= BACK_WITHIN {
                let states = "SELECT \"partition\", next_offset, stream_end_offset, state, last_error FROM system.ingestion";
                let states = self.client.ask(states).await.map(|(answer, _)| answer.rows);
                panic!(
                    "not back {BACK_WITHIN:?} after a fault: acknowledged {acknowledged:?}, seen {seen:?}, consumers {states:?}"
                );
            }
            self.pass(Duration::from_millis(50)).await;
        }
    }

    /// Offsets that the server reports as lost.
    async fn lost(&mut self) -> u64 {
        let sql =
            format!("SELECT sum(lost_offsets) FROM system.ingestion WHERE table_name = '{TABLE}'");
        let (answer, _) = self.client.ask(&sql).await.expect("the server answers");
        whole(&answer.rows[0][0])
    }

    /// While rows come in: what of each partition is not there is what is reported as lost, which is given.
    async fn check_counts(&mut self) -> u64 {
        let sql = format!(
            "SELECT sum(1 + last - rows) FROM (SELECT part, max(seq) AS last, count(*) AS rows FROM {TABLE} GROUP BY part)"
        );
        let since = Instant::now();
        loop {
            let before = self.lost().await;
            let (answer, _) = self.client.ask(&sql).await.expect("the server answers");
            let missing = whole(&answer.rows[0][0]);
            let after = self.lost().await;
            if (before, missing) == (after, before) {
                return after;
            }
            assert!(
                since.elapsed() < ACCOUNTS_WITHIN,
                "{missing} rows are missing, and {after} are reported as lost"
            );
            self.pass(Duration::from_millis(100)).await;
        }
    }

    /// When no rows come any more: each acknowledged row is there once, or reported as lost; how many are.
    async fn check_rows(&mut self) -> u64 {
        let acknowledged = self.rows.acknowledged();
        let audit = self.audit(acknowledged.iter().sum()).await;
        let lost: BTreeMap<usize, u64> = audit
            .partitions
            .iter()
            .map(|p| {
                let number = p.partition.rsplit('/').next().expect("a number");
                (number.parse().expect("a number"), p.offsets_lost)
            })
            .collect();
        for (partition, rows) in acknowledged.iter().enumerate() {
            let sql = format!("SELECT seq FROM {TABLE} WHERE part = {partition}");
            let (answer, _) = self.client.ask(&sql).await.expect("the server answers");
            let mut is_there = vec![false; *rows as usize];
            for row in &answer.rows {
                let number = whole(&row[0]);
                let there = is_there.get_mut(number as usize).unwrap_or_else(|| {
                    panic!("partition {partition}: row {number} was not acknowledged")
                });
                assert!(
                    !*there,
                    "partition {partition}: row {number} is there twice"
                );
                *there = true;
            }
            let missing: Vec<u64> = (0..*rows).filter(|n| !is_there[*n as usize]).collect();
            let outside = missing.iter().find(|row| {
                let gaps = &self.gaps[partition];
                !gaps.iter().any(|(from, to)| (from..to).contains(row))
            });
            assert_eq!(
                outside, None,
                "partition {partition}: this row is missing and was never deleted"
            );
            assert_eq!(
                missing.len() as u64,
                lost[&partition],
                "partition {partition}: rows are missing, and so many are reported as lost"
            );
        }
        lost.values().sum()
    }

    /// The server's own accounts, when all `rows` are dealt with.
    async fn audit(&mut self, rows: u64) -> AuditReport {
        let since = Instant::now();
        loop {
            let table = TABLE.to_owned();
            let audit = self.client.admin.audit(AuditRequest { table }).await;
            let audit = audit.expect("the accounts are read").into_inner();
            assert!(audit.exact, "{:?}", audit.problems);
            let partitions = audit.partitions.iter();
            let dealt_with: u64 = partitions.map(|p| p.messages_read + p.offsets_lost).sum();
            assert!(dealt_with <= rows, "{dealt_with} of {rows} messages");
            if dealt_with == rows {
                return audit;
            }
            assert!(
                since.elapsed() < BACK_WITHIN,
                "only {dealt_with} of {rows} messages"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
