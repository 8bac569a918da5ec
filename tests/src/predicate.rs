//! Predicates: every operator on every type, single- and multi-value, and AND, OR and NOT over them.
//!
//! A multi-value predicate is true when any element passes the test; its negation when none does. For
//! plain DataFusion it is written with [`crate::oracle`]'s `any_match(list, 'op', operand, ...)`.

use crate::sql::{Sql, literal, quoted};
use crate::table::{Column, Storage, Table, type_name};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;

/// One use of an operator on a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// The operator.
    pub operator: &'static str,
    /// The type's name, with `[]` for a multi-value column.
    pub data_type: String,
    /// How the column is stored.
    pub storage: Storage,
}

/// The state of drawing one query: what is drawn from, and what was used.
///
/// The statement's shape and its literals come from two sources, so that the same shape can be drawn again with other literals.
pub struct Draw<'a> {
    /// The main table.
    pub t: &'a Table,
    /// The joined table.
    pub u: &'a Table,
    /// Decides everything but literals.
    pub shape: StdRng,
    /// Decides literals.
    pub literals: StdRng,
    /// What was used.
    pub uses: Vec<Use>,
    /// Put before column names (`t.`), or empty.
    pub qualifier: &'static str,
}

/// Operators on single-value columns; not all fit every type.
const SINGLE: [&str; 20] = [
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "BETWEEN",
    "NOT BETWEEN",
    "IN",
    "NOT IN",
    "IS NULL",
    "IS NOT NULL",
    "LIKE",
    "NOT LIKE",
    "ILIKE",
    "~",
    "~*",
    "!~",
    "IS DISTINCT FROM",
    "IS NOT DISTINCT FROM",
];
/// Operators on multi-value columns.
const MULTI: [&str; 14] = [
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "BETWEEN",
    "NOT BETWEEN",
    "IN",
    "NOT IN",
    "IS NULL",
    "IS NOT NULL",
    "LIKE",
    "NOT LIKE",
];

/// The operators that mean something for `column`.
pub fn operators(column: &Column) -> Vec<&'static str> {
    let all: &[&'static str] = if column.multi_value { &MULTI } else { &SINGLE };
    all.iter()
        .copied()
        .filter(|operator| fits(operator, column.data_type))
        .collect()
}

fn fits(operator: &str, data_type: DataType) -> bool {
    match operator {
        "LIKE" | "NOT LIKE" | "ILIKE" | "~" | "~*" | "!~" => {
            matches!(data_type, DataType::String | DataType::Json)
        }
        "<" | "<=" | ">" | ">=" | "BETWEEN" | "NOT BETWEEN" => {
            !matches!(data_type, DataType::Boolean)
        }
        _ => true,
    }
}

impl<'a> Draw<'a> {
    /// A draw whose shape and literals follow from the two seeds.
    pub fn new(t: &'a Table, u: &'a Table, shape: u64, literals: u64) -> Self {
        Self {
            t,
            u,
            shape: StdRng::seed_from_u64(shape),
            literals: StdRng::seed_from_u64(literals),
            uses: Vec::new(),
            qualifier: "",
        }
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.shape.random_range(0..100) < percent
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        self.shape.random_range(0..count)
    }

    /// One of `items`.
    pub fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// A column of the main table that `wanted` accepts.
    pub fn column_where(&mut self, wanted: impl Fn(&Column) -> bool) -> &'a Column {
        let t = self.t;
        let fitting: Vec<&Column> = t.columns.iter().filter(|c| wanted(c)).collect();
        fitting[self.below(fitting.len())]
    }

    /// A column's name as an expression.
    pub fn named(&self, column: &Column) -> Sql {
        Sql::same(format!("{}{}", self.qualifier, column.name))
    }

    /// A value of `column`, sometimes one that does not occur in it.
    pub fn value(&mut self, column: &Column) -> Value {
        let i = self.literals.random_range(0..column.pool.len());
        let value = column.pool[i].clone();
        if self.literals.random_range(0..25) > 0 {
            return value;
        }
        match value {
            Value::Int(v) => Value::Int(v + 1),
            Value::Long(v) => Value::Long(v - 1),
            Value::Float(v) => Value::Float(v + 0.125),
            Value::Double(v) => Value::Double(v - 0.25),
            Value::Decimal { unscaled, scale } => Value::Decimal {
                unscaled: unscaled + 1,
                scale,
            },
            Value::Timestamp(v) => Value::Timestamp(v + 1),
            Value::String(v) if column.data_type == DataType::String => {
                Value::String(format!("{v}~"))
            }
            other => other,
        }
    }

    fn literal_of(&mut self, column: &Column) -> Sql {
        let value = self.value(column);
        literal(column.data_type, &value)
    }

    fn note(&mut self, operator: &'static str, column: &Column) {
        self.uses.push(Use {
            operator,
            data_type: format!(
                "{}{}",
                type_name(column.data_type),
                if column.multi_value { "[]" } else { "" }
            ),
            storage: column.storage,
        });
    }

    /// A predicate: one column's, or AND, OR and NOT over others, `depth` deep at most.
    pub fn predicate(&mut self, depth: usize) -> Sql {
        if depth == 0 || self.chance(45) {
            return self.leaf_predicate();
        }
        match self.below(5) {
            0 | 1 => {
                let (a, b) = (self.predicate(depth - 1), self.predicate(depth - 1));
                Sql::fill("(@ OR @)", &[&a, &b])
            }
            2 => {
                let inner = self.predicate(depth - 1);
                Sql::fill("NOT (@)", &[&inner])
            }
            3 => {
                let (a, b) = (self.predicate(depth - 1), self.predicate(depth - 1));
                Sql::fill("(@ AND @)", &[&a, &b])
            }
            _ => {
                let (a, b, c) = (
                    self.predicate(depth - 1),
                    self.leaf_predicate(),
                    self.leaf_predicate(),
                );
                Sql::fill("(@ OR (@ AND NOT @))", &[&a, &b, &c])
            }
        }
    }

    /// A predicate on one column (now and then on two, or on an expression).
    pub fn leaf_predicate(&mut self) -> Sql {
        match self.below(100) {
            0..=19 => {
                let column = self.column_where(|c| c.multi_value);
                let operator = self.one_of(&operators(column));
                self.multi(column, operator)
            }
            20..=25 => self.odd_predicate(),
            _ => {
                let column = self.column_where(|c| !c.multi_value);
                let operator = self.one_of(&operators(column));
                self.single(column, operator)
            }
        }
    }

    /// `operator` on a single-value column, with literals that make it selective but not empty.
    pub fn single(&mut self, column: &Column, operator: &'static str) -> Sql {
        self.note(operator, column);
        let name = self.named(column);
        match operator {
            "IS NULL" | "IS NOT NULL" => Sql::fill(&format!("@ {operator}"), &[&name]),
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
                Sql::fill(&format!("@ {operator} @"), &[&name, &pattern])
            }
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
                Sql {
                    duck,
                    ..Sql::fill(&text, &[&name])
                }
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

    /// The predicate of number `at` among all fitting pairs of a column and an operator, counted round.
    pub fn directed(&mut self, at: usize) -> Sql {
        let t = self.t;
        let pairs: Vec<(&Column, &'static str)> = t
            .columns
            .iter()
            .flat_map(|c| operators(c).into_iter().map(move |operator| (c, operator)))
            .collect();
        let (column, operator) = pairs[at % pairs.len()];
        if column.multi_value {
            self.multi(column, operator)
        } else {
            self.single(column, operator)
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
            "!=" => (true, "="),
            "NOT BETWEEN" => (true, "BETWEEN"),
            "NOT IN" => (true, "IN"),
            "NOT LIKE" => (true, "LIKE"),
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
            "LIKE" => {
                let pattern = quoted(&self.like_pattern(column));
                vec![Sql::duck(pattern.clone(), format!("{pattern} ESCAPE '\\'"))]
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
            _ => Sql::fill(&format!("x {test} @"), &[&list]),
        };
        let duck = name
            .duck
            .zip(element.duck)
            .map(|(name, test)| format!("{not}(len(list_filter({name}, lambda x: {test})) > 0)"));
        Sql {
            ours: direct.ours,
            plain,
            duck,
        }
    }

    /// Predicates that don't have the form column, operator, literal of the column's type.
    fn odd_predicate(&mut self) -> Sql {
        let numeric = |c: &Column| {
            !c.multi_value
                && matches!(
                    c.data_type,
                    DataType::Int | DataType::Long | DataType::Float | DataType::Double
                )
        };
        match self.below(8) {
            0 => {
                let (a, b) = (self.column_where(numeric), self.column_where(numeric));
                let operator = self.one_of(&["<", ">", "=", "!="]);
                Sql::fill(
                    &format!("@ {operator} @"),
                    &[&self.named(a), &self.named(b)],
                )
            }
            // A literal between two integers must not be truncated to one of them.
            1 => {
                let column = self.column_where(|c| !c.multi_value && c.data_type == DataType::Int);
                self.note("vs fraction", column);
                let operator = self.one_of(&["<", "<=", ">", ">=", "=", "!="]);
                let half = self.literals.random_range(-3..9);
                let text = Sql::duck(format!("{half}.5"), format!("CAST({half}.5 AS DOUBLE)"));
                Sql::fill(&format!("@ {operator} @"), &[&self.named(column), &text])
            }
            // A literal outside the column's type compares, it does not overflow.
            2 => {
                let column = self.column_where(|c| !c.multi_value && c.data_type == DataType::Int);
                self.note("vs out of range", column);
                let operator = self.one_of(&["<", ">", "!="]);
                Sql::fill(
                    &format!(
                        "@ {operator} {}",
                        self.one_of(&["3000000000", "(-3000000000)"])
                    ),
                    &[&self.named(column)],
                )
            }
            3 => {
                let column =
                    self.column_where(|c| !c.multi_value && c.data_type == DataType::Boolean);
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
                self.note("truth", column);
                let in_duck = !text.contains("UNKNOWN");
                let sql = Sql::fill(text, &[&self.named(column)]);
                if in_duck { sql } else { sql.not_in_duck() }
            }
            4 => {
                let column =
                    self.column_where(|c| !c.multi_value && c.data_type == DataType::Timestamp);
                self.note("vs text", column);
                let operator = self.one_of(&["<", ">="]);
                let day = self.literals.random_range(1..9);
                Sql::fill(
                    &format!("@ {operator} '2014-01-0{day}'"),
                    &[&self.named(column)],
                )
            }
            5 => {
                let column =
                    self.column_where(|c| !c.multi_value && c.data_type == DataType::String);
                self.note("in function", column);
                let value = self.literal_of(column);
                Sql::fill("upper(@) = upper(@)", &[&self.named(column), &value])
            }
            6 => {
                let column = self.column_where(|c| !c.multi_value && c.data_type == DataType::Long);
                self.note("in arithmetic", column);
                let rest = self.literals.random_range(0..3);
                Sql::fill(&format!("@ % 3 = {rest}"), &[&self.named(column)])
            }
            _ => {
                let column = self.column_where(|c| {
                    !c.multi_value && matches!(c.data_type, DataType::Int | DataType::String)
                });
                self.note("= NULL", column);
                let text = self.one_of(&[
                    "(@ = NULL OR @ IS NULL)",
                    "NOT (@ = NULL AND @ IS NULL)",
                    "coalesce(@ = NULL, @ IS NOT NULL)",
                ]);
                let name = self.named(column);
                Sql::fill(text, &[&name, &name])
            }
        }
    }

    fn bounds(&mut self, column: &Column) -> (Sql, Sql) {
        let (a, b) = (self.value(column), self.value(column));
        let reversed = match (&a, &b) {
            (Value::Int(a), Value::Int(b)) => a > b,
            (Value::Long(a), Value::Long(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a > b,
            (Value::Float(a), Value::Float(b)) => a > b,
            (Value::Double(a), Value::Double(b)) => a > b,
            (Value::Decimal { unscaled: a, .. }, Value::Decimal { unscaled: b, .. }) => a > b,
            (Value::String(a), Value::String(b)) => a > b,
            (Value::Bytes(a), Value::Bytes(b)) => a > b,
            _ => false,
        };
        // Bounds the wrong way round match nothing; that is worth a look now and then only.
        let (a, b) = if reversed && self.literals.random_range(0..20) > 0 {
            (b, a)
        } else {
            (a, b)
        };
        (literal(column.data_type, &a), literal(column.data_type, &b))
    }

    fn text_of(&mut self, column: &Column) -> Vec<char> {
        let i = self.literals.random_range(0..column.pool.len());
        match &column.pool[i] {
            Value::String(text) => text.chars().collect(),
            _ => Vec::new(),
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
