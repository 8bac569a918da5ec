//! What tables and columns may be called. Names become folders and SQL identifiers.

use super::document::Node;
use crate::decode::metadata;
use strandline_proto::Result;

/// Characters of a name.
const NAME_CHARS_MAX: usize = 128;

/// The name of a table or schema: letters, digits, `_` and `-`.
pub(super) fn check_table(node: &Node<'_>, name: &str) -> Result<()> {
    check_length(node, name)?;
    match name
        .chars()
        .find(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-'))
    {
        Some(c) => Err(node.wrong(format_args!(
            "the name '{}' has the character '{}'; use letters, digits, _ and -",
            name.escape_debug(),
            c.escape_debug()
        ))),
        None => Ok(()),
    }
}

/// The name of a column: anything printable that is no path and no virtual column; `$` only in the names of what a message says
/// of itself.
pub(super) fn check_column(node: &Node<'_>, name: &str) -> Result<()> {
    check_length(node, name)?;
    if name.trim() != name {
        return Err(node.wrong(format_args!(
            "the name '{}' begins or ends with a space",
            name.escape_debug()
        )));
    }
    if name.contains("..") {
        return Err(node.wrong(format_args!(
            "the name '{}' has two dots",
            name.escape_debug()
        )));
    }
    match name.chars().find(|c| {
        c.is_control()
            || matches!(c, '/' | '\\' | '"' | '\'' | '`')
            || (*c == '$' && !metadata::is_metadata(name))
    }) {
        Some(c) => Err(node.wrong(format_args!(
            "the name '{}' has the character '{}', which column names may not have",
            name.escape_debug(),
            c.escape_debug()
        ))),
        None => Ok(()),
    }
}

fn check_length(node: &Node<'_>, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(node.wrong("the name is empty"));
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Err(node.wrong(format_args!(
            "the name is longer than {NAME_CHARS_MAX} characters"
        )));
    }
    Ok(())
}
