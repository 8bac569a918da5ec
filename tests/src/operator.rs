//! One operator on one column, in the three renderings.
//!
//! A multi-value predicate is true when any element passes the test; its negation when none does. For
//! plain DataFusion it is written with [`crate::oracle`]'s `any_match(list, 'op', operand, ...)`.

use crate::pool::{Domain, order};
use crate::predicate::Draw;
use crate::sql::{Sql, literal_in, quoted};
use crate::table::Column;
use rand::Rng;
use strandline_proto::value::Value;

/// `sql` without DuckDB where the column holds letters that engines fold in different ways.
fn without_folding(sql: Sql, column: &Column) -> Sql {
    if column.domain == Domain::Edge {
        sql.not_in_duck()
    } else {
        sql
    }
}

impl Draw<'_> {
    /// `operator` on a single-value column, with literals that make it selective but not empty.
    pub fn single(&mut self, column: &Column, operator: &'static str) -> Sql {
        self.note(operator, column);
        let name = self.named(column);
        match operator {
            "IS NULL" | "IS NOT NULL" => Sql::fill(&format!("@ {operator}"), &[&name]),
            "= NULL" => {
                let text = self.one_of(&[
                    "(@ = NULL OR @ IS NULL)",
                    "NOT (@ = NULL AND @ IS NULL)",
                    "coalesce(@ = NULL, @ IS NOT NULL)",
                ]);
                Sql::fill(text, &[&name, &name])
            }
            // A literal between two integers must not be truncated to one of them.
            "vs fraction" => {
                let operator = self.one_of(&["<", "<=", ">", ">=", "=", "!="]);
                let half = self.literals.random_range(-3..9);
                let text = Sql::duck(format!("{half}.5"), format!("CAST({half}.5 AS DOUBLE)"));
                Sql::fill(&format!("@ {operator} @"), &[&name, &text])
            }
            // A literal outside the column's type compares, it does not overflow.
            "vs out of range" => {
                let operator = self.one_of(&["<", ">", "!="]);
                let literal = self.one_of(&["3000000000", "(-3000000000)"]);
                Sql::fill(&format!("@ {operator} {literal}"), &[&name])
            }
            "truth" => {
                let text = self.one_of(&[
                    "@",
                    "NOT @",
                    "@ IS TRUE",
                    "@ IS NOT TRUE",
                    "@ IS FALSE",
                    "@ IS NOT FALSE",
                    "@ IS UNKNOWN",
                    "@ IS NOT UNKNOWN",
                ]);
                let sql = Sql::fill(text, &[&name]);
                if text.contains("UNKNOWN") {
                    sql.not_in_duck()
                } else {
                    sql
                }
            }
            "vs text" => {
                let operator = self.one_of(&["<", ">="]);
                let day = self.literals.random_range(1..9);
                Sql::fill(&format!("@ {operator} '2014-01-0{day}'"), &[&name])
            }
            "in function" => {
                let value = self.literal_of(column);
                let sql = Sql::fill("upper(@) = upper(@)", &[&name, &value]);
                without_folding(sql, column)
            }
            "in arithmetic" => {
                let rest = self.literals.random_range(0..3);
                Sql::fill(&format!("@ % 3 = {rest}"), &[&name])
            }
            "BETWEEN" | "NOT BETWEEN" => {
                let (low, high) = self.bounds(column);
                Sql::fill(&format!("@ {operator} @ AND @"), &[&name, &low, &high])
            }
            "IN" | "NOT IN" => {
                let count = 1 + self.below(6);
                let items: Vec<Sql> = (0..count).map(|_| self.literal_of(column)).collect();
                let list = Sql::join(&items, ", ");
                Sql::fill(&format!("@ {operator} (@)"), &[&name, &list])
            }
            "LIKE" | "NOT LIKE" | "ILIKE" => {
                let pattern = quoted(&self.like_pattern(column));
                let pattern = Sql::duck(pattern.clone(), format!("{pattern} ESCAPE '\\'"));
                let sql = Sql::fill(&format!("@ {operator} @"), &[&name, &pattern]);
                if operator == "ILIKE" {
                    without_folding(sql, column)
                } else {
                    sql
                }
            }
            "TEXT_MATCH" | "NOT TEXT_MATCH" => self.text_match(column, operator, &name),
            "~" | "~*" | "!~" => {
                let pattern = self.regex_pattern(column);
                let found = match operator {
                    "~*" => {
                        let insensitive = quoted(&format!("(?i){pattern}"));
                        format!("regexp_matches(@, {insensitive})")
                    }
                    "!~" => format!("NOT regexp_matches(@, {})", quoted(&pattern)),
                    _ => format!("regexp_matches(@, {})", quoted(&pattern)),
                };
                let text = format!("@ {operator} {}", quoted(&pattern));
                let duck = Sql::fill(&found, &[&name]).duck;
                let sql = Sql {
                    duck,
                    ..Sql::fill(&text, &[&name])
                };
                without_folding(sql, column)
            }
            _ => {
                let value = self.literal_of(column);
                if self.chance(12) && !operator.starts_with("IS") {
                    let mirrored = match operator {
                        "<" => ">",
                        "<=" => ">=",
                        ">" => "<",
                        ">=" => "<=",
                        same => same,
                    };
                    Sql::fill(&format!("@ {mirrored} @"), &[&value, &name])
                } else if operator.starts_with("IS") {
                    // Without parentheses the parser takes what follows into the right side.
                    Sql::fill(&format!("(@ {operator} @)"), &[&name, &value])
                } else {
                    Sql::fill(&format!("@ {operator} @"), &[&name, &value])
                }
            }
        }
    }

    /// `operator` on a multi-value column.
    pub fn multi(&mut self, column: &Column, operator: &'static str) -> Sql {
        self.note(operator, column);
        let name = self.named(column);
        let (negated, test) = match operator {
            "IS NULL" | "IS NOT NULL" => {
                return Sql::fill(&format!("@ {operator}"), &[&name]);
            }
            "TEXT_MATCH" | "NOT TEXT_MATCH" => return self.text_match(column, operator, &name),
            "!=" => (true, "="),
            "NOT BETWEEN" => (true, "BETWEEN"),
            "NOT IN" => (true, "IN"),
            "NOT LIKE" => (true, "LIKE"),
            "!~" => (true, "~"),
            other => (false, other),
        };
        let operands = match test {
            "BETWEEN" => {
                let (low, high) = self.bounds(column);
                vec![low, high]
            }
            "IN" => {
                let count = 1 + self.below(5);
                (0..count).map(|_| self.literal_of(column)).collect()
            }
            "LIKE" | "ILIKE" => {
                let pattern = quoted(&self.like_pattern(column));
                vec![Sql::duck(pattern.clone(), format!("{pattern} ESCAPE '\\'"))]
            }
            "~" | "~*" => {
                let pattern = self.regex_pattern(column);
                let in_duck = format!("{}{pattern}", if test == "~*" { "(?i)" } else { "" });
                vec![Sql::duck(quoted(&pattern), quoted(&in_duck))]
            }
            _ => vec![self.literal_of(column)],
        };
        let list = Sql::join(&operands, ", ");
        let direct = match test {
            "BETWEEN" => Sql::fill(
                &format!("@ {operator} @ AND @"),
                &[&name, &operands[0], &operands[1]],
            ),
            "IN" => Sql::fill(&format!("@ {operator} (@)"), &[&name, &list]),
            _ => Sql::fill(&format!("@ {operator} @"), &[&name, &list]),
        };
        let not = if negated { "NOT " } else { "" };
        let plain = format!("{not}any_match({}, '{test}', {})", name.plain, list.plain);
        let element = match test {
            "BETWEEN" => Sql::fill("x BETWEEN @ AND @", &[&operands[0], &operands[1]]),
            "IN" => Sql::fill("x IN (@)", &[&list]),
            "~" | "~*" => Sql::fill("regexp_matches(x, @)", &[&list]),
            _ => Sql::fill(&format!("x {test} @"), &[&list]),
        };
        let duck = name
            .duck
            .zip(element.duck)
            .map(|(name, test)| format!("{not}(len(list_filter({name}, lambda x: {test})) > 0)"));
        let sql = Sql {
            ours: direct.ours,
            plain,
            duck,
        };
        if matches!(test, "ILIKE" | "~" | "~*") {
            without_folding(sql, column)
        } else {
            sql
        }
    }

    fn bounds(&mut self, column: &Column) -> (Sql, Sql) {
        let (a, b) = (self.value(column), self.value(column));
        let reversed = order(&a, &b).is_gt();
        // Bounds the wrong way round match nothing; that is worth a look now and then only.
        let (a, b) = if reversed && self.literals.random_range(0..20) > 0 {
            (b, a)
        } else {
            (a, b)
        };
        (literal_in(column, &a), literal_in(column, &b))
    }

    fn text_of(&mut self, column: &Column) -> Vec<char> {
        let i = self.literals.random_range(0..column.pool.len());
        match &column.pool[i] {
            Value::String(text) => text.chars().collect(),
            _ => Vec::new(),
        }
    }

    fn text_match(&mut self, column: &Column, operator: &str, name: &Sql) -> Sql {
        let query = quoted(&self.text_query(column));
        Sql::fill(&format!("{operator}(@, {query})"), &[name]).not_in_duck()
    }

    /// A text query of words that occur in the column.
    fn text_query(&mut self, column: &Column) -> String {
        let mut words = |most: usize| -> Vec<String> {
            let text: String = self.text_of(column).into_iter().take(200).collect();
            let words = text.split(|c: char| !c.is_alphanumeric());
            let words = words.filter(|word| !word.is_empty()).take(most);
            words.map(str::to_owned).collect()
        };
        let (phrase, others) = (words(3), words(9));
        let or_absent = |word: Option<&String>| word.map_or("absent", String::as_str).to_owned();
        let (word, other) = (or_absent(phrase.first()), or_absent(others.last()));
        let half = word.chars().count().div_ceil(2);
        let start: String = word.chars().take(half).collect();
        let end: String = word.chars().skip(half).collect();
        match self.literals.random_range(0..10) {
            0 => format!("{start}*"),
            1 => format!("*{end}"),
            2 => format!("\"{}\"", phrase.join(" ")),
            3 => format!("{word}~1"),
            4 => format!("{word} AND {other}"),
            5 => format!("{other} -{word}"),
            6 => format!("({word} OR {other}) NOT {start}*"),
            7 => format!("/{start}.*/"),
            8 => format!("{word} {other}"),
            _ => word,
        }
    }

    fn like_pattern(&mut self, column: &Column) -> String {
        let text = self.text_of(column);
        let escape = |part: &[char]| -> String {
            part.iter()
                .flat_map(|c| match c {
                    '%' | '_' | '\\' => vec!['\\', *c],
                    c => vec![*c],
                })
                .collect()
        };
        let half = text.len() / 2;
        match self.literals.random_range(0..6) {
            0 => format!("{}%", escape(&text[..half.min(3)])),
            1 => format!("%{}", escape(&text[text.len() - half.min(2)..])),
            2 => format!("%{}%", escape(&text[half..(half + 1).min(text.len())])),
            3 => escape(&text),
            4 if !text.is_empty() => format!("_{}", escape(&text[1..])),
            _ => "%a%".to_owned(),
        }
    }

    fn regex_pattern(&mut self, column: &Column) -> String {
        let text = self.text_of(column);
        let letters: String = text
            .iter()
            .filter(|c| c.is_ascii_alphanumeric())
            .take(3)
            .collect();
        match self.literals.random_range(0..5) {
            0 => format!("^{letters}"),
            1 => format!("{letters}.*[0-9]$"),
            2 => "[aeiou]{2}|m".to_owned(),
            3 => format!("({letters}|gamma)"),
            _ => "a.*a".to_owned(),
        }
    }
}
