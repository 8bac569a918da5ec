//! The table's documents: one schema, an offline and a realtime half.

use super::data::{COLUMNS, Kind};
use crate::load::Loaded;
use crate::target::{Source, Target};
use serde_json::{Value, json};
use std::error::Error;
use std::path::PathBuf;

/// The columns with an inverted index: what the statements filter by.
pub const INVERTED: [&str; 14] = [
    "c_region",
    "c_nation",
    "c_city",
    "c_name",
    "s_region",
    "s_nation",
    "s_city",
    "p_mfgr",
    "p_category",
    "p_brand1",
    "d_year",
    "d_yearmonthnum",
    "d_yearmonth",
    "lo_shipmode",
];
/// The dimensions of the star-tree.
pub const STAR_TREE: [&str; 8] = [
    "s_region",
    "c_region",
    "p_category",
    "s_nation",
    "c_nation",
    "d_year",
    "p_brand1",
    "p_mfgr",
];

/// What the table has beside [`INVERTED`].
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Indexing {
    /// A star-tree of eight dimensions with sums of revenue and supply cost and counts; an error where the server builds none
    #[arg(long)]
    star_tree: bool,
    /// Rows of a segment at most; 0: the server's default
    #[arg(long, default_value_t = 0)]
    pub segment_rows: u64,
    /// More columns with an inverted index
    #[arg(skip)]
    inverted: Vec<&'static str>,
}

/// The table that is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct TableOptions {
    #[command(flatten)]
    source: Source,
    /// The folder that `ssb generate` wrote; answers are checked against it
    #[arg(long)]
    pub files: PathBuf,
    #[command(flatten)]
    indexing: Indexing,
}

impl TableOptions {
    /// Connects, and loads the table when it is not there, with inverted indexes on `more` columns.
    pub async fn open(&self, more: &[&'static str]) -> Result<(Target, Loaded), Box<dyn Error>> {
        let mut target = Target::open(&self.source).await?;
        let mut indexing = self.indexing.clone();
        indexing.inverted.extend(more);
        let loaded = target.star_schema(&self.files, &indexing).await?;
        Ok((target, loaded))
    }
}

impl Indexing {
    fn json(&self) -> Value {
        let inverted: Vec<&str> = INVERTED.iter().chain(&self.inverted).copied().collect();
        let mut indexing = json!({
            "loadMode": "MMAP",
            "sortedColumn": ["lo_orderdate"],
            "invertedIndexColumns": inverted,
            "noDictionaryColumns": ["lo_orderkey", "lo_extendedprice", "lo_revenue", "lo_ordtotalprice"],
        });
        if self.star_tree {
            indexing["starTreeIndexConfigs"] = json!([{
                "dimensionsSplitOrder": STAR_TREE,
                "functionColumnPairs": ["COUNT__*", "SUM__lo_revenue", "SUM__lo_supplycost"],
                "maxLeafRecords": 100,
            }]);
        }
        indexing
    }
}

/// The schema document under a name.
pub fn schema_json(name: &str) -> String {
    let dimensions: Vec<_> = COLUMNS
        .iter()
        .filter(|(name, _)| *name != "lo_orderdate")
        .map(|(name, kind)| {
            let data_type = match kind {
                Kind::Int => "INT",
                Kind::Long => "LONG",
                Kind::Text => "STRING",
            };
            json!({"name": name, "dataType": data_type})
        })
        .collect();
    json!({
        "schemaName": name,
        "dimensionFieldSpecs": dimensions,
        "dateTimeFieldSpecs": [{
            "name": "lo_orderdate",
            "dataType": "INT",
            "format": "1:DAYS:SIMPLE_DATE_FORMAT:yyyyMMdd",
            "granularity": "1:DAYS",
        }],
    })
    .to_string()
}

/// The config of the offline half.
pub fn offline_json(name: &str, indexing: &Indexing) -> String {
    json!({
        "tableName": name,
        "tableType": "OFFLINE",
        "segmentsConfig": {"timeColumnName": "lo_orderdate", "replication": "1", "segmentPushType": "APPEND"},
        "tableIndexConfig": indexing.json(),
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

/// The config of the realtime half: one partition of the embedded log, whose segment is sealed at `flush_rows` rows.
pub fn realtime_json(name: &str, indexing: &Indexing, flush_rows: u64) -> String {
    let stream = json!({
        "streamType": "log",
        "stream.log.topic.name": name,
        "stream.log.partitions": "1",
        "stream.log.decoder.class.name": "org.apache.pinot.plugin.inputformat.json.JSONMessageDecoder",
        "stream.log.consumer.prop.auto.offset.reset": "smallest",
        "realtime.segment.flush.threshold.rows": flush_rows.to_string(),
        "realtime.segment.flush.threshold.time": "24h",
    });
    json!({
        "tableName": name,
        "tableType": "REALTIME",
        "segmentsConfig": {"timeColumnName": "lo_orderdate", "replication": "1"},
        "tableIndexConfig": indexing.json(),
        "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [stream]}},
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_on_columns_that_there_are() {
        let known = |name: &str| COLUMNS.iter().any(|column| column.0 == name);
        assert!(INVERTED.iter().chain(&STAR_TREE).all(|name| known(name)));
    }

    #[test]
    fn a_star_tree_is_asked_for_only_when_it_is_wanted() {
        let config = |indexing: &Indexing| -> Value {
            serde_json::from_str(&offline_json("t", indexing)).unwrap()
        };
        let plain = config(&Indexing {
            inverted: vec!["lo_partkey"],
            ..Indexing::default()
        });
        let indexing = &plain["tableIndexConfig"];
        assert!(indexing["starTreeIndexConfigs"].is_null());
        assert_eq!(indexing["invertedIndexColumns"][14], "lo_partkey");
        let star = config(&Indexing {
            star_tree: true,
            ..Indexing::default()
        });
        let trees = &star["tableIndexConfig"]["starTreeIndexConfigs"];
        assert_eq!(
            trees[0]["dimensionsSplitOrder"].as_array().unwrap().len(),
            8
        );
    }
}
