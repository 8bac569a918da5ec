//! Pinot's table config document.

use super::document::{self, Node, Object};
use super::fields::{self, Storage};
use super::upkeep::{self, Upkeep};
use super::{
    ConfigWarning, PushPeriod, PushType, StreamConfig, TableConfig, complex_types, keys, names,
    star_tree, stream,
};
use crate::decode::metadata;
use crate::segment::spec::SegmentSpec;
use crate::transform::Transforms;
use std::sync::Arc;
use strandline_proto::ids::Half;
use strandline_proto::schema::{ColumnRole, Schema};
use strandline_proto::{Error, Result};

/// Streams of one table.
const STREAMS_MAX: usize = 32;

pub(super) fn name_and_half(root: &mut Object<'_>) -> Result<(String, Half)> {
    let name_node = root.require("tableName")?;
    let type_node = root.require("tableType")?;
    let half = match type_node.word()?.as_str() {
        "OFFLINE" => Half::Offline,
        "REALTIME" => Half::Realtime,
        other => {
            return Err(type_node.wrong(format_args!(
                "unknown table type {other}: use OFFLINE or REALTIME"
            )));
        }
    };
    let name = name_node.text()?;
    let bare = name
        .strip_suffix(half.as_str())
        .and_then(|n| n.strip_suffix('_'))
        .unwrap_or(name);
    if bare.ends_with("_OFFLINE") || bare.ends_with("_REALTIME") {
        return Err(name_node.wrong(format_args!(
            "the name '{name}' does not go with the table type {half}"
        )));
    }
    names::check_table(&name_node, bare)?;
    Ok((bare.to_owned(), half))
}

pub(super) fn parse(json: &str, schema: &Arc<Schema>) -> Result<(TableConfig, Vec<ConfigWarning>)> {
    let document = document::parse(json)?;
    let mut root = Node::root(&document).object()?;
    let mut warnings = Vec::new();
    let (name, half) = name_and_half(&mut root)?;
    if name != schema.name {
        return Err(Error::invalid(format!(
            "tableName: the table {name} needs a schema of its own name, not {}",
            schema.name
        )));
    }
    let mut segments = Segments::default();
    if let Some(node) = root.take("segmentsConfig") {
        segments.read(&mut node.object()?, schema, &mut warnings)?;
    }
    let mut storage = Storage::default();
    let mut star_trees = Vec::new();
    let mut old_stream = None;
    if let Some(node) = root.take("tableIndexConfig") {
        let mut indexing = node.object()?;
        storage.read_indexing(&mut indexing, schema, &mut warnings)?;
        star_trees = star_tree::read(&mut indexing, schema, &mut warnings)?;
        old_stream = indexing.take("streamConfigs").filter(|n| !n.is_blank());
        read_indexing_rest(indexing, &mut warnings)?;
    }
    if let Some(node) = root.take("fieldConfigList") {
        storage.read_fields(&node, schema, &mut warnings)?;
    }
    storage.check()?;
    let mut transforms = Transforms::default();
    let mut new_streams = Vec::new();
    let mut complex_types = None;
    if let Some(node) = root.take("ingestionConfig") {
        let mut ingestion = node.object()?;
        transforms = read_filter(
            read_transforms(&mut ingestion, schema)?,
            &mut ingestion,
            &mut warnings,
        )?;
        complex_types = complex_types::read(&mut ingestion, &mut warnings)?;
        new_streams = read_stream_ingestion(&mut ingestion, &mut warnings)?;
        read_ingestion_rest(ingestion, &mut segments, &mut warnings)?;
    }
    if new_streams.is_empty() {
        new_streams.extend(old_stream);
    }
    let streams = match half {
        Half::Realtime => read_streams(&new_streams, &name, &mut warnings)?,
        Half::Offline => {
            let unread = new_streams.iter();
            warnings.extend(unread.map(|n| n.warning("an OFFLINE table reads no stream")));
            Vec::new()
        }
    };
    let take_over = upkeep::read_tasks(&mut root, half, &mut warnings)?;
    let time = segments.time_column.as_deref();
    let keys = keys::read(&mut root, (schema, half), time, &mut warnings)?;
    if keys.is_some() {
        check_beside_keys(take_over.is_some(), storage.sorted_column.as_deref())?;
    }
    check_metadata(schema, &transforms, &streams, &mut warnings)?;
    read_root_rest(root, &mut warnings)?;
    let spec = SegmentSpec {
        schema: Arc::clone(schema),
        columns: storage.columns,
        sorted_column: storage.sorted_column,
        time_column: segments.time_column.clone(),
        star_trees,
    };
    let config = TableConfig {
        name,
        half,
        time_column: segments.time_column,
        push_period: segments.push_period,
        push_type: segments.push_type,
        retention_ms: segments.upkeep.retention_ms,
        kept_ms: segments.upkeep.kept_ms,
        take_over,
        spec: Arc::new(spec),
        transforms,
        complex_types,
        keys: keys.map(Arc::new),
        streams,
        json: json.to_owned(),
    };
    Ok((config, warnings))
}

/// What a table whose rows have keys can't have.
fn check_beside_keys(takes_over: bool, sorted: Option<&str>) -> Result<()> {
    if takes_over {
        return Err(Error::unsupported(
            "not supported: task.taskTypeConfigsMap.RealtimeToOfflineSegmentsTask: rows that have keys can't be taken over by an OFFLINE table",
        ));
    }
    match sorted {
        Some(column) => Err(Error::unsupported(format!(
            "not supported: tableIndexConfig.sortedColumn: {column}: rows that have keys stay in the order in which they came; give the column an inverted or a range index"
        ))),
        None => Ok(()),
    }
}

/// What `segmentsConfig` and `batchIngestionConfig` say.
#[derive(Default)]
struct Segments {
    time_column: Option<String>,
    push_period: PushPeriod,
    push_type: PushType,
    upkeep: Upkeep,
}

impl Segments {
    fn read(
        &mut self,
        config: &mut Object<'_>,
        schema: &Schema,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        if let Some(node) = config.take("timeColumnName")
            && !node.is_blank()
        {
            self.time_column = Some(time_column(&node, schema)?.to_owned());
        }
        if let Some(node) = config.take("schemaName")
            && node.text()? != schema.name
        {
            return Err(node.wrong(format_args!(
                "the table's schema is {}, not {}",
                schema.name,
                node.text()?
            )));
        }
        self.read_push(config, "segmentPushType", "segmentPushFrequency", warnings)?;
        config.warn(
            "timeType",
            "the unit of the time column is the one of its format in the schema",
            warnings,
        );
        for key in ["replication", "replicasPerPartition"] {
            if let Some(node) = config.take(key)
                && node.scalar_text()? != "1"
            {
                warnings.push(node.warning("one copy is kept"));
            }
        }
        self.upkeep.read(config)?;
        for key in [
            "untrackedSegmentsDeletionBatchSize",
            "untrackedSegmentsRetentionTimeUnit",
        ] {
            config.warn(
                key,
                "files that no table names are deleted at once",
                warnings,
            );
        }
        for key in [
            "segmentAssignmentStrategy",
            "replicaGroupStrategyConfig",
            "completionConfig",
            "minimizeDataMovement",
            "peerSegmentDownloadScheme",
        ] {
            config.warn(key, "segments are placed by the database", warnings);
        }
        config.refuse(
            "crypterClassName",
            "encrypted segments; data would be kept in the clear",
        )?;
        for (_, node) in config.take_rest() {
            warnings.push(node.warning("not known; it has no effect"));
        }
        Ok(())
    }

    fn read_push(
        &mut self,
        config: &mut Object<'_>,
        kind: &str,
        period: &str,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        if let Some(node) = config.take(kind)
            && !node.is_blank()
        {
            self.push_type = match node.word()?.as_str() {
                "APPEND" => PushType::Append,
                "REFRESH" => PushType::Refresh,
                other => {
                    return Err(node.wrong(format_args!(
                        "unknown push type {other}: use APPEND or REFRESH"
                    )));
                }
            };
        }
        if let Some(node) = config.take(period)
            && !node.is_blank()
        {
            self.push_period = match node.word()?.as_str() {
                "HOURLY" => PushPeriod::Hourly,
                "DAILY" => PushPeriod::Daily,
                _ => {
                    warnings.push(node.warning("taken as DAILY; there are DAILY and HOURLY"));
                    PushPeriod::Daily
                }
            };
        }
        Ok(())
    }
}

/// A time column that can be compared with a boundary.
fn time_column<'d>(node: &Node<'d>, schema: &Schema) -> Result<&'d str> {
    let name = fields::known_column(node, schema)?;
    let Some(column) = schema.column(name) else {
        return Ok(name);
    };
    let ColumnRole::DateTime { format, .. } = &column.role else {
        return Err(node.wrong(format_args!(
            "the column {name} has no time format; name it in the schema's dateTimeFieldSpecs"
        )));
    };
    if !format.is_sortable_in(column.data_type) {
        return Err(node.unsupported(format_args!(
            "the column {name} as time column; its values in the format {format} and type {} are not in the order of their times",
            column.data_type.pinot_name()
        )));
    }
    Ok(name)
}

fn read_transforms(ingestion: &mut Object<'_>, schema: &Schema) -> Result<Transforms> {
    let Some(node) = ingestion.take("transformConfigs") else {
        return Ok(Transforms::default());
    };
    let mut pairs = Vec::new();
    let mut nodes = Vec::new();
    for entry in node.list()? {
        let mut config = entry.object()?;
        let column = config.require("columnName")?;
        let function = config.require("transformFunction")?;
        pairs.push((fields::known_column(&column, schema)?, function.text()?));
        nodes.push(function);
    }
    Transforms::parse(pairs).map_err(|(number, error)| match nodes.get(number) {
        Some(node) => at_node(node, error),
        None => error,
    })
}

/// An error about an expression, with where it stands.
fn at_node(node: &Node<'_>, error: Error) -> Error {
    match error.message().strip_prefix("not supported: ") {
        Some(what) => node.unsupported(what),
        None => error.at(node.path()),
    }
}

/// `filterConfig`: rows for which its function is true are left out.
fn read_filter(
    transforms: Transforms,
    ingestion: &mut Object<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Transforms> {
    let Some(node) = ingestion.take("filterConfig") else {
        return Ok(transforms);
    };
    let mut config = node.object()?;
    let function = config.take("filterFunction").filter(|f| !f.is_blank());
    config.finish(warnings);
    match function {
        Some(function) => transforms
            .with_filter(function.text()?)
            .map_err(|error| at_node(&function, error)),
        None => Ok(transforms),
    }
}

fn read_stream_ingestion<'d>(
    ingestion: &mut Object<'d>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Vec<Node<'d>>> {
    let Some(node) = ingestion.take("streamIngestionConfig") else {
        return Ok(Vec::new());
    };
    let mut config = node.object()?;
    let maps = config
        .take("streamConfigMaps")
        .map(|n| n.list())
        .transpose()?
        .unwrap_or_default();
    for (_, node) in config.take_rest() {
        if !node.is_blank() {
            warnings.push(node.warning("it has no effect"));
        }
    }
    Ok(maps)
}

/// The streams of a realtime half, each another topic or of another cluster.
fn read_streams(
    nodes: &[Node<'_>],
    table: &str,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Vec<Arc<StreamConfig>>> {
    if nodes.is_empty() {
        return Err(Error::invalid(
            "ingestionConfig.streamIngestionConfig.streamConfigMaps: a REALTIME table needs a stream; \
             for the embedded log write [{\"streamType\": \"log\"}]",
        ));
    }
    let mut streams: Vec<Arc<StreamConfig>> = Vec::new();
    for node in nodes {
        if streams.len() == STREAMS_MAX {
            return Err(node.unsupported(format_args!("more than {STREAMS_MAX} streams")));
        }
        let stream = stream::parse(node, table, warnings)?;
        if streams.iter().any(|other| other.id() == stream.id()) {
            return Err(node.wrong(format_args!(
                "the topic {} is there twice; its rows would be counted twice",
                stream.topic
            )));
        }
        streams.push(Arc::new(stream));
    }
    Ok(streams)
}

/// Fields of a message itself must be known ones, and filled where they are columns.
fn check_metadata(
    schema: &Schema,
    transforms: &Transforms,
    streams: &[Arc<StreamConfig>],
    warnings: &mut Vec<ConfigWarning>,
) -> Result<()> {
    let columns = schema.columns.iter().map(|c| c.name.as_str());
    let sources = transforms.sources();
    for name in columns.chain(sources.iter().copied()) {
        if !metadata::looks_like_metadata(name) || streams.is_empty() {
            continue;
        }
        if !metadata::is_metadata(name) {
            return Err(Error::unsupported(format!(
                "not supported: the field {name}; of messages there are __key, __header$NAME, __metadata$offset, \
                 __metadata$partition and __metadata$recordTimestamp"
            )));
        }
        if streams.iter().any(|stream| !stream.decoder.metadata) {
            warnings.push(ConfigWarning {
                path: format!("schema.{name}"),
                message: "it stays null unless the stream's metadata.populate is true".to_owned(),
            });
        }
    }
    Ok(())
}

fn read_ingestion_rest(
    mut ingestion: Object<'_>,
    segments: &mut Segments,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<()> {
    if let Some(node) = ingestion.take("batchIngestionConfig") {
        let mut batch = node.object()?;
        segments.read_push(
            &mut batch,
            "segmentIngestionType",
            "segmentIngestionFrequency",
            warnings,
        )?;
        batch.warn(
            "batchConfigMaps",
            "files are loaded by `strandline load`, not by themselves",
            warnings,
        );
        batch.warn(
            "consistentDataPush",
            "every load is all or nothing",
            warnings,
        );
        batch.finish(warnings);
    }
    ingestion.refuse(
        "aggregationConfigs",
        "aggregation while rows come in; rows would be counted one by one",
    )?;
    ingestion.refuse("enrichmentConfigs", "enrichment; columns would be empty")?;
    for key in [
        "schemaConformingTransformerConfig",
        "schemaConformingTransformerV2Config",
    ] {
        ingestion.refuse(key, "fitting fields to the schema; columns would be empty")?;
    }
    ingestion.warn(
        "continueOnError",
        "a row that can't be read is refused whole, and named",
        warnings,
    );
    ingestion.warn(
        "rowTimeValueCheck",
        "times outside the years 1 to 9999 are always refused",
        warnings,
    );
    ingestion.warn(
        "segmentTimeValueCheck",
        "times outside the years 1 to 9999 are always refused",
        warnings,
    );
    ingestion.warn(
        "retryOnSegmentBuildPrecheckFailure",
        "it has no effect",
        warnings,
    );
    ingestion.finish(warnings);
    Ok(())
}

fn read_indexing_rest(mut indexing: Object<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<()> {
    indexing.warn(
        "multiColumnTextIndexConfig",
        "this index is not built; queries give the same answers without it",
        warnings,
    );
    if let Some(node) = indexing.take("nullHandlingEnabled")
        && !node.boolean()?
    {
        warnings.push(node.warning("nulls are always SQL nulls"));
    }
    indexing.refuse(
        "aggregateMetrics",
        "rolling up rows while they come in; rows would be counted one by one",
    )?;
    indexing.warn(
        "segmentPartitionConfig",
        "segments are not pruned by partition",
        warnings,
    );
    indexing.warn(
        "tierOverwrites",
        "there are no tiers; columns are stored in one way",
        warnings,
    );
    for key in [
        "varLengthDictionaryColumns",
        "onHeapDictionaryColumns",
        "optimizeDictionary",
        "optimizeDictionaryForMetrics",
        "optimizeDictionaryType",
        "noDictionarySizeRatioThreshold",
        "noDictionaryCardinalityRatioThreshold",
    ] {
        indexing.warn(key, "dictionaries are laid out by the database", warnings);
    }
    for key in [
        "segmentNameGeneratorType",
        "segmentFormatVersion",
        "columnMajorSegmentBuilderEnabled",
    ] {
        indexing.warn(
            key,
            "segments are named and laid out by the database",
            warnings,
        );
    }
    // What these ask for is always so.
    indexing.ignore(&[
        "loadMode",
        "createInvertedIndexDuringSegmentGeneration",
        "autoGeneratedInvertedIndex",
        "columnMinMaxValueGeneratorMode",
        "rangeIndexVersion",
        "aggregateMetrics",
        "skipSegmentPreprocess",
        "optimizeNoDictStatsCollection",
    ]);
    indexing.finish(warnings);
    Ok(())
}

fn read_root_rest(mut root: Object<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<()> {
    root.warn("tenants", "there are no tenants", warnings);
    if let Some(node) = root.take("metadata") {
        let mut metadata = node.object()?;
        metadata.warn(
            "customConfigs",
            "kept in the document; it has no effect",
            warnings,
        );
        metadata.finish(warnings);
    }
    for (key, message) in [
        ("routing", "queries are routed and pruned by the database"),
        ("query", "set limits in the query or on the server"),
        ("quota", "there are no quotas for tables"),
        (
            "tierConfigs",
            "there are no tiers; segments stay where they are",
        ),
        ("tunerConfigs", "there are no tuners"),
        (
            "tableSamplers",
            "samples of tables are not kept; query the table",
        ),
        (
            "instanceAssignmentConfigMap",
            "segments are placed by the database",
        ),
        (
            "instancePartitionsMap",
            "segments are placed by the database",
        ),
        (
            "segmentAssignmentConfigMap",
            "segments are placed by the database",
        ),
        ("dimensionTableConfig", "the table is an ordinary one"),
        ("isDimTable", "the table is an ordinary one"),
    ] {
        root.warn(key, message, warnings);
    }
    root.ignore(&["description", "tags"]);
    root.finish(warnings);
    Ok(())
}
