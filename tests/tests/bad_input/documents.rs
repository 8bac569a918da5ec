//! Schemas and table configs that are wrong.

use crate::{ALL, server};
use serde_json::json;
use strandline_proto::v1::{CreateTableRequest, PutSchemaRequest};
use strandline_tests::refusal::{TABLE, TOPIC, create_offline, expect, number, realtime_json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_and_configs_that_are_wrong_are_refused_by_path() {
    let data = tempfile::tempdir().expect("a folder");
    let (_process, mut client) = server(data.path()).await;
    create_offline(&mut client, TABLE, 0..10).await;
    let schema = |name: &str, columns: serde_json::Value| {
        json!({"schemaName": name, "dimensionFieldSpecs": columns}).to_string()
    };
    let int = |name: &str| json!([{"name": name, "dataType": "INT"}]);
    for (input, document, parts) in [
        (
            "a schema with a duplicate column",
            schema(
                "t",
                json!([{"name": "a", "dataType": "INT"}, {"name": "a", "dataType": "LONG"}]),
            ),
            vec!["dimensionFieldSpecs[1]", "twice", "dimensionFieldSpecs[0]"],
        ),
        (
            "a schema with an empty name",
            schema("", int("a")),
            vec!["schemaName", "empty"],
        ),
        (
            "a column with an empty name",
            schema("t", int("")),
            vec!["dimensionFieldSpecs[0].name", "empty"],
        ),
        (
            "../ in a schema's name",
            schema("../escape", int("a")),
            vec!["schemaName", "../escape", "letters, digits"],
        ),
        (
            "../ in a column's name",
            schema("t", int("../escape")),
            vec!["dimensionFieldSpecs[0].name", "../escape"],
        ),
        (
            "an unknown type",
            schema("t", json!([{"name": "a", "dataType": "NUMBER"}])),
            vec!["dataType", "NUMBER", "INT"],
        ),
        (
            "a schema without columns",
            schema("t", json!([])),
            vec!["no columns"],
        ),
        (
            "a schema that isn't JSON",
            "{not json".to_owned(),
            vec!["JSON", "line 1"],
        ),
    ] {
        let status = client
            .admin
            .put_schema(PutSchemaRequest {
                schema_json: document,
            })
            .await
            .expect_err(input);
        expect(input, status.message(), &parts);
    }
    let config = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut config: serde_json::Value =
            serde_json::from_str(&realtime_json(TABLE, TOPIC)).expect("a config");
        change(&mut config);
        config.to_string()
    };
    for (input, document, parts) in [
        (
            "../ in a table's name",
            config(&|c| c["tableName"] = json!("../../etc")),
            vec!["tableName", "../../etc"],
        ),
        (
            "../ in a topic's name",
            realtime_json(TABLE, "../../topic"),
            vec!["../../topic"],
        ),
        (
            "a table without a schema",
            config(&|c| c["tableName"] = json!("other")),
            vec!["other", "schema"],
        ),
        (
            "an index on no column",
            config(&|c| c["tableIndexConfig"] = json!({"invertedIndexColumns": ["wrod"]})),
            vec!["tableIndexConfig.invertedIndexColumns", "wrod"],
        ),
        (
            "a time column that is none",
            config(&|c| c["segmentsConfig"]["timeColumnName"] = json!("word")),
            vec![
                "segmentsConfig.timeColumnName",
                "word",
                "dateTimeFieldSpecs",
            ],
        ),
    ] {
        let status = client
            .admin
            .create_table(CreateTableRequest {
                config_json: document,
            })
            .await
            .expect_err(input);
        expect(input, status.message(), &parts);
    }
    assert_eq!(number(&mut client, ALL).await, 10);
}
