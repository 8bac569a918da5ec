//! Where earlier segments store a table's columns: what a schema that changes leaves to be known.
//!
//! A segment is as its schema's version was. A column that came later is not in it, even where it stores an older, dropped
//! column of the same name; a renamed one is there under the name that it had.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// From which schema version on segments store a column under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    since: u32,
    name: String,
}

/// The columns of a table that were added or renamed since its first schema. Others are stored under their own names in
/// every segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(BTreeMap<String, Vec<Stored>>);

impl Lineage {
    /// Whether every column is stored under its own name.
    pub fn is_plain(&self) -> bool {
        self.0.is_empty()
    }

    /// The name under which segments of a schema version store a column; none: they do not have it.
    pub fn stored_name<'a>(&'a self, column: &'a str, version: u32) -> Option<&'a str> {
        match self.0.get(column) {
            None => Some(column),
            Some(names) => {
                let mut known = names.iter().rev();
                known.find(|s| s.since <= version).map(|s| s.name.as_str())
            }
        }
    }

    /// The lineage from schema `version` on, of these columns, each with the name it had before; none for a new one.
    pub fn changed<'a>(
        &self,
        version: u32,
        columns: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Self {
        let mut changed = BTreeMap::new();
        for (column, before) in columns {
            let now = Stored {
                since: version,
                name: column.to_owned(),
            };
            let names = match before {
                None => vec![now],
                Some(before) => {
                    let mut names = match self.0.get(before) {
                        Some(names) => names.clone(),
                        None if before == column => continue,
                        None => vec![Stored {
                            since: 0,
                            name: before.to_owned(),
                        }],
                    };
                    if before != column {
                        names.push(now);
                    }
                    names
                }
            };
            changed.insert(column.to_owned(), names);
        }
        Self(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_go_and_change_their_names() {
        let first = Lineage::default();
        assert_eq!(
            (first.is_plain(), first.stored_name("a", 1)),
            (true, Some("a"))
        );
        // Version 2: b becomes c, and a new b comes.
        let second = first.changed(2, [("a", Some("a")), ("c", Some("b")), ("b", None)]);
        assert_eq!(second.stored_name("a", 1), Some("a"));
        assert_eq!(second.stored_name("c", 1), Some("b"));
        assert_eq!(second.stored_name("c", 2), Some("c"));
        assert_eq!(second.stored_name("b", 1), None);
        assert_eq!(second.stored_name("b", 2), Some("b"));
        // Version 3: the new b goes, c becomes b.
        let third = second.changed(3, [("a", Some("a")), ("b", Some("c"))]);
        let names = [1, 2, 3, 9].map(|version| third.stored_name("b", version));
        assert_eq!(names, [Some("b"), Some("c"), Some("b"), Some("b")]);
        // Version 4: b goes; version 5: it comes again.
        let fourth = third.changed(4, [("a", Some("a"))]);
        assert!(fourth.is_plain());
        let fifth = fourth.changed(5, [("a", Some("a")), ("b", None)]);
        let names = [1, 4, 5].map(|version| fifth.stored_name("b", version));
        assert_eq!(names, [None, None, Some("b")]);
    }
}
