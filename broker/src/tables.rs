//! The tables that statements can name, at one catalog snapshot.

use crate::bind::Halves;
use datafusion::arrow::datatypes::SchemaRef;
use std::sync::Arc;
use strandline_proto::catalog::{CatalogSnapshot, TableSnapshot};
use strandline_proto::ids::Half;

/// The schema of the server's own tables.
pub(crate) const SYSTEM_SCHEMA: &str = "system";

/// One table that a statement can name.
#[derive(Clone, Debug)]
pub(crate) enum NamedTable {
    /// A table of rows in segments.
    Leaf {
        /// The table.
        table: Arc<TableSnapshot>,
        /// Which of its rows.
        halves: Halves,
    },
    /// A table of the `system` schema.
    System {
        /// Its name within the schema.
        name: String,
        /// Its columns.
        schema: SchemaRef,
    },
}

impl NamedTable {
    /// The names of the columns, without virtual ones.
    pub(crate) fn columns(&self) -> Vec<String> {
        match self {
            Self::Leaf { table, .. } => table
                .schema
                .columns
                .iter()
                .map(|c| c.name.clone())
                .collect(),
            Self::System { schema, .. } => {
                schema.fields().iter().map(|f| f.name().clone()).collect()
            }
        }
    }
}

/// All tables of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// The snapshot.
    pub(crate) snapshot: Arc<CatalogSnapshot>,
    /// The `system` schema.
    pub(crate) system: Arc<[(String, SchemaRef)]>,
}

impl Tables {
    /// The table of exactly this name; `schema` is what stands before the dot.
    pub(crate) fn get(&self, schema: Option<&str>, name: &str) -> Option<NamedTable> {
        if let Some(schema) = schema {
            let (name, columns) = self
                .system
                .iter()
                .find(|(n, _)| schema == SYSTEM_SCHEMA && n == name)?;
            return Some(NamedTable::System {
                name: name.clone(),
                schema: Arc::clone(columns),
            });
        }
        if let Some(table) = self.snapshot.tables.get(name) {
            return Some(NamedTable::Leaf {
                table: Arc::clone(table),
                halves: Halves::Covered,
            });
        }
        [Half::Offline, Half::Realtime]
            .into_iter()
            .find_map(|half| {
                let table = self
                    .snapshot
                    .tables
                    .get(name.strip_suffix(half.as_str())?.strip_suffix('_')?)?;
                let exists = match half {
                    Half::Offline => table.has_offline,
                    Half::Realtime => table.has_realtime,
                };
                exists.then(|| NamedTable::Leaf {
                    table: Arc::clone(table),
                    halves: Halves::Whole(half),
                })
            })
    }

    /// All names: schema, if any, and table.
    pub(crate) fn names(&self) -> Vec<(Option<&'static str>, String)> {
        let mut names = Vec::new();
        for table in self.snapshot.tables.values() {
            names.push((None, table.name.to_string()));
            if table.has_offline {
                names.push((None, format!("{}_{}", table.name, Half::Offline)));
            }
            if table.has_realtime {
                names.push((None, format!("{}_{}", table.name, Half::Realtime)));
            }
        }
        names.extend(
            self.system
                .iter()
                .map(|(name, _)| (Some(SYSTEM_SCHEMA), name.clone())),
        );
        names
    }
}
