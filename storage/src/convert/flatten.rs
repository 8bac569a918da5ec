//! Nested records into flat rows (`ingestionConfig.complexTypeConfig`).
//!
//! ```text
//! {"id": 7, "buyer": {"name": "x"}, "lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]}
//!   with fieldsToUnnest ["lines"]
//! id 7, buyer.name x, lines.sku a, lines.n 1
//! id 7, buyer.name x, lines.sku b, lines.n 2
//! ```
//!
//! The fields of an object become fields named by their path, joined by `delimiter`, to any depth; an object itself stays
//! readable under its own name too, for a column of that name. An array that `fieldsToUnnest` names gives a row for each
//! of its elements; one without elements, or null, gives one row without it, and several arrays give all combinations, an
//! outer one before those inside of it. Of other arrays `collectionNotUnnestedToJson` says which become JSON text:
//! `NON_PRIMITIVE` (those that hold objects or arrays; the default), `ALL` or `NONE`. At last the longest of
//! `prefixesToRename` that a path begins with is replaced; two fields that get one name refuse the record.
//!
//! All rows of a record are taken, or none of them. A record gives at most [`ROWS_MAX`] rows of [`ROWS_BYTES_MAX`] bytes.

use super::cell::Cell;
use super::json;
use super::row::{RowBuilder, RowError, RowLayout};
use super::scalar;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Rows of one record.
pub const ROWS_MAX: usize = 65_536;
/// Bytes of the rows of one record.
pub const ROWS_BYTES_MAX: usize = 64 << 20;
/// Names whose place is remembered.
const NAMES_MAX: usize = 16_384;

/// Which arrays become JSON text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArraysToJson {
    /// Those that hold objects or arrays.
    #[default]
    Nested,
    /// All that are not unnested.
    All,
    /// None.
    None,
}

/// What `complexTypeConfig` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComplexTypes {
    /// Between the names of a path.
    pub delimiter: String,
    /// Paths of arrays whose elements become rows, an outer one before those inside of it.
    pub unnest: Vec<String>,
    /// Which other arrays become JSON text.
    pub to_json: ArraysToJson,
    /// Beginnings of paths, and what stands in their place.
    pub rename: BTreeMap<String, String>,
}

/// A record's fields in order.
pub(crate) type Fields<'a> = Vec<(Cow<'a, str>, Cell<'a>)>;

/// Makes rows of a layout from nested records.
#[derive(Debug)]
pub(crate) struct Flattener {
    config: ComplexTypes,
    layout: RowLayout,
    /// By path, where it goes, and whether it was renamed.
    places: std::collections::HashMap<String, (Option<usize>, bool)>,
}

/// A row in the making.
#[derive(Clone)]
struct Partial<'a> {
    cells: Vec<Cell<'a>>,
    /// Cells that were filled under another name.
    renamed: Vec<usize>,
    /// Arrays to unnest that were met: their place in the config, and their text.
    arrays: Vec<(usize, &'a str)>,
}

impl Flattener {
    pub(crate) fn new(config: &ComplexTypes, layout: &RowLayout) -> Self {
        Self {
            config: config.clone(),
            layout: layout.clone(),
            places: std::collections::HashMap::new(),
        }
    }

    /// Appends the rows of a record to `builder`, all or none. `given` are cells that every row has.
    pub(crate) fn push(
        &mut self,
        fields: &Fields<'_>,
        given: &[(usize, Cell<'_>)],
        builder: &mut RowBuilder,
    ) -> Result<(), RowError> {
        // Arrays and objects are read from text; those that came as values are written as one first.
        let texts: Vec<Option<String>> = fields.iter().map(|(_, cell)| text_of(cell)).collect();
        let mut row = Partial {
            cells: vec![Cell::Null; self.layout.width()],
            renamed: Vec::new(),
            arrays: Vec::new(),
        };
        let mut path = String::new();
        for ((name, cell), text) in fields.iter().zip(&texts) {
            let cell = match (cell, text) {
                (Cell::List(list), Some(text)) if self.is_read(name, list) => Cell::JsonArray(text),
                (Cell::Document(_), Some(text)) => Cell::Document(Cow::Borrowed(text)),
                (Cell::Document(text), None) => Cell::Document(Cow::Borrowed(text)),
                (Cell::Text(text), _) => Cell::Text(Cow::Borrowed(text)),
                (Cell::Bytes(bytes), _) => Cell::Bytes(Cow::Borrowed(bytes)),
                (other, _) => other.clone(),
            };
            path.clear();
            path.push_str(name);
            self.take(&mut path, cell, &mut row).map_err(whole)?;
        }
        for (slot, cell) in given {
            if let Some(place) = row.cells.get_mut(*slot) {
                *place = cell.clone();
            }
        }
        let before = builder.mark();
        let mut count = 0;
        let pushed = self.unnest(row, builder, &mut count, before.bytes());
        if pushed.is_err() {
            builder.cut_back(before);
        }
        pushed
    }

    /// Whether a list is unnested or becomes JSON text.
    fn is_read(&self, name: &str, list: &[Cell<'_>]) -> bool {
        self.config.unnest.iter().any(|path| path == name)
            || match self.config.to_json {
                ArraysToJson::All => true,
                ArraysToJson::None => false,
                ArraysToJson::Nested => list.iter().any(is_nested),
            }
    }

    /// Takes a value, and all that is in it, into a row.
    fn take<'a>(
        &mut self,
        path: &mut String,
        cell: Cell<'a>,
        row: &mut Partial<'a>,
    ) -> Result<(), String> {
        match cell {
            Cell::Document(Cow::Borrowed(text)) => {
                self.set(path, Cell::Document(Cow::Borrowed(text)), row)?;
                self.take_object(path, text, row)
            }
            Cell::JsonArray(text) => {
                if let Some(at) = self.config.unnest.iter().position(|p| p == path) {
                    // Of a field that is there twice the last counts.
                    row.arrays.retain(|(other, _)| *other != at);
                    row.arrays.push((at, text));
                    return Ok(());
                }
                let to_json = match self.config.to_json {
                    ArraysToJson::All => true,
                    ArraysToJson::None => false,
                    ArraysToJson::Nested => holds_nested(text)?,
                };
                let cell = match to_json {
                    true => Cell::Document(Cow::Borrowed(text)),
                    false => Cell::JsonArray(text),
                };
                self.set(path, cell, row)
            }
            other => self.set(path, other, row),
        }
    }

    fn take_object<'a>(
        &mut self,
        path: &mut String,
        text: &'a str,
        row: &mut Partial<'a>,
    ) -> Result<(), String> {
        let end = path.len();
        let mut failed = None;
        json::read_object(text, |name, value| {
            if failed.is_some() {
                return;
            }
            path.truncate(end);
            path.push_str(&self.config.delimiter);
            path.push_str(name);
            failed = self.take(path, value, row).err();
        })?;
        path.truncate(end);
        failed.map_or(Ok(()), Err)
    }

    fn set<'a>(&mut self, path: &str, cell: Cell<'a>, row: &mut Partial<'a>) -> Result<(), String> {
        let (slot, renamed) = match self.places.get(path) {
            Some(known) => *known,
            None => self.look_up(path),
        };
        let Some(slot) = slot else {
            return Ok(());
        };
        if let Some(place) = row.cells.get_mut(slot) {
            // An object's own cell gives way to a field of its name.
            if !place.is_null() && (renamed || row.renamed.contains(&slot)) {
                return Err(format!(
                    "two fields are called {} after prefixes were renamed",
                    self.layout.names().get(slot).map_or("", String::as_str)
                ));
            }
            *place = cell;
            if renamed {
                row.renamed.push(slot);
            }
        }
        Ok(())
    }

    #[cold]
    fn look_up(&mut self, path: &str) -> (Option<usize>, bool) {
        let prefix = (self.config.rename.iter())
            .filter(|(prefix, _)| path.starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len());
        let place = match prefix {
            Some((prefix, new)) => {
                let rest = path.get(prefix.len()..).unwrap_or_default();
                (self.layout.slot(&format!("{new}{rest}")), true)
            }
            None => (self.layout.slot(path), false),
        };
        if self.places.len() < NAMES_MAX {
            self.places.insert(path.to_owned(), place);
        }
        place
    }

    /// Pushes the rows of all combinations of the arrays that are left.
    fn unnest(
        &mut self,
        mut row: Partial<'_>,
        builder: &mut RowBuilder,
        count: &mut usize,
        bytes_before: usize,
    ) -> Result<(), RowError> {
        let Some(first) = (0..row.arrays.len()).min_by_key(|at| row.arrays[*at].0) else {
            *count += 1;
            if *count > ROWS_MAX {
                return Err(whole(format!("the record gives more than {ROWS_MAX} rows")));
            }
            builder.push(&mut row.cells)?;
            if builder.bytes().saturating_sub(bytes_before) > ROWS_BYTES_MAX {
                return Err(whole(format!(
                    "the record gives rows of more than {ROWS_BYTES_MAX} bytes"
                )));
            }
            return Ok(());
        };
        let (at, text) = row.arrays.swap_remove(first);
        let mut elements = 0;
        let mut failed = None;
        json::read_array(text, |element| {
            elements += 1;
            let mut inner = row.clone();
            let mut path = self.config.unnest.get(at).cloned().unwrap_or_default();
            let taken = match element {
                Cell::Document(Cow::Borrowed(text)) => {
                    let own = Cell::Document(Cow::Borrowed(text));
                    self.set(&path, own, &mut inner)
                        .and_then(|()| self.take_object(&mut path, text, &mut inner))
                }
                Cell::JsonArray(text) => {
                    self.set(&path, Cell::Document(Cow::Borrowed(text)), &mut inner)
                }
                plain => self.set(&path, plain, &mut inner),
            };
            let pushed = taken
                .map_err(whole)
                .and_then(|()| self.unnest(inner, builder, count, bytes_before));
            pushed.map_err(|error| {
                failed = Some(error);
                String::new()
            })
        })
        .map_err(|reason| failed.take().unwrap_or_else(|| whole(reason)))?;
        match elements {
            0 => self.unnest(row, builder, count, bytes_before),
            _ => Ok(()),
        }
    }
}

/// An error about a record as a whole.
fn whole(reason: String) -> RowError {
    RowError {
        column: String::new(),
        reason,
    }
}

fn is_nested(cell: &Cell<'_>) -> bool {
    matches!(cell, Cell::Document(_) | Cell::JsonArray(_) | Cell::List(_))
}

fn holds_nested(text: &str) -> Result<bool, String> {
    let mut nested = false;
    json::read_array(text, |element| {
        nested |= is_nested(&element);
        Ok(())
    })?;
    Ok(nested)
}

/// The JSON text of a list, or of an object that is nobody else's.
fn text_of(cell: &Cell<'_>) -> Option<String> {
    match cell {
        Cell::List(_) => {
            let mut out = String::new();
            scalar::write_json(cell, &mut out);
            Some(out)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
