//! Whole statements over two drawn tables.

use crate::predicate::{Draw, Use};
use crate::sql::Sql;
use crate::table::Table;
use strandline_proto::schema::DataType;

/// A drawn statement with what is needed to hold its answer against another.
#[derive(Clone, Debug)]
pub struct Query {
    /// What kind of statement it is.
    pub kind: &'static str,
    /// The statement.
    pub sql: Sql,
    /// The statement without LIMIT and OFFSET, when it has one: every row of an answer must be one of its.
    pub unlimited: Option<Sql>,
    /// Output columns (from 0) that the answer is ordered by, most significant first.
    pub order: Vec<usize>,
    /// Operators on columns in it.
    pub uses: Vec<Use>,
}

/// Shapes of one round: a shape's number within its round is its remainder.
pub const SHAPES_PER_ROUND: u64 = 10_000;

/// Kinds of statements that are not directed, with their weights.
const KINDS: [(&str, u32); 13] = [
    ("aggregate", 12),
    ("group", 22),
    ("group multi-value", 6),
    ("star-tree", 10),
    ("rows", 16),
    ("distinct", 6),
    ("join", 6),
    ("join group", 4),
    ("subquery", 6),
    ("cte", 3),
    ("set operation", 3),
    ("window", 2),
    ("error", 2),
];

impl Query {
    /// The statement of these two seeds: the same `shape` gives the same statement but for its literals.
    pub fn draw(t: &Table, u: &Table, shape: u64, literals: u64) -> Self {
        let mut draw = Draw::new(t, u, shape, literals);
        // Two of three shapes of a round are directed, so that a round's first few hundred go through all predicates.
        let number = (shape % SHAPES_PER_ROUND) as usize;
        let kind = match number % 3 {
            2 => draw.kind(),
            _ => "directed",
        };
        let mut query = match kind {
            "directed" => draw.directed(number / 3 * 2 + number % 3),
            "aggregate" => draw.aggregates(),
            "group" => draw.group(false),
            "group multi-value" => draw.group(true),
            "star-tree" => draw.star_tree(),
            "rows" => draw.rows(),
            "distinct" => draw.distinct(),
            "join" => draw.join(),
            "join group" => draw.join_group(),
            "subquery" => draw.subquery(),
            "cte" => draw.cte(),
            "set operation" => draw.set_operation(),
            "window" => draw.window(),
            _ => draw.error(),
        };
        query.kind = kind;
        query.uses = std::mem::take(&mut draw.uses);
        query
    }

    /// A statement whose answer is ordered by these columns; kind and uses are filled in by [`draw`](Self::draw).
    pub(crate) fn of(sql: Sql, order: Vec<usize>) -> Self {
        Self {
            kind: "",
            sql,
            unlimited: None,
            order,
            uses: Vec::new(),
        }
    }

    /// The statement for Strandline over tables of these names.
    pub fn ours(&self, t: &str, u: &str) -> String {
        named(&self.sql.ours, t, u)
    }
}

/// `text` with the tables' names in their places.
pub fn named(text: &str, t: &str, u: &str) -> String {
    text.replace("{t}", t).replace("{u}", u)
}

impl Draw<'_> {
    fn kind(&mut self) -> &'static str {
        let mut at = self.below(KINDS.iter().map(|k| k.1 as usize).sum()) as u32;
        for (name, weight) in KINDS {
            if at < weight {
                return name;
            }
            at -= weight;
        }
        KINDS[0].0
    }

    fn where_clause(&mut self, percent: u32) -> Sql {
        if self.chance(percent) {
            let predicate = match self.below(3) {
                0 => self.leaf_predicate(),
                _ => self.predicate(2),
            };
            Sql::fill(" WHERE @", &[&predicate])
        } else {
            Sql::same("")
        }
    }

    /// Adds ORDER BY over some of `columns` output columns, and LIMIT and OFFSET.
    pub(crate) fn ordered(
        &mut self,
        body: Sql,
        columns: usize,
        order_percent: u32,
        limit_percent: u32,
    ) -> Query {
        let mut order = Vec::new();
        let mut duck_keys = Vec::new();
        let mut keys = Vec::new();
        if self.chance(order_percent) {
            let count = 1 + self.below(columns.min(3));
            for _ in 0..count {
                let column = self.below(columns);
                if order.contains(&column) {
                    continue;
                }
                order.push(column);
                let descending = self.chance(45);
                let direction = if descending { "DESC" } else { "ASC" };
                // By default nulls are larger than anything.
                let nulls = self.one_of(&["", "", " NULLS FIRST", " NULLS LAST"]);
                let position = column + 1;
                keys.push(format!("{position} {direction}{nulls}"));
                let explicit = match (nulls, descending) {
                    ("", true) => " NULLS FIRST",
                    ("", false) => " NULLS LAST",
                    (given, _) => given,
                };
                duck_keys.push(format!("{position} {direction}{explicit}"));
            }
        }
        let body = if keys.is_empty() {
            body
        } else {
            let by = Sql::duck(keys.join(", "), duck_keys.join(", "));
            Sql::fill("@ ORDER BY @", &[&body, &by])
        };
        if !self.chance(limit_percent) {
            return Query::of(body, order);
        }
        let limit = self.one_of(&[1, 3, 10, 10, 25, 100]);
        let limited = if self.chance(25) {
            let offset = self.one_of(&[1, 2, 7]);
            Sql::fill(&format!("@ LIMIT {limit} OFFSET {offset}"), &[&body])
        } else {
            Sql::fill(&format!("@ LIMIT {limit}"), &[&body])
        };
        Query {
            unlimited: Some(body),
            ..Query::of(limited, order)
        }
    }

    fn aggregate_list(&mut self, count: usize) -> Vec<Sql> {
        let mut list: Vec<Sql> = Vec::new();
        for _ in 0..count {
            let aggregate = self.aggregate();
            // Plain DataFusion refuses two output columns of one name.
            if !list.contains(&aggregate) {
                list.push(aggregate);
            }
        }
        list
    }

    fn aggregates(&mut self) -> Query {
        let count = 1 + self.below(4);
        let list = Sql::join(&self.aggregate_list(count), ", ");
        let filter = self.where_clause(80);
        Query::of(Sql::fill("SELECT @ FROM {t}@", &[&list, &filter]), vec![])
    }

    fn group(&mut self, multi_value: bool) -> Query {
        let mut keys: Vec<Sql> = Vec::new();
        let mut plain_from = "{t}".to_owned();
        let mut duck_from = "{t}".to_owned();
        if multi_value {
            for _ in 0..1 + usize::from(self.chance(20)) {
                let column = self.column_where(|c| c.multi_value);
                let name = &column.name;
                let exploded = format!("{name}__e");
                if keys.iter().any(|k| k.plain == exploded) {
                    continue;
                }
                plain_from = format!(
                    "(SELECT *, unnest(list_or_null({name})) AS {exploded} FROM {plain_from})"
                );
                duck_from = format!(
                    "(SELECT *, unnest(CASE WHEN {name} IS NULL OR len({name}) = 0 THEN [NULL] ELSE {name} END) AS {exploded} FROM {duck_from})"
                );
                keys.push(Sql {
                    ours: name.clone(),
                    plain: exploded.clone(),
                    duck: Some(exploded),
                });
            }
        }
        let more = match (multi_value, self.below(10)) {
            (true, 0..=5) => 0,
            (true, _) => 1,
            (false, 0..=4) => 1,
            (false, 5..=7) => 2,
            (false, 8) => 3,
            (false, _) => 4,
        };
        for _ in 0..more {
            let key = self.key();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let count = 1 + self.below(3);
        let aggregates = self.aggregate_list(count);
        let columns = keys.len() + aggregates.len();
        let select = Sql::join(keys.iter().chain(&aggregates), ", ");
        let by = if self.chance(30) {
            Sql::same(
                (1..=keys.len())
                    .map(|i| i.to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            )
        } else {
            Sql::join(&keys, ", ")
        };
        let from = Sql {
            ours: "{t}".to_owned(),
            plain: plain_from,
            duck: Some(duck_from),
        };
        let filter = self.where_clause(65);
        let having = if self.chance(18) {
            match self.below(3) {
                0 => Sql::same(" HAVING count(*) > 2"),
                1 => {
                    let number = self.number(0);
                    Sql::fill(" HAVING sum(@) > 0", &[&number])
                }
                _ => {
                    let number = self.number(0);
                    Sql::fill(" HAVING min(@) IS NOT NULL AND count(*) < 500", &[&number])
                }
            }
        } else {
            Sql::same("")
        };
        let body = Sql::fill(
            "SELECT @ FROM @@ GROUP BY @@",
            &[&select, &from, &filter, &by, &having],
        );
        self.ordered(body, columns, 55, 35)
    }

    fn rows(&mut self) -> Query {
        let count = 1 + self.below(4);
        let mut items: Vec<Sql> = Vec::new();
        for _ in 0..count {
            items.push(match self.below(10) {
                0..=4 => {
                    let column = self.column_where(|c| !c.multi_value);
                    self.named(column)
                }
                5 => self.number(1),
                6 => self.text(1),
                7 => self.instant(1),
                8 => {
                    let predicate = self.leaf_predicate();
                    Sql::fill("(@)", &[&predicate])
                }
                _ => Sql::same("t_id"),
            });
        }
        let columns = items.len();
        // Lists come last: they are not ordered by.
        if self.chance(20) {
            let column = self.column_where(|c| c.multi_value);
            items.push(self.named(column));
        }
        let aliased: Vec<Sql> = items
            .iter()
            .enumerate()
            .map(|(i, item)| Sql::fill(&format!("@ AS c{i}"), &[item]))
            .collect();
        let list = Sql::join(&aliased, ", ");
        let filter = self.where_clause(85);
        let body = if self.chance(4) {
            Sql::fill("SELECT * FROM {t}@", &[&filter])
        } else {
            Sql::fill("SELECT @ FROM {t}@", &[&list, &filter])
        };
        self.ordered(body, columns, 60, 60)
    }

    fn distinct(&mut self) -> Query {
        let count = 1 + self.below(3);
        let keys: Vec<Sql> = (0..count)
            .map(|i| {
                let key = self.key();
                Sql::fill(&format!("@ AS d{i}"), &[&key])
            })
            .collect();
        let list = Sql::join(&keys, ", ");
        let filter = self.where_clause(60);
        let body = Sql::fill("SELECT DISTINCT @ FROM {t}@", &[&list, &filter]);
        self.ordered(body, count, 50, 40)
    }

    fn join_from(&mut self) -> Sql {
        let kind = self.one_of(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let on = self.one_of(&[
            "int_0 = u_int",
            "string_0 = u_string",
            "int_0 = u_int AND string_0 = u_string",
            "long_1 = u_long",
        ]);
        let filter = self.where_clause(70);
        let more = match (filter.ours.is_empty(), self.below(3)) {
            (false, 0) => " AND u_weight > 0",
            (false, 1) => " AND u_tags = 'alpha'",
            _ => "",
        };
        let plain_more = more.replace("u_tags = 'alpha'", "any_match(u_tags, '=', 'alpha')");
        let duck_more = more.replace("u_tags = 'alpha'", "list_contains(u_tags, 'alpha')");
        let more = Sql {
            ours: more.to_owned(),
            plain: plain_more,
            duck: Some(duck_more),
        };
        Sql::fill(
            &format!(" FROM {{t}} {kind} {{u}} ON {on}@@"),
            &[&filter, &more],
        )
    }

    fn join(&mut self) -> Query {
        let from = self.join_from();
        let key = self.key();
        let body = Sql::fill("SELECT t_id, u_id, u_label, @ AS k@", &[&key, &from]);
        self.ordered(body, 4, 60, 70)
    }

    fn join_group(&mut self) -> Query {
        let from = self.join_from();
        let key = if self.chance(50) {
            Sql::same("u_label")
        } else {
            self.key()
        };
        let list = Sql::join(&self.aggregate_list(2), ", ");
        let body = Sql::fill(
            "SELECT @, sum(u_weight), @@ GROUP BY @",
            &[&key, &list, &from, &key],
        );
        self.ordered(body, 4, 50, 30)
    }

    fn subquery(&mut self) -> Query {
        let inner = self.where_clause(60);
        let list = Sql::join(&self.aggregate_list(2), ", ");
        let condition = match self.below(6) {
            0 => Sql::same("int_0 IN (SELECT u_int FROM {u} WHERE u_weight > 0)"),
            1 => Sql::same(
                "string_0 NOT IN (SELECT u_string FROM {u} WHERE u_string IS NOT NULL AND u_weight > 2)",
            ),
            2 => Sql::same("EXISTS (SELECT 1 FROM {u} WHERE u_int = int_0 AND u_weight < 4)"),
            3 => Sql::same("double_1 > (SELECT avg(double_1) FROM {t})"),
            4 => Sql::fill("t_id IN (SELECT t_id FROM {t}@)", &[&inner]),
            _ => Sql::same("NOT EXISTS (SELECT 1 FROM {u} WHERE u_string = string_0)"),
        };
        if self.chance(50) {
            Query::of(
                Sql::fill("SELECT @ FROM {t} WHERE @", &[&list, &condition]),
                vec![],
            )
        } else {
            let key = self.key();
            let body = Sql::fill(
                "SELECT @, @ FROM {t} WHERE @ GROUP BY @",
                &[&key, &list, &condition, &key],
            );
            self.ordered(body, 3, 50, 30)
        }
    }

    fn cte(&mut self) -> Query {
        let key = self.key();
        let number = self.number(1);
        let filter = self.where_clause(60);
        let inner = Sql::fill(
            "SELECT @ AS k, sum(@) AS s, count(*) AS n FROM {t}@ GROUP BY 1",
            &[&key, &number, &filter],
        );
        let outer = self.one_of(&[
            "SELECT count(*), sum(n), max(s) FROM g",
            "SELECT a.k, a.n, b.s FROM g a JOIN g b ON a.k = b.k",
            "SELECT k, n FROM g WHERE n > (SELECT avg(n) FROM g)",
            "SELECT n, count(k) FROM g GROUP BY n",
        ]);
        if self.chance(60) {
            Query::of(
                Sql::fill(&format!("WITH g AS (@) {outer}"), &[&inner]),
                vec![],
            )
        } else {
            Query::of(
                Sql::fill(
                    "SELECT n, count(*), min(s) FROM (@) AS g GROUP BY n",
                    &[&inner],
                ),
                vec![],
            )
        }
    }

    fn set_operation(&mut self) -> Query {
        let column =
            self.column_where(|c| !c.multi_value && (c.name.ends_with("_0") || c.name == "t_id"));
        let name = self.named(column);
        let (a, b) = (self.where_clause(90), self.where_clause(90));
        let operator = self.one_of(&["UNION ALL", "UNION", "INTERSECT", "EXCEPT"]);
        let body = Sql::fill(
            &format!("SELECT @ AS v FROM {{t}}@ {operator} SELECT @ AS v FROM {{t}}@"),
            &[&name, &a, &name, &b],
        );
        self.ordered(body, 1, 40, 20)
    }

    fn window(&mut self) -> Query {
        let partition = self.column_where(|c| {
            !c.multi_value && c.name.ends_with("_0") && c.data_type != DataType::Json
        });
        let partition = self.named(partition);
        let filter = self.where_clause(80);
        let function = self.one_of(&[
            "row_number()",
            "sum(double_0)",
            "lag(int_0)",
            "rank()",
            "count(*)",
        ]);
        let body = Sql::fill(
            &format!(
                "SELECT t_id, {function} OVER (PARTITION BY @ ORDER BY t_id) AS w FROM {{t}}@"
            ),
            &[&partition, &filter],
        );
        self.ordered(body, 2, 50, 50)
    }

    /// Statements that no engine must answer.
    fn error(&mut self) -> Query {
        let filter = self.where_clause(50);
        let text = self.one_of(&[
            "SELECT no_such_column FROM {t}@",
            "SELECT no_such_function(int_0) FROM {t}@",
            "SELECT sum(string_0) FROM {t}@",
            "SELECT int_0, count(*) FROM {t}@ GROUP BY string_0",
            "SELECT FROM WHERE {t}@",
            "SELECT int_0 FROM no_such_table@",
            "SELECT upper(int_0, 2) FROM {t}@",
            "SELECT int_0 FROM {t}@ ORDER BY 9",
        ]);
        Query::of(Sql::fill(text, &[&filter]).not_in_duck(), vec![])
    }
}
