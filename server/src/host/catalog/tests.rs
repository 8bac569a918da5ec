//! What is published against the metastore, step by step.

use super::*;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{OffsetRange, StreamPartition};
use strandline_storage::config::PushType;
use strandline_storage::meta::minutes::MinuteCounts;
use strandline_storage::meta::sql::SqlMetastore;
use strandline_storage::meta::{CommitRealtime, NewTable, PushOffline, SchemaRecord, SkipOffsets};

struct Server {
    metastore: Arc<SqlMetastore>,
    deep_store: Arc<DeepStore>,
    environment: Environment,
    publisher: Publisher,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment::real();
        let deep = folder.path().join("deep");
        let deep_store = DeepStore::local(&deep, environment.clone()).await;
        let deep_store = Arc::new(deep_store.unwrap());
        let place = folder.path().join("meta.sqlite");
        let metastore = SqlMetastore::open(&place, Arc::clone(&environment.clock)).await;
        let metastore = Arc::new(metastore.unwrap());
        let publisher = publisher(&metastore, &deep_store, &environment);
        Self {
            metastore,
            deep_store,
            environment,
            publisher,
            _folder: folder,
        }
    }

    /// Publishes, and holds what is current against what a publisher that knows nothing makes of the metastore.
    async fn publish(&self) -> Arc<CatalogSnapshot> {
        self.publisher.publish().await.unwrap();
        let new = publisher(&self.metastore, &self.deep_store, &self.environment);
        new.publish().await.unwrap();
        let snapshot = self.publisher.registry.snapshot();
        assert_eq!(
            format!("{snapshot:#?}"),
            format!("{:#?}", new.registry.snapshot())
        );
        snapshot
    }
}

fn publisher(
    metastore: &Arc<SqlMetastore>,
    deep_store: &Arc<DeepStore>,
    environment: &Environment,
) -> Publisher {
    Publisher::new(
        Arc::new(Registry::default()),
        Arc::clone(metastore) as Arc<dyn Metastore>,
        Arc::clone(deep_store),
        environment.clone(),
    )
}

fn schema(table: &str) -> String {
    format!(
        r#"{{"schemaName": "{table}", "dateTimeFieldSpecs": [
            {{"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}}]}}"#
    )
}

fn record(name: &str, version: u32, json: String) -> SchemaRecord {
    SchemaRecord {
        name: name.to_owned(),
        version,
        json,
        lineage: Arc::default(),
    }
}

fn table(name: &str, half: Half) -> NewTable {
    let stream = match half {
        Half::Offline => "",
        Half::Realtime => {
            r#", "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [
            {"streamType": "log", "stream.log.topic.name": "t"}]}}"#
        }
    };
    NewTable {
        name: name.to_owned(),
        half,
        schema: name.to_owned(),
        config_json: format!(
            r#"{{"tableName": "{name}", "tableType": "{half}", "segmentsConfig": {{"timeColumnName": "ms"}}{stream}}}"#
        ),
    }
}

fn segment(
    name: &str,
    time_ms: (i64, i64),
    origin: Option<(StreamPartition, OffsetRange)>,
) -> SegmentInfo {
    SegmentInfo {
        name: SegmentName::new(name),
        checksum: 1,
        half: match origin {
            Some(_) => Half::Realtime,
            None => Half::Offline,
        },
        stored_as: None,
        moved: false,
        pushed_in: 0,
        rebuilt: false,
        rows: 1,
        bytes: 1,
        schema_version: 1,
        time_ms: Some(time_ms),
        columns: Vec::new(),
        origin,
    }
}

fn push(table: &str, name: &str, time_ms: (i64, i64), mode: PushType) -> PushOffline {
    PushOffline {
        table: table.to_owned(),
        push_id: name.to_owned(),
        segments: vec![segment(name, time_ms, None)],
        mode,
        declared: (mode == PushType::Refresh).then_some(Interval {
            start_ms: time_ms.0,
            end_ms: time_ms.1,
        }),
        replaces: None,
        keeps_replaced: false,
        rebuilt: false,
        result_json: "{}".to_owned(),
    }
}

#[tokio::test]
async fn each_step_publishes_what_is_stored_and_keeps_the_tables_it_did_not_touch() {
    let server = Server::new().await;
    let store = &server.metastore;
    for name in ["t", "u"] {
        store
            .put_schema(record(name, 1, schema(name)))
            .await
            .unwrap();
        store
            .create_table(table(name, Half::Offline))
            .await
            .unwrap();
        server.publish().await;
    }
    store
        .create_table(table("t", Half::Realtime))
        .await
        .unwrap();
    let created = server.publish().await;
    let same = |a: &CatalogSnapshot, b: &CatalogSnapshot, table: &str| {
        Arc::ptr_eq(&a.tables[table], &b.tables[table])
    };

    let partition = StreamPartition {
        stream: Arc::from("log"),
        topic: Arc::from("t"),
        partition: 0,
    };
    store.start_partition("t", &partition, 5).await.unwrap();
    server.publish().await;
    let range = OffsetRange { start: 5, end: 9 };
    let commit = CommitRealtime {
        table: "t".to_owned(),
        segment: segment("r", (50, 90), Some((partition.clone(), range))),
        counts: MinuteCounts::default(),
        dead_letters: Vec::new(),
    };
    store.commit_realtime(commit).await.unwrap();
    let committed = server.publish().await;
    assert!(same(&created, &committed, "u") && !same(&created, &committed, "t"));
    assert_eq!(committed.tables["t"].tails[0].from_offset, 9);

    let again = server.publish().await;
    assert!(Arc::ptr_eq(&committed, &again));
    let skip = SkipOffsets {
        table: "t".to_owned(),
        partition,
        from_offset: 9,
        to_offset: 12,
        counts: MinuteCounts::default(),
        dead_letters: Vec::new(),
    };
    store.skip_offsets(skip).await.unwrap();
    server.publish().await;

    for (table, name, times, mode) in [
        ("u", "a", (0, 10), PushType::Append),
        ("t", "b", (0, 60), PushType::Append),
        ("t", "c", (0, 70), PushType::Refresh),
    ] {
        let before = server.publish().await;
        store
            .push_offline(push(table, name, times, mode))
            .await
            .unwrap();
        let after = server.publish().await;
        assert_eq!(
            (same(&before, &after, "u"), same(&before, &after, "t")),
            (table == "t", table == "u")
        );
    }
    let refreshed = server.publish().await;
    assert_eq!(refreshed.tables["t"].coverage.boundary_ms(), Some(70));
    assert_eq!(refreshed.tables["t"].segments.len(), 2);

    store.pin_boundary("t", 20).await.unwrap();
    let pinned = server.publish().await;
    assert!(pinned.tables["t"].pinned && same(&refreshed, &pinned, "u"));
    store.release_boundary("t").await.unwrap();
    server.publish().await;
    store
        .put_schema(record(
            "u",
            2,
            schema("u")
                .replace("LONG", "TIMESTAMP")
                .replace("1:MILLISECONDS:EPOCH", "TIMESTAMP"),
        ))
        .await
        .unwrap();
    let changed = server.publish().await;
    assert!(!same(&pinned, &changed, "u"));
    store.drop_table("t", Some(Half::Offline)).await.unwrap();
    server.publish().await;
    store.drop_table("u", None).await.unwrap();
    store.delete_schema("u").await.unwrap();
    let dropped = server.publish().await;
    assert_eq!(dropped.tables.keys().collect::<Vec<_>>(), ["t"]);
    assert!(server.publisher.config("u", Half::Offline).is_none());
}
