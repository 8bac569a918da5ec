//! The Star Schema Benchmark over one flat table: data, table, statements, and its run beside peers.

pub mod data;
mod report;
pub mod run;
pub mod table;

/// The table's name in the statements and the files.
pub const TABLE: &str = "lineorder";

/// The benchmark's statements, by name.
pub fn queries() -> Vec<(&'static str, &'static str)> {
    include_str!("../../ssb.sql")
        .lines()
        .filter_map(|line| line.split_once('|'))
        .collect()
}

/// The statement over another table than [`TABLE`].
pub fn over(sql: &str, table: &str) -> String {
    let renamed = |words: &str| {
        words
            .split(' ')
            .map(|word| if word == TABLE { table } else { word })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let parts: Vec<String> = sql
        .split('\'')
        .enumerate()
        .map(|(at, part)| match is_code(at) {
            true => renamed(part),
            false => part.to_owned(),
        })
        .collect();
    parts.join("'")
}

/// Whether a statement limits its rows.
pub fn has_limit(sql: &str) -> bool {
    let mut code = sql.split('\'').enumerate().filter(|(at, _)| is_code(*at));
    code.any(|(_, part)| {
        part.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| word.eq_ignore_ascii_case("limit"))
    })
}

/// Whether the `at`th part between quotes is code and not text.
fn is_code(at: usize) -> bool {
    at.is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_eighteen_statements_over_the_table() {
        assert_eq!(queries().len(), 18);
        for (name, sql) in queries() {
            let other = over(sql, "other_table");
            assert!(other.contains("FROM other_table"), "{name}");
            assert!(!other.contains(TABLE), "{name}");
        }
    }

    #[test]
    fn texts_are_left_alone() {
        assert_eq!(
            over(
                "SELECT 1 FROM lineorder WHERE c='a lineorder b' AND d=1",
                "t"
            ),
            "SELECT 1 FROM t WHERE c='a lineorder b' AND d=1"
        );
        assert!(has_limit("SELECT 1 FROM t limit 10"));
        assert!(!has_limit("SELECT 1 FROM t WHERE c = 'no limit'"));
        assert!(!has_limit("SELECT unlimited FROM t"));
    }
}
