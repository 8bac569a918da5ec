//! A filter, answered by an index for all documents at once.
//!
//! Conditions of one alternative are gathered by level, the array that they are about. From the innermost level
//! outwards, the records are found that satisfy all conditions on them and hold, of each level within, a record that does.

use super::coverage::Coverage;
use super::encoded;
use strandline_index::IndexError;
use strandline_index::json::{DOCUMENTS, JsonIndex, Kind, LevelId, PathId, RecordSet};
use strandline_proto::json::{Atom, Index, JsonFilter, Step, Test};

/// The documents that match; null documents may be among them. None when the index leaves out what the filter needs.
///
/// # Errors
/// When the index turns out to be damaged.
pub fn matching(index: &JsonIndex, filter: &JsonFilter) -> Result<Option<RecordSet>, IndexError> {
    let coverage = Coverage::read(index.coverage())
        .map_err(|e| IndexError(format!("a JSON index is damaged: its coverage: {e}")))?;
    let mut found = Vec::with_capacity(filter.atoms().len());
    for atom in filter.atoms() {
        match located(index, &coverage, atom)? {
            Some(records) => found.push(records),
            None => return Ok(None),
        }
    }
    let mut docs = index.none(DOCUMENTS);
    for alternative in filter.alternatives() {
        let mut root = Level::new(Vec::new(), Some(DOCUMENTS));
        for &(atom, negated) in alternative {
            if let (Some(condition), Some(atom)) = (found.get(atom), filter.atoms().get(atom)) {
                root.place(index, &atom.path, 0, (condition, negated));
            }
        }
        docs.or(&root.records(index)?);
    }
    if filter.negated() {
        docs.complement();
        docs.and_not(&index.invalid()?);
    }
    Ok(Some(docs))
}

/// A level that conditions are about, and the levels within it.
struct Level<'a> {
    /// The path of its elements.
    path: Vec<u8>,
    /// None: no document has such an array.
    level: Option<LevelId>,
    /// The records that satisfy each condition, and whether it must fail.
    conditions: Vec<(&'a RecordSet, bool)>,
    inner: Vec<Level<'a>>,
}

impl<'a> Level<'a> {
    fn new(path: Vec<u8>, level: Option<LevelId>) -> Self {
        Self {
            path,
            level,
            conditions: Vec::new(),
            inner: Vec::new(),
        }
    }

    /// Puts a condition on the value at `steps`, of which this level is `at` steps in, where it belongs.
    fn place(
        &mut self,
        index: &JsonIndex,
        steps: &[Step],
        at: usize,
        condition: (&'a RecordSet, bool),
    ) {
        let rest = steps.get(at..).unwrap_or_default();
        let Some(next) = rest
            .iter()
            .position(|step| matches!(step, Step::Element(_)))
        else {
            self.conditions.push(condition);
            return;
        };
        let end = at + next + 1;
        let path = encoded(steps.get(..end).unwrap_or_default());
        let known = self.inner.iter().position(|level| level.path == path);
        let number = known.unwrap_or_else(|| {
            let level = elements(index, &path);
            self.inner.push(Level::new(path, level));
            self.inner.len() - 1
        });
        if let Some(inner) = self.inner.get_mut(number) {
            inner.place(index, steps, end, condition);
        }
    }

    /// Whether all conditions here and within must fail, as they do where nothing is.
    fn holds_without_records(&self) -> bool {
        self.conditions.iter().all(|(_, negated)| *negated)
            && self.inner.iter().all(Level::holds_without_records)
    }

    /// The records that satisfy everything; of the documents those with content.
    fn records(&self, index: &JsonIndex) -> Result<RecordSet, IndexError> {
        let level = self.level.unwrap_or(DOCUMENTS);
        let mut left = match level {
            DOCUMENTS => index.content()?,
            level => index.all(level),
        };
        for (condition, negated) in &self.conditions {
            match negated {
                true => left.and_not(condition),
                false => left.and(condition),
            }
        }
        for inner in &self.inner {
            let mut passing = match inner.level {
                Some(_) => index.parents(&inner.records(index)?),
                None => None,
            }
            .unwrap_or_else(|| index.none(level));
            if inner.holds_without_records() {
                let with_any = inner.level.and_then(|l| index.parents(&index.all(l)));
                let mut without = with_any.unwrap_or_else(|| index.none(level));
                without.complement();
                passing.or(&without);
            }
            left.and(&passing);
        }
        Ok(left)
    }
}

/// The level of an array's elements by their path; none: no document has it.
fn elements(index: &JsonIndex, path: &[u8]) -> Option<LevelId> {
    Some(index.level_of(index.path(path)?))
}

/// The records of the innermost level on an atom's path that satisfy it; none when the index can't tell.
fn located(
    index: &JsonIndex,
    coverage: &Coverage,
    atom: &Atom,
) -> Result<Option<RecordSet>, IndexError> {
    if !coverage.holds(&atom.path) {
        return Ok(None);
    }
    let Some(path) = index.path(&encoded(&atom.path)) else {
        // Nobody has a scalar there. The level may be, with other values.
        let last = atom
            .path
            .iter()
            .rposition(|step| matches!(step, Step::Element(_)));
        let level = match last {
            None => Some(DOCUMENTS),
            Some(last) => elements(index, &encoded(atom.path.get(..=last).unwrap_or_default())),
        };
        return Ok(Some(index.none(level.unwrap_or(DOCUMENTS))));
    };
    let Some(mut records) = passing(index, coverage, path, &atom.test)? else {
        return Ok(None);
    };
    for (at, step) in atom.path.iter().enumerate() {
        let Step::Element(Index::At(place)) = step else {
            continue;
        };
        if records.is_empty() {
            break;
        }
        let through = encoded(atom.path.get(..=at).unwrap_or_default());
        let Some(elements) = index.path(&through) else {
            return Ok(Some(index.none(records.level())));
        };
        let mut chosen = index.none(index.level_of(elements));
        if let Some(key) = index.key(elements, Kind::Place, place.to_string().as_bytes()) {
            index.mark(key, &mut chosen)?;
        }
        records.and(&within(index, records.level(), chosen));
    }
    Ok(Some(records))
}

/// The records of `level` that are among `outer`, or within one of them.
fn within(index: &JsonIndex, level: LevelId, outer: RecordSet) -> RecordSet {
    if level == outer.level() {
        return outer;
    }
    match index.parent(level) {
        Some(parent) => index.children(level, &within(index, parent, outer)),
        None => index.none(level),
    }
}

/// The records whose value at a path passes; none when the index can't tell.
fn passing(
    index: &JsonIndex,
    coverage: &Coverage,
    path: PathId,
    test: &Test,
) -> Result<Option<RecordSet>, IndexError> {
    let mut found = index.none(index.level_of(path));
    let has_long = index.key(path, Kind::Long, &[]).is_some();
    let mark_all = |keys: &[String], found: &mut RecordSet| -> Result<(), IndexError> {
        for value in keys {
            if let Some(key) = index.key(path, Kind::Value, value.as_bytes()) {
                index.mark(key, found)?;
            }
        }
        Ok(())
    };
    match test {
        Test::In(values) | Test::NotIn(values)
            if has_long && values.iter().any(|v| !coverage.holds_text(v)) =>
        {
            return Ok(None);
        }
        Test::In(values) => mark_all(values, &mut found)?,
        Test::Present | Test::NotIn(_) => {
            if let Some(key) = index.key(path, Kind::Present, &[]) {
                index.mark(key, &mut found)?;
            }
            if let Test::NotIn(values) = test {
                let mut unwanted = index.none(found.level());
                mark_all(values, &mut unwanted)?;
                found.and_not(&unwanted);
            }
        }
        _ if has_long => return Ok(None),
        Test::Texts { low, high } => {
            let keys = index.keys(
                path,
                Kind::Value,
                low.as_ref()
                    .map(|(text, included)| (text.as_bytes(), *included)),
                high.as_ref()
                    .map(|(text, included)| (text.as_bytes(), *included)),
            );
            for key in keys {
                index.mark(key, &mut found)?;
            }
        }
        Test::Numbers { .. } | Test::Regex(_) => {
            for key in index.keys(path, Kind::Value, None, None) {
                let value = index.value(key);
                if std::str::from_utf8(&value).is_ok_and(|text| test.passes(text)) {
                    index.mark(key, &mut found)?;
                }
            }
        }
    }
    Ok(Some(found))
}
