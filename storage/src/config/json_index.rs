//! Settings of a JSON index: Pinot's, wherever they stand in the table config.

use super::ConfigWarning;
use super::document::{Node, Object};
use crate::segment::json::JsonSpec;
use strandline_proto::Result;
use strandline_proto::schema::{Column, DataType, Schema};

/// Reads the settings of the index on the column `name`, which must be one of single-value text.
pub(super) fn read(
    name: &str,
    node: &Node<'_>,
    index: &mut Object<'_>,
    schema: &Schema,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<JsonSpec> {
    check_column(name, node, schema)?;
    let mut spec = JsonSpec::default();
    if let Some(node) = index.take("maxLevels") {
        spec.levels_max = positive(&node)?;
    }
    if let Some(node) = index.take("maxValueLength") {
        spec.value_chars_max = positive(&node)?;
    }
    if let Some(node) = index.take("excludeArray") {
        spec.exclude_array = node.boolean()?;
    }
    for (key, list) in [
        ("includePaths", &mut spec.include_paths),
        ("excludePaths", &mut spec.exclude_paths),
        ("excludeFields", &mut spec.exclude_fields),
        ("indexPaths", &mut spec.index_paths),
    ] {
        if let Some(node) = index.take(key) {
            for (node, text) in node.texts()? {
                list.push(text.to_owned());
                if key.ends_with("cludePaths") {
                    let path = JsonSpec {
                        include_paths: vec![text.to_owned()],
                        ..JsonSpec::default()
                    };
                    path.check().map_err(|e| e.at(node.path()))?;
                }
            }
        }
    }
    if !spec.include_paths.is_empty() && !spec.exclude_paths.is_empty() {
        return Err(
            node.wrong("includePaths and excludePaths exclude each other: give one of them")
        );
    }
    if let Some(node) = index.take("disableCrossArrayUnnest")
        && !node.is_blank()
    {
        warnings.push(node.warning(
            "elements of arrays are never multiplied with each other, and a filter may still be about several arrays",
        ));
    }
    if let Some(node) = index.take("skipInvalidJson") {
        let is_json = schema
            .column(name)
            .is_some_and(|c| c.data_type == DataType::Json);
        match (node.boolean()?, is_json) {
            (true, true) => warnings.push(node.warning(
                "a column of type JSON refuses rows whose text is no document; take STRING to keep them",
            )),
            (false, false) => warnings.push(
                node.warning("a STRING that is no document is kept, and no filter holds for it"),
            ),
            _ => {}
        }
    }
    Ok(spec)
}

/// Checks that the column can have such an index.
pub(super) fn check_column(name: &str, node: &Node<'_>, schema: &Schema) -> Result<()> {
    match schema.column(name).is_some_and(Column::is_single_text) {
        true => Ok(()),
        false => Err(node.wrong(format_args!(
            "a JSON index needs a single-value column of type JSON or STRING, and {name} is none"
        ))),
    }
}

/// A number; none when it is zero or less, which stands for any.
fn positive(node: &Node<'_>) -> Result<Option<u32>> {
    let text = node.scalar_text()?;
    match text.trim().parse::<i64>() {
        Ok(number) if number <= 0 => Ok(None),
        Ok(number) => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
        Err(_) => Err(node.wrong(format_args!("expected a whole number, found '{text}'"))),
    }
}
