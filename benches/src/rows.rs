//! Rows of an answer as text cells, and whether two answers say the same.

use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};
use strandline_tests::answer::{Answer, Cell};
use strandline_tests::slt::cell_text;

/// Rows of text cells.
pub type Rows = Vec<Vec<String>>;

/// How far two numbers may be apart, relative to the larger.
const RELATIVE: f64 = 1e-9;

/// The rows of an answer.
pub fn of_answer(answer: &Answer) -> Rows {
    text(&answer.rows)
}

/// Rows of cells as text.
pub fn text(rows: &[Vec<Cell>]) -> Rows {
    rows.iter()
        .map(|row| row.iter().map(cell_text).collect())
        .collect()
}

/// A number that is equal for equal rows of exact cells, in whatever order they come.
pub fn digest(rows: &[Vec<Cell>]) -> u64 {
    let of_row = |row: &Vec<Cell>| {
        let mut hasher = DefaultHasher::new();
        for cell in row {
            match cell {
                Cell::Number(digits, scale) => (digits, scale).hash(&mut hasher),
                Cell::Text(text) => text.hash(&mut hasher),
                other => cell_text(other).hash(&mut hasher),
            }
        }
        hasher.finish()
    };
    rows.iter().map(of_row).fold(0, u64::wrapping_add)
}

fn same_cell(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= RELATIVE * a.abs().max(b.abs()),
        _ => false,
    }
}

/// A row with what it is sorted by: its texts, then its numbers by value, whatever they are written like. Texts decide
/// first, so that keys do before sums that differ in their last digits.
struct Sortable<'a> {
    row: &'a [String],
    texts: Vec<&'a str>,
    numbers: Vec<f64>,
}

impl<'a> Sortable<'a> {
    fn new(row: &'a [String]) -> Self {
        let (mut texts, mut numbers) = (Vec::new(), Vec::new());
        for cell in row {
            match cell.parse::<f64>() {
                Ok(number) => numbers.push(number),
                Err(_) => texts.push(cell.as_str()),
            }
        }
        Self {
            row,
            texts,
            numbers,
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        let mut numbers = self.numbers.iter().zip(&other.numbers);
        self.texts.cmp(&other.texts).then_with(|| {
            numbers
                .find_map(|(a, b)| Some(a.total_cmp(b)).filter(|order| order.is_ne()))
                .unwrap_or(Ordering::Equal)
        })
    }
}

fn sorted(rows: &Rows) -> Vec<&[String]> {
    let mut sortable: Vec<Sortable<'_>> = rows.iter().map(|row| Sortable::new(row)).collect();
    sortable.sort_by(Sortable::order);
    sortable.into_iter().map(|s| s.row).collect()
}

/// What differs between two answers whose rows may come in any order; none when they say the same.
pub fn difference(ours: &Rows, theirs: &Rows) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!(
            "{} rows, the other has {}",
            ours.len(),
            theirs.len()
        ));
    }
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    ours.iter()
        .zip(&theirs)
        .find(|(a, b)| a.len() != b.len() || !a.iter().zip(b.iter()).all(|(a, b)| same_cell(a, b)))
        .map(|(a, b)| format!("{a:?}, the other has {b:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Rows {
        let row = |row: &&[&str]| row.iter().map(|c| (*c).to_owned()).collect();
        rows.iter().map(row).collect()
    }

    #[test]
    fn order_and_the_writing_of_numbers_do_not_matter() {
        let ours = rows(&[&["1"], &["2.50"]]);
        assert_eq!(difference(&ours, &rows(&[&["2.5"], &["1"]])), None);
        assert!(difference(&rows(&[&["1"], &["3"]]), &ours).is_some());
    }

    #[test]
    fn rows_meet_when_one_side_writes_its_sums_as_floats() {
        let ours = rows(&[&["9", "1992", "A"], &["10000000", "1992", "B"]]);
        let theirs = rows(&[&["1.0E7", "1992.0", "B"], &["9.0", "1992", "A"]]);
        assert_eq!(difference(&ours, &theirs), None);
        let swapped = rows(&[&["1.0E7", "1992", "A"], &["9.0", "1992", "B"]]);
        assert!(difference(&ours, &swapped).is_some());
    }

    #[test]
    fn a_missing_row_or_cell_is_a_difference() {
        let ours = rows(&[&["1", "A"]]);
        assert!(difference(&ours, &rows(&[])).is_some());
        assert!(difference(&ours, &rows(&[&["A"]])).is_some());
        assert!(difference(&ours, &rows(&[&["NULL", "A"]])).is_some());
    }

    #[test]
    fn a_digest_is_of_the_rows_and_not_of_their_order() {
        let (a, b) = (
            vec![Cell::Text("a".to_owned()), Cell::Number(12, 0)],
            vec![Cell::Text("b".to_owned()), Cell::Null],
        );
        let both = digest(&[a.clone(), b.clone()]);
        assert_eq!(both, digest(&[b.clone(), a.clone()]));
        assert_ne!(both, digest(&[a.clone(), a.clone()]));
        assert_ne!(digest(&[a]), digest(&[b]));
    }
}
