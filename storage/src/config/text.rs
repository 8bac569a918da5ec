//! The settings of a text index: `indexes.text` of a field config, or its `properties`, which name some of them otherwise.

use super::ConfigWarning;
use super::document::{Node, Object};
use strandline_proto::Result;
use strandline_proto::schema::Schema;
use strandline_proto::text::TextSettings;

const ANALYZER: &str = "org.apache.lucene.analysis.standard.StandardAnalyzer";
const PARSER: &str = "org.apache.lucene.queryparser.classic.QueryParser";

/// Settings of how Lucene keeps its files and caches.
const NO_EFFECT: [&str; 16] = [
    "queryCache",
    "enableQueryCacheForTextIndex",
    "fst",
    "fstType",
    "luceneUseCompoundFile",
    "luceneMaxBufferSizeMB",
    "reuseMutableIndex",
    "luceneNRTCachingDirectoryMaxBufferSizeMB",
    "useLogByteSizeMergePolicy",
    "luceneUseLogByteSizeMergePolicy",
    "docIdTranslatorMode",
    "luceneDocIdTranslatorMode",
    "textIndexRealtimeReaderRefreshThreshold",
    "deriveNumDocsPerChunk",
    "rawIndexWriterVersion",
    "allowOptions",
];

/// Refuses an index of texts on a column that holds none.
pub(super) fn check_column(name: &str, kind: &str, schema: &Schema, node: &Node<'_>) -> Result<()> {
    match schema.column(name).map(|column| column.data_type) {
        Some(other) if !other.is_text() => Err(node.wrong(format_args!(
            "an index of kind {kind} is for columns of text, and {name} is {}",
            other.pinot_name()
        ))),
        _ => Ok(()),
    }
}

/// Reads what `object` says of a text index into `settings`.
pub(super) fn read(
    object: &mut Object<'_>,
    settings: &mut TextSettings,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<()> {
    let words = |node: Node<'_>| -> Result<Vec<String>> {
        let texts = node.texts()?.into_iter();
        let words = texts.flat_map(|(_, text)| text.split(',').map(str::trim));
        let words = words.filter(|word| !word.is_empty());
        Ok(words.map(str::to_lowercase).collect())
    };
    for key in ["stopWordsInclude", "stopWordInclude"] {
        if let Some(node) = object.take(key) {
            settings.stop_words.extend(words(node)?);
        }
    }
    for key in ["stopWordsExclude", "stopWordExclude"] {
        if let Some(node) = object.take(key) {
            for word in words(node)? {
                settings.stop_words.remove(&word);
            }
        }
    }
    if let Some(node) = object.take("caseSensitive") {
        settings.case_sensitive = node.boolean()?;
    }
    for key in [
        "useANDForMultiTermQueries",
        "useANDForMultiTermTextIndexQueries",
    ] {
        if let Some(node) = object.take(key) {
            settings.all_needed = node.boolean()?;
        }
    }
    for (key, only, what) in [
        ("luceneAnalyzerClass", ANALYZER, "analyzer"),
        ("luceneQueryParserClass", PARSER, "query parser"),
    ] {
        if let Some(node) = object.take(key)
            && !node.is_blank()
            && node.text()? != only
        {
            return Err(node.unsupported(format_args!(
                "another {what} than {only}; queries would find other words"
            )));
        }
    }
    for key in ["luceneAnalyzerClassArgs", "luceneAnalyzerClassArgTypes"] {
        object.refuse(
            key,
            "arguments of an analyzer; queries would find other words",
        )?;
    }
    object.refuse(
        "enablePrefixSuffixMatchingInPhraseQueries",
        "patterns within phrases; queries would find other words",
    )?;
    for key in ["rawValue", "rawValueForTextIndex", "noRawDataForTextIndex"] {
        object.warn(key, "the column's texts are kept", warnings);
    }
    for key in NO_EFFECT {
        object.warn(key, "it has no effect on this text index", warnings);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigWarning, TableConfig, parse_schema, parse_table};
    use std::sync::Arc;
    use strandline_proto::text::TextSettings;
    use strandline_proto::{ErrorKind, Result};

    fn parse(fields: &str) -> Result<(TableConfig, Vec<ConfigWarning>)> {
        let schema = r#"{"schemaName": "t", "dimensionFieldSpecs": [
            {"name": "a", "dataType": "STRING"}, {"name": "n", "dataType": "INT"},
            {"name": "list", "dataType": "STRING", "singleValueField": false}]}"#;
        let schema = Arc::new(parse_schema(schema, 1)?.0);
        let json = format!(
            r#"{{"tableName": "t", "tableType": "OFFLINE", "fieldConfigList": [{fields}]}}"#
        );
        parse_table(&json, &schema)
    }

    #[test]
    fn text_and_fst_indexes_are_read_with_their_settings() {
        let (config, warnings) = parse(
            r#"{"name": "a", "encodingType": "RAW", "indexTypes": ["TEXT"], "properties": {"stopWordInclude": "Foo, bar",
                "stopWordExclude": "the,a", "caseSensitive": "true", "luceneMaxBufferSizeMB": "50", "rawValueForTextIndex": "n"}},
               {"name": "list", "indexes": {"text": {"useANDForMultiTermQueries": true, "stopWordsExclude": ["it", "is"]},
                "fst": {"type": "LUCENE"}}}"#,
        )
        .unwrap();
        let paths: Vec<&str> = warnings.iter().map(|w| w.path.as_str()).collect();
        let field = |rest: &str| format!("fieldConfigList{rest}");
        assert_eq!(
            paths,
            [
                field("[0].properties.rawValueForTextIndex"),
                field("[0].properties.luceneMaxBufferSizeMB"),
            ]
        );
        let words = |more: &[&str], less: &[&str]| {
            let default = TextSettings::default().stop_words.into_iter();
            let kept = default.filter(|word| !less.contains(&word.as_str()));
            kept.chain(more.iter().map(|word| (*word).to_owned()))
                .collect()
        };
        let of_a = config.spec.column("a");
        assert_eq!(
            of_a.text,
            Some(TextSettings {
                case_sensitive: true,
                stop_words: words(&["foo", "bar"], &["the", "a"]),
                all_needed: false,
            })
        );
        let of_list = config.spec.column("list");
        assert_eq!(
            of_list.text,
            Some(TextSettings {
                case_sensitive: false,
                stop_words: words(&[], &["it", "is"]),
                all_needed: true,
            })
        );
        assert_eq!((of_a.fst, of_list.fst), (false, true));
        let (off, _) = parse(r#"{"name": "a", "indexes": {"text": {"disabled": true}}}"#).unwrap();
        assert_eq!(off.spec.column("a").text, None);
    }

    #[test]
    fn what_would_find_other_words_is_refused_by_its_path() {
        for (fields, part, kind) in [
            (
                r#"{"name": "n", "indexTypes": ["TEXT"]}"#,
                "fieldConfigList[0].indexTypes[0]: an index of kind TEXT is for columns of text",
                ErrorKind::InvalidArgument,
            ),
            (
                r#"{"name": "n", "indexes": {"fst": {}}}"#,
                "indexes.fst: an index of kind FST is for columns of text",
                ErrorKind::InvalidArgument,
            ),
            (
                r#"{"name": "a", "encodingType": "RAW", "indexTypes": ["FST"]}"#,
                "indexTypes[0]: an FST index needs a dictionary",
                ErrorKind::InvalidArgument,
            ),
            (
                r#"{"name": "a", "indexes": {"text": {"luceneAnalyzerClass": "a.b.Mine"}}}"#,
                "indexes.text.luceneAnalyzerClass: another analyzer",
                ErrorKind::Unsupported,
            ),
            (
                r#"{"name": "a", "indexTypes": ["TEXT"], "properties": {"enablePrefixSuffixMatchingInPhraseQueries": "true"}}"#,
                "properties.enablePrefixSuffixMatchingInPhraseQueries",
                ErrorKind::Unsupported,
            ),
            (
                r#"{"name": "a", "indexes": {"text": {"luceneQueryParserClass": "a.b.Mine"}}}"#,
                "another query parser",
                ErrorKind::Unsupported,
            ),
        ] {
            let error = parse(fields).map(|_| ()).unwrap_err();
            assert!(error.message().contains(part), "{error}");
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}
