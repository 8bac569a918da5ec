//! Storage of columns: `tableIndexConfig` and `fieldConfigList`.

use super::ConfigWarning;
use super::document::{Node, Object};
use super::{json_index, text};
use crate::segment::json::JsonSpec;
use crate::segment::spec::{ColumnSpec, Encoding};
use std::collections::BTreeMap;
use strandline_proto::Result;
use strandline_proto::granularity::Granularity;
use strandline_proto::schema::{Column, Schema};

/// What the two sections say together, with where each wish stands.
#[derive(Default)]
pub(super) struct Storage {
    pub(super) columns: BTreeMap<String, ColumnSpec>,
    pub(super) sorted_column: Option<String>,
    /// Where a column was asked to be raw, and where to have an inverted index, for the error when both.
    inverted_at: BTreeMap<String, String>,
    /// Where a column was asked to have an FST index, likewise.
    fst_at: BTreeMap<String, String>,
}

const NOT_BUILT: &str = "this index is not built; queries give the same answers without it";

impl Storage {
    fn column(&mut self, name: &str) -> &mut ColumnSpec {
        self.columns.entry(name.to_owned()).or_default()
    }

    fn want_inverted(&mut self, name: &str, node: &Node<'_>) {
        self.column(name).inverted = true;
        self.inverted_at
            .insert(name.to_owned(), node.path().to_owned());
    }

    /// Reads `tableIndexConfig`.
    pub(super) fn read_indexing(
        &mut self,
        indexing: &mut Object<'_>,
        schema: &Schema,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        for (node, name) in column_list(indexing, "invertedIndexColumns", schema)? {
            self.want_inverted(name, &node);
        }
        for (_, name) in column_list(indexing, "rangeIndexColumns", schema)? {
            self.column(name).range = true;
        }
        for (_, name) in column_list(indexing, "bloomFilterColumns", schema)? {
            self.column(name).bloom = true;
        }
        for (name, node) in column_map(indexing, "bloomFilterConfigs", schema)? {
            self.column(name).bloom = true;
            if !node.is_blank() {
                warnings.push(
                    node.warning("the bloom filter is built with a fixed rate of false positives"),
                );
            }
        }
        for (_, name) in column_list(indexing, "noDictionaryColumns", schema)? {
            self.column(name).encoding = Encoding::Raw;
        }
        for (name, node) in column_map(indexing, "noDictionaryConfig", schema)? {
            self.column(name).encoding = Encoding::Raw;
            warnings.push(node.warning("the codec is chosen by the database"));
        }
        for (node, name) in column_list(indexing, "jsonIndexColumns", schema)? {
            json_index::check_column(name, &node, schema)?;
            self.column(name).json = Some(JsonSpec::default());
        }
        for (name, node) in column_map(indexing, "jsonIndexConfigs", schema)? {
            self.read_json(name, &node, &mut node.object()?, schema, warnings)?;
        }
        let mut sorted = column_list(indexing, "sortedColumn", schema)?.into_iter();
        if let Some((node, name)) = sorted.next() {
            if schema.column(name).is_some_and(|c| c.multi_value) {
                return Err(node.wrong(format_args!(
                    "the multi-value column {name} can't sort segments"
                )));
            }
            self.sorted_column = Some(name.to_owned());
        }
        for (node, _) in sorted {
            warnings.push(node.warning("segments are sorted by the first column only"));
        }
        Ok(())
    }

    /// Reads `fieldConfigList`.
    pub(super) fn read_fields(
        &mut self,
        list: &Node<'_>,
        schema: &Schema,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        for node in list.list()? {
            let mut field = node.object()?;
            let name_node = field.require("name")?;
            let name = known_column(&name_node, schema)?;
            self.column(name);
            if let Some(encoding) = field.take("encodingType") {
                match encoding.word()?.as_str() {
                    "RAW" => self.column(name).encoding = Encoding::Raw,
                    "DICTIONARY" => {}
                    other => {
                        return Err(encoding.wrong(format_args!(
                            "unknown encoding {other}: use DICTIONARY or RAW"
                        )));
                    }
                }
            }
            for key in ["indexType", "indexTypes"] {
                for (node, kind) in field
                    .take(key)
                    .map(|n| n.texts())
                    .transpose()?
                    .unwrap_or_default()
                {
                    self.want(name, &kind.to_ascii_uppercase(), &node, schema, warnings)?;
                }
            }
            if let Some(indexes) = field.take("indexes") {
                for (kind, node) in indexes.object()?.take_rest() {
                    self.read_index(name, kind, &node, schema, warnings)?;
                }
            }
            match (&mut self.column(name).text, field.take("properties")) {
                (Some(settings), Some(properties)) => {
                    let mut properties = properties.object()?;
                    text::read(&mut properties, settings, warnings)?;
                    properties.finish(warnings);
                }
                (None, Some(properties)) if !properties.is_blank() => {
                    warnings.push(properties.warning("these properties have no effect"));
                }
                _ => {}
            }
            if let Some(timestamp) = field.take("timestampConfig")
                && !timestamp.is_blank()
            {
                let mut index = timestamp.object()?;
                self.read_timestamp(name, &mut index, schema, warnings)?;
                index.finish(warnings);
            }
            field.warn(
                "compressionCodec",
                "the codec is chosen by the database",
                warnings,
            );
            field.warn(
                "tierOverwrites",
                "there are no tiers; the column is stored in one way",
                warnings,
            );
            field.finish(warnings);
        }
        Ok(())
    }

    /// One entry of `indexes`: on unless it says otherwise.
    fn read_index(
        &mut self,
        name: &str,
        kind: &str,
        node: &Node<'_>,
        schema: &Schema,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        let mut index = node.object()?;
        let enabled = index
            .take("enabled")
            .map(|n| n.boolean())
            .transpose()?
            .unwrap_or(true);
        let disabled = index
            .take("disabled")
            .map(|n| n.boolean())
            .transpose()?
            .unwrap_or(false);
        let on = enabled && !disabled;
        match kind.to_ascii_lowercase().as_str() {
            "dictionary" => {
                if !on {
                    self.column(name).encoding = Encoding::Raw;
                }
                index.ignore(&["onHeap", "useVarLengthDictionary"]);
            }
            "forward" => {
                if !on {
                    warnings.push(node.warning("the forward index is kept"));
                }
                index.warn(
                    "compressionCodec",
                    "the codec is chosen by the database",
                    warnings,
                );
                index.warn(
                    "chunkCompressionType",
                    "the codec is chosen by the database",
                    warnings,
                );
                index.ignore(&[
                    "deriveNumDocsPerChunk",
                    "rawIndexWriterVersion",
                    "targetMaxChunkSize",
                    "targetMaxChunkSizeBytes",
                    "targetDocsPerChunk",
                ]);
            }
            _ if !on => return Ok(()),
            "json" => {
                index.ignore(&["enabled", "disabled"]);
                return self.read_json(name, node, &mut index, schema, warnings);
            }
            "text" => {
                text::check_column(name, "TEXT", schema, node)?;
                let settings = self.column(name).text.get_or_insert_default();
                text::read(&mut index, settings, warnings)?;
            }
            kind => {
                self.want(name, &kind.to_ascii_uppercase(), node, schema, warnings)?;
                if matches!(kind, "bloom") {
                    for (_, setting) in index.take_rest() {
                        warnings.push(setting.warning(
                            "the bloom filter is built with a fixed rate of false positives",
                        ));
                    }
                }
                index.take_rest();
            }
        }
        index.finish(warnings);
        Ok(())
    }

    fn read_json(
        &mut self,
        name: &str,
        node: &Node<'_>,
        index: &mut Object<'_>,
        schema: &Schema,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        let spec = json_index::read(name, node, index, schema, warnings)?;
        self.column(name).json = Some(spec);
        for (_, setting) in index.take_rest() {
            warnings.push(setting.warning("not known; it has no effect"));
        }
        Ok(())
    }

    /// What a timestamp index truncates to.
    fn read_timestamp(
        &mut self,
        name: &str,
        index: &mut Object<'_>,
        schema: &Schema,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        let list = index.require("granularities")?;
        for (node, granularity) in list.texts()? {
            match Granularity::parse(granularity) {
                Some(_) if !schema.column(name).is_some_and(Column::is_single_timestamp) => warnings
                    .push(node.warning(
                        "a timestamp index is built of single-value TIMESTAMP columns; queries give the same answers without it",
                    )),
                Some(granularity) => {
                    self.column(name).granularities.insert(granularity);
                }
                None if granularity.eq_ignore_ascii_case("MILLISECOND") => warnings.push(
                    node.warning("times are kept to the millisecond: nothing is truncated"),
                ),
                None => {
                    let names = Granularity::ALL.map(Granularity::name).join(", ");
                    return Err(node.wrong(format_args!(
                        "unknown granularity '{}': use {names}",
                        granularity.escape_debug()
                    )));
                }
            }
        }
        Ok(())
    }

    fn want(
        &mut self,
        name: &str,
        kind: &str,
        node: &Node<'_>,
        schema: &Schema,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        match kind {
            "INVERTED" => self.want_inverted(name, node),
            "RANGE" => self.column(name).range = true,
            "BLOOM" => self.column(name).bloom = true,
            "SORTED" => warnings.push(node.warning(
                "name the column in tableIndexConfig.sortedColumn to sort segments by it",
            )),
            "JSON" => {
                json_index::check_column(name, node, schema)?;
                self.column(name).json.get_or_insert_default();
            }
            "TEXT" => {
                text::check_column(name, kind, schema, node)?;
                self.column(name).text.get_or_insert_default();
            }
            "FST" | "IFST" => {
                text::check_column(name, kind, schema, node)?;
                self.column(name).fst = true;
                self.fst_at.insert(name.to_owned(), node.path().to_owned());
            }
            // What it truncates to stands in timestampConfig.
            "TIMESTAMP" => {}
            "H3" | "VECTOR" | "MAP" | "OPEN_STRUCT" => {
                warnings.push(node.warning(NOT_BUILT));
            }
            other => return Err(node.wrong(format_args!("unknown kind of index: {other}"))),
        }
        Ok(())
    }

    /// Holds the wishes against each other.
    pub(super) fn check(&self) -> Result<()> {
        for (name, spec) in &self.columns {
            for (wanted, places, kind) in [
                (spec.fst, &self.fst_at, "an FST"),
                (spec.inverted, &self.inverted_at, "an inverted"),
            ] {
                if wanted && spec.encoding == Encoding::Raw {
                    let at = places.get(name).map_or("fieldConfigList", String::as_str);
                    return Err(strandline_proto::Error::invalid(format!(
                        "{at}: {kind} index needs a dictionary, and the column {name} is to be stored without one"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The name of a column of the schema.
pub(super) fn known_column<'d>(node: &Node<'d>, schema: &Schema) -> Result<&'d str> {
    let name = node.text()?;
    match schema.column(name) {
        Some(_) => Ok(name),
        None => Err(node.wrong(format_args!(
            "no column '{}' in the schema {}",
            name.escape_debug(),
            schema.name
        ))),
    }
}

fn column_list<'d>(
    object: &mut Object<'d>,
    key: &str,
    schema: &Schema,
) -> Result<Vec<(Node<'d>, &'d str)>> {
    let Some(node) = object.take(key) else {
        return Ok(Vec::new());
    };
    if node.is_blank() {
        return Ok(Vec::new());
    }
    node.texts()?
        .into_iter()
        .map(|(node, _)| known_column(&node, schema).map(|name| (node.clone(), name)))
        .collect()
}

fn column_map<'d>(
    object: &mut Object<'d>,
    key: &str,
    schema: &Schema,
) -> Result<Vec<(&'d str, Node<'d>)>> {
    let Some(node) = object.take(key) else {
        return Ok(Vec::new());
    };
    let entries = node.object()?.take_rest();
    match entries
        .iter()
        .find(|(name, _)| schema.column(name).is_none())
    {
        Some((name, node)) => Err(node.wrong(format_args!(
            "no column '{}' in the schema {}",
            name.escape_debug(),
            schema.name
        ))),
        None => Ok(entries),
    }
}
