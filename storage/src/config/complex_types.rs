//! `ingestionConfig.complexTypeConfig`.

use super::ConfigWarning;
use super::document::Object;
use crate::convert::flatten::{ArraysToJson, ComplexTypes};
use std::collections::BTreeMap;
use strandline_proto::Result;

const DELIMITER_DEFAULT: &str = ".";
/// Arrays that are unnested: their combinations multiply.
const UNNEST_MAX: usize = 64;

pub(super) fn read(
    ingestion: &mut Object<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<ComplexTypes>> {
    let Some(node) = ingestion
        .take("complexTypeConfig")
        .filter(|node| !node.is_blank())
    else {
        return Ok(None);
    };
    let mut config = node.object()?;
    let delimiter = match config.take("delimiter") {
        Some(node) if node.text()?.is_empty() => {
            return Err(node.wrong("the delimiter is empty"));
        }
        Some(node) => node.text()?.to_owned(),
        None => DELIMITER_DEFAULT.to_owned(),
    };
    let mut unnest = Vec::new();
    if let Some(node) = config.take("fieldsToUnnest") {
        for (node, path) in node.texts()? {
            if path.is_empty() || unnest.iter().any(|known| known == path) {
                return Err(node.wrong("the path is empty or there twice"));
            }
            unnest.push(path.to_owned());
            if unnest.len() > UNNEST_MAX {
                return Err(node.wrong(format_args!("more than {UNNEST_MAX} paths")));
            }
        }
    }
    // An outer array comes before those inside of it.
    unnest.sort_unstable();
    let to_json = match config.take("collectionNotUnnestedToJson") {
        Some(node) => match node.word()?.as_str() {
            "NON_PRIMITIVE" => ArraysToJson::Nested,
            "ALL" => ArraysToJson::All,
            "NONE" => ArraysToJson::None,
            other => {
                return Err(node.wrong(format_args!(
                    "unknown choice {other}: use NON_PRIMITIVE, ALL or NONE"
                )));
            }
        },
        None => ArraysToJson::default(),
    };
    let mut rename = BTreeMap::new();
    if let Some(node) = config.take("prefixesToRename") {
        for (prefix, new) in node.object()?.take_rest() {
            if prefix.is_empty() {
                return Err(new.wrong("an empty prefix, which every name begins with"));
            }
            rename.insert(prefix.to_owned(), new.text()?.to_owned());
        }
    }
    config.finish(warnings);
    Ok(Some(ComplexTypes {
        delimiter,
        unnest,
        to_json,
        rename,
    }))
}
