//! One JSON object's fields into a row: most often each value is read into its column at once, otherwise into the cells of
//! the row, which transforms, filters and errors are about.
//!
//! Messages of one producer name their fields in one order. The order seen last is kept, so that the
//! usual field is found by one comparison instead of being read and hashed.

use super::cell::Cell;
use super::flatten::Fields;
use super::json;
use super::row::{RowBuilder, RowLayout};
use std::borrow::Cow;
use strandline_proto::json::JsonReader;

/// Fills rows of a layout from JSON objects.
#[derive(Debug, Default)]
pub(crate) struct JsonRow {
    /// By position in the object: the field seen there last.
    seen: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The name in quotes and the colon.
    quoted: String,
    /// Its cell.
    slot: Option<usize>,
}

/// All fields of the object in `text`, by name.
pub(crate) fn all_fields(text: &str) -> Result<Fields<'_>, String> {
    let mut fields = Fields::new();
    json::read_object(text, |name, value| {
        fields.push((Cow::Owned(name.to_owned()), value));
    })?;
    Ok(fields)
}

/// Positions that are remembered.
const SEEN_MAX: usize = 4_096;

impl JsonRow {
    /// Reads the object in `text` into `cells`, one per field of the layout; fields it lacks become null. Of a field
    /// that is there twice the last counts. Fields that nothing needs are checked and left.
    pub(crate) fn fill<'a>(
        &mut self,
        layout: &RowLayout,
        text: &'a str,
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<(), String> {
        cells.clear();
        cells.resize(layout.width(), Cell::Null);
        json::read_members(text, |reader, position| {
            let slot = self.slot(layout, reader, position)?;
            let value = json::value(reader)?;
            if let Some(cell) = slot.and_then(|slot| cells.get_mut(slot)) {
                *cell = value;
            }
            Ok(())
        })
    }

    /// Appends the object in `text` as a row of `builder`, whose layout is `layout`: what [`Self::fill`] and [`RowBuilder::push`]
    /// do together, with each value read into its column at once. False, and the builder holds what it held before, for what
    /// only they can do or tell the error of: a field that is there twice, whatever makes the row none, and rows that transforms
    /// or a filter look at.
    pub(crate) fn append(
        &mut self,
        layout: &RowLayout,
        text: &str,
        builder: &mut RowBuilder,
    ) -> bool {
        let rows = builder.rows();
        builder.push_filled(|columns| {
            let take = |reader: &mut JsonReader<'_>, position| -> Result<(), String> {
                let slot = self.slot(layout, reader, position)?;
                match slot.and_then(|slot| columns.get_mut(slot)) {
                    None => reader.skip_value(0),
                    Some(column) if column.rows() == rows => column.push_json(reader),
                    Some(_) => Err(String::new()),
                }
            };
            json::read_members(text, take).is_ok()
        })
    }

    /// The cell of the field whose name comes next, at a position in the object; moves past the name and the colon.
    #[inline]
    fn slot(
        &mut self,
        layout: &RowLayout,
        reader: &mut JsonReader<'_>,
        position: usize,
    ) -> Result<Option<usize>, String> {
        match self.seen.get(position) {
            Some(seen) if reader.skips(&seen.quoted) => Ok(seen.slot),
            _ => {
                let name = reader.key()?;
                Ok(self.look_up(layout, position, &name))
            }
        }
    }

    #[cold]
    fn look_up(&mut self, layout: &RowLayout, position: usize, name: &str) -> Option<usize> {
        let slot = layout.slot(name);
        let mut quoted = String::with_capacity(name.len() + 3);
        json::write_string(name, &mut quoted);
        quoted.push(':');
        let field = Seen { quoted, slot };
        if position == self.seen.len() && position < SEEN_MAX {
            self.seen.push(field);
        } else if let Some(seen) = self.seen.get_mut(position) {
            *seen = field;
        }
        slot
    }
}
