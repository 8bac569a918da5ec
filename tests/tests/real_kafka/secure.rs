//! A broker that is spoken to by TLS and wants a login (SCRAM-SHA-512): rows come, and what is wrong is named.

use super::{create_topic, wait_for};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use strandline_proto::v1::{ForceCommitRequest, UpdateTableRequest};
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;
use strandline_tests::kills::now_ms;
use strandline_tests::process::Process;

const WRONG_PASSWORD: &str = "nobody-has-this-password";

/// What `tests/kafka.sh start` says of the listener.
struct Secure {
    folder: PathBuf,
    address: String,
    user: String,
    password: String,
}

impl Secure {
    /// None, said loudly, where there is no such broker.
    fn from_environment(test: &str) -> Option<Self> {
        let Some(folder) = std::env::var_os("STRANDLINE_KAFKA_SECURE").map(PathBuf::from) else {
            eprintln!(
                "SKIPPED {test}: STRANDLINE_KAFKA_SECURE (a folder) is not set; see tests/kafka.sh"
            );
            return None;
        };
        let read = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name));
            text.unwrap_or_else(|e| panic!("{name}: {e}"))
                .trim()
                .to_owned()
        };
        Some(Self {
            address: read("address"),
            user: read("user"),
            password: read("password"),
            folder,
        })
    }

    fn certificate(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A table's stream as a user writes it.
    fn stream(&self, topic: &str) -> Value {
        json!({
            "streamType": "kafka",
            "stream.kafka.topic.name": topic,
            "stream.kafka.broker.list": self.address,
            "stream.kafka.consumer.prop.auto.offset.reset": "smallest",
            "realtime.segment.flush.threshold.rows": "250",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": self.user,
            "sasl.password": self.password,
            "ssl.ca.location": self.certificate("ca.pem"),
        })
    }

    /// How the test itself reaches the broker.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.address)
            .set("security.protocol", "SASL_SSL")
            .set("sasl.mechanisms", "SCRAM-SHA-512")
            .set("sasl.username", &self.user)
            .set("sasl.password", &self.password)
            .set("ssl.ca.location", self.certificate("ca.pem"));
        config
    }

    /// Sends the rows `n` of a range to the two partitions of a topic.
    async fn produce(&self, topic: &str, rows: std::ops::Range<u32>) {
        let producer: FutureProducer = self.client().create().expect("a producer can be made");
        let messages: Vec<(i32, String)> = rows
            .map(|n| ((n % 2) as i32, format!(r#"{{"n": {n}}}"#)))
            .collect();
        let sends = messages.iter().map(|(partition, message)| {
            let record = FutureRecord::<(), str>::to(topic)
                .partition(*partition)
                .payload(message);
            producer.send(record, Duration::from_secs(30))
        });
        for sent in futures::future::join_all(sends).await {
            sent.expect("Kafka takes the message");
        }
    }
}

fn table_config(table: &str, stream: &Value) -> String {
    json!({"tableName": table, "tableType": "REALTIME",
        "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [stream]}}})
    .to_string()
}

async fn create(client: &mut Client, table: &str, stream: &Value) {
    let schema =
        json!({"schemaName": table, "dimensionFieldSpecs": [{"name": "n", "dataType": "LONG"}]});
    let config = table_config(table, stream);
    let created = client.create(&schema.to_string(), &config).await;
    created.unwrap_or_else(|e| panic!("table {table}: {e}"));
}

async fn update(client: &mut Client, table: &str, stream: &Value) {
    let config_json = table_config(table, stream);
    let updated = client
        .admin
        .update_table(UpdateTableRequest { config_json });
    updated
        .await
        .unwrap_or_else(|e| panic!("table {table}: {e}"));
}

/// Waits until a table has the rows below `count`, each once, also when all of them are committed.
async fn has_rows(client: &mut Client, table: &str, count: u32) {
    let sql = format!("SELECT count(*), count(DISTINCT n), min(n), max(n) FROM {table}");
    let count = i128::from(count);
    let expected = [count, count, 0, count - 1];
    wait_for(client, &sql, &expected).await;
    let request = ForceCommitRequest {
        table: table.to_owned(),
    };
    client.admin.force_commit(request).await.expect("a commit");
    let (answer, _) = client.ask(&sql).await.expect("the server answers");
    assert_eq!(
        answer.rows[0],
        expected.map(|n| Cell::Number(n, 0)),
        "{table} after a commit"
    );
}

/// Waits until a table's status says all of `words`, and gives the sentence.
async fn refusal(client: &mut Client, table: &str, words: &[&str]) -> String {
    let sql = format!(
        "SELECT last_error FROM system.ingestion WHERE table_name = '{table}' AND state = 'RETRYING'"
    );
    let since = Instant::now();
    loop {
        let (answer, _) = client.ask(&sql).await.expect("the server answers");
        let said: Vec<String> = answer
            .rows
            .iter()
            .map(|row| format!("{:?}", row[0]))
            .collect();
        let names_all = |said: &&String| words.iter().all(|word| said.contains(word));
        if let Some(said) = said.iter().find(names_all) {
            return said.clone();
        }
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "{table} does not say {words:?} but {said:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_exactly_over_tls_with_a_login_in_either_spelling() {
    let Some(secure) =
        Secure::from_environment("rows_come_exactly_over_tls_with_a_login_in_either_spelling")
    else {
        return;
    };
    let topic = format!("secure-{}", now_ms());
    create_topic(&secure.client(), &topic, 2).await;
    secure.produce(&topic, 0..1_000).await;
    let ours = secure.stream(&topic);
    let login = format!(
        "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{}\" password=\"{}\";",
        secure.user, secure.password
    );
    // As it is written for Kafka's own client.
    let java = json!({
        "streamType": "kafka",
        "stream.kafka.topic.name": topic,
        "stream.kafka.broker.list": secure.address,
        "stream.kafka.consumer.prop.auto.offset.reset": "smallest",
        "stream.kafka.consumer.prop.security.protocol": "SASL_SSL",
        "stream.kafka.consumer.prop.sasl.mechanism": "SCRAM-SHA-512",
        "stream.kafka.consumer.prop.sasl.jaas.config": login,
        "stream.kafka.consumer.prop.ssl.ca.location": secure.certificate("ca.pem"),
    });
    let data = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_strandline-under-test");
    let process = Process::start(program, data.path(), None).unwrap_or_else(|e| panic!("{e}"));
    let mut client = Client::connect(&process.grpc).await.expect("it is up");
    for (table, stream) in [("ours", &ours), ("java", &java)] {
        create(&mut client, table, stream).await;
    }
    for rows in [1_000, 1_500] {
        for table in ["ours", "java"] {
            has_rows(&mut client, table, rows).await;
            println!("{table}: {rows} rows over TLS and SCRAM-SHA-512, each once");
        }
        if rows == 1_000 {
            secure.produce(&topic, 1_000..1_500).await;
        }
    }
}

/// Each table has one thing wrong; one had nothing wrong at first. All are put right by another config.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_or_its_certificate_refuses_is_named_and_no_row_is_lost() {
    let Some(secure) = Secure::from_environment(
        "what_a_broker_or_its_certificate_refuses_is_named_and_no_row_is_lost",
    ) else {
        return;
    };
    let topic = format!("refused-{}", now_ms());
    create_topic(&secure.client(), &topic, 2).await;
    secure.produce(&topic, 0..600).await;
    let right = secure.stream(&topic);
    let with = |changes: &[(&str, &str)]| {
        let mut stream = right.clone();
        for (key, value) in changes {
            stream[*key] = json!(value);
        }
        stream
    };
    let by_name = secure.address.replace("127.0.0.1", "localhost");
    let nowhere = secure.certificate("nowhere.pem");
    let login = [
        "SASL authentication error",
        "SCRAM-SHA-512",
        "check the credentials",
    ];
    let certificate = [
        "certificate verify failed",
        "ssl.ca.location",
        "check the properties ssl.*",
    ];
    // Table, what is wrong, what is said, and what differs when it is right.
    let cases: [(&str, Value, &[&str], Value); 6] = [
        (
            "changed",
            with(&[("sasl.password", WRONG_PASSWORD)]),
            &login,
            right.clone(),
        ),
        (
            "password",
            with(&[("sasl.password", WRONG_PASSWORD)]),
            &login,
            right.clone(),
        ),
        (
            "nobody",
            with(&[("sasl.username", "nobody")]),
            &login,
            right.clone(),
        ),
        (
            "stranger",
            with(&[("ssl.ca.location", &secure.certificate("stranger.pem"))]),
            &certificate,
            right.clone(),
        ),
        (
            "nowhere",
            with(&[("ssl.ca.location", &nowhere)]),
            &["ssl.ca.location failed"],
            right.clone(),
        ),
        (
            "other_host",
            with(&[("stream.kafka.broker.list", &by_name)]),
            &["certificate verify failed", "check the properties ssl.*"],
            with(&[
                ("stream.kafka.broker.list", &by_name),
                ("ssl.endpoint.identification.algorithm", ""),
            ]),
        ),
    ];
    let data = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_strandline-under-test");
    let process = Process::start(program, data.path(), None).unwrap_or_else(|e| panic!("{e}"));
    let mut client = Client::connect(&process.grpc).await.expect("it is up");
    create(&mut client, "changed", &right).await;
    has_rows(&mut client, "changed", 600).await;
    for (table, wrong, _, _) in &cases {
        match *table {
            "changed" => update(&mut client, table, wrong).await,
            _ => create(&mut client, table, wrong).await,
        }
    }
    let mut said = String::new();
    for (table, _, words, _) in &cases {
        let refused = refusal(&mut client, table, words).await;
        println!("{table}: {refused}");
        said.push_str(&refused);
    }
    secure.produce(&topic, 600..1_000).await;
    for (table, _, _, right) in &cases {
        update(&mut client, table, right).await;
    }
    for (table, ..) in &cases {
        has_rows(&mut client, table, 1_000).await;
    }
    println!("1000 rows in each table, each once, when it was put right");
    let log = process.said();
    assert!(
        log.contains("check the credentials"),
        "the log says why: {log}"
    );
    for secret in [WRONG_PASSWORD, &secure.password] {
        assert!(!log.contains(secret), "a password is in the log: {log}");
        assert!(
            !said.contains(secret),
            "a password is in the status: {said}"
        );
    }
}
