//! Rows of an answer as text cells, and whether two answers say the same.

use strandline_tests::answer::Answer;
use strandline_tests::slt::cell_text;

/// Rows of text cells.
pub type Rows = Vec<Vec<String>>;

/// The rows of an answer.
pub fn of_answer(answer: &Answer) -> Rows {
    answer
        .rows
        .iter()
        .map(|row| row.iter().map(cell_text).collect())
        .collect()
}

fn same_cell(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => false,
    }
}

/// What differs between two answers whose rows may come in any order; none when they say the same.
pub fn difference(ours: &Rows, theirs: &Rows) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!(
            "{} rows, the peer has {}",
            ours.len(),
            theirs.len()
        ));
    }
    let sorted = |rows: &Rows| {
        let mut rows = rows.clone();
        rows.sort();
        rows
    };
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    ours.iter()
        .zip(&theirs)
        .find(|(a, b)| a.len() != b.len() || !a.iter().zip(b.iter()).all(|(a, b)| same_cell(a, b)))
        .map(|(a, b)| format!("{a:?}, the peer has {b:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_the_writing_of_numbers_do_not_matter() {
        let rows = |cells: [&str; 2]| {
            cells
                .iter()
                .map(|c| vec![(*c).to_owned()])
                .collect::<Rows>()
        };
        assert_eq!(difference(&rows(["1", "2.50"]), &rows(["2.5", "1"])), None);
        assert!(difference(&rows(["1", "3"]), &rows(["2.5", "1"])).is_some());
    }
}
