//! Scalar expressions by the type of their result.

use crate::pool::Domain;
use crate::predicate::Draw;
use crate::sql::Sql;
use crate::table::{Column, TIME_COLUMN};
use strandline_proto::schema::DataType;

/// Whether expressions over the column mean the same in every engine and order.
fn is_plain(c: &Column) -> bool {
    !c.multi_value && c.domain != Domain::Edge
}

fn is_integer(c: &Column) -> bool {
    is_plain(c) && matches!(c.data_type, DataType::Int | DataType::Long)
}

fn is_float(c: &Column) -> bool {
    is_plain(c) && matches!(c.data_type, DataType::Float | DataType::Double)
}

fn is_decimal(c: &Column) -> bool {
    is_plain(c) && matches!(c.data_type, DataType::BigDecimal { .. })
}

fn is_string(c: &Column) -> bool {
    is_plain(c) && c.data_type == DataType::String
}

fn is_time(c: &Column) -> bool {
    is_plain(c) && c.data_type == DataType::Timestamp
}

impl Draw<'_> {
    /// A number: a column, or an expression over some, `depth` deep at most.
    pub fn number(&mut self, depth: usize) -> Sql {
        let plain_column = depth == 0 || self.chance(45);
        let column = match self.below(5) {
            0 | 1 => self.column_where(is_integer),
            2 | 3 => self.column_where(is_float),
            _ => self.column_where(is_decimal),
        };
        let name = self.named(column);
        if plain_column {
            return name;
        }
        let integer = is_integer(column);
        match self.below(13) {
            0 => {
                let other = self.number(depth - 1);
                Sql::fill("(@ + @)", &[&name, &other])
            }
            1 => Sql::fill("(@ - 3)", &[&name]),
            2 => Sql::fill("(@ * 2)", &[&name]),
            3 if integer => Sql::fill("(@ % 7)", &[&name]),
            3 => Sql::fill("(- @)", &[&name]),
            4 => {
                let condition = self.predicate(1);
                Sql::fill("CASE WHEN @ THEN @ ELSE 0 END", &[&condition, &name])
            }
            5 => Sql::fill("coalesce(@, 0)", &[&name]),
            6 => {
                let text = self.column_where(is_string);
                let text = self.named(text);
                Sql::fill("character_length(@)", &[&text])
            }
            7 => {
                let time = self.column_where(is_time);
                let time = self.named(time);
                let part = self.one_of(&["year", "month", "day", "hour", "dow", "doy"]);
                Sql::fill(&format!("date_part('{part}', @)"), &[&time])
            }
            8 if integer => Sql::fill("abs(CAST(@ AS BIGINT))", &[&name]),
            8 => Sql::fill("abs(@)", &[&name]),
            9 if integer => Sql::fill("nullif(@, 1)", &[&name]),
            9 if is_float(column) => Sql::fill("floor(@)", &[&name]),
            9 => Sql::fill("(@ * 10)", &[&name]),
            10 => {
                let list = self.column_where(|c| c.multi_value);
                let list = self.named(list);
                let mut sql = Sql::fill("array_length(@)", &[&list]);
                // DuckDB counts an empty list as 0; what DataFusion gives is its own matter.
                sql.duck = None;
                sql
            }
            11 if integer => Sql::fill("CAST(@ AS DOUBLE) / 4", &[&name]),
            11 => Sql::fill("CAST(@ AS DOUBLE)", &[&name]),
            _ => {
                let integer = self.column_where(is_integer);
                let integer = self.named(integer);
                Sql::fill(
                    "CASE @ WHEN 1 THEN 10 WHEN 2 THEN 20 ELSE NULL END",
                    &[&integer],
                )
            }
        }
    }

    /// A text.
    pub fn text(&mut self, depth: usize) -> Sql {
        let column = self.column_where(is_string);
        let name = self.named(column);
        if depth == 0 || self.chance(50) {
            return name;
        }
        match self.below(11) {
            0 => Sql::fill("upper(@)", &[&name]),
            1 => Sql::fill("lower(@)", &[&name]),
            2 => Sql::fill("substr(@, 2, 3)", &[&name]),
            3 => Sql::fill("(@ || '-x')", &[&name]),
            4 => {
                let other = self.text(depth - 1);
                Sql::fill("concat(@, '/', @)", &[&name, &other])
            }
            5 => Sql::fill("replace(@, 'a', 'AA')", &[&name]),
            6 => Sql::fill("left(@, 2)", &[&name]),
            7 => Sql::fill("coalesce(@, 'none')", &[&name]),
            8 => {
                let integer = self.column_where(is_integer);
                let integer = self.named(integer);
                Sql::fill("(CAST(@ AS VARCHAR) || '#')", &[&integer])
            }
            9 => {
                let condition = self.predicate(1);
                Sql::fill("CASE WHEN @ THEN 'yes' ELSE @ END", &[&condition, &name])
            }
            _ => Sql::fill("trim(reverse(@))", &[&name]),
        }
    }

    /// A time.
    pub fn instant(&mut self, depth: usize) -> Sql {
        let column = self.column_where(is_time);
        let name = self.named(column);
        if depth == 0 || self.chance(40) {
            return name;
        }
        match self.below(4) {
            0 | 1 => {
                let unit = self.one_of(&["hour", "day", "week", "month", "quarter", "year"]);
                let truncated = Sql::fill(&format!("date_trunc('{unit}', @)"), &[&name]);
                Sql {
                    duck: truncated.duck.map(|d| format!("CAST({d} AS TIMESTAMP)")),
                    ..truncated
                }
            }
            2 => Sql::fill("(@ + INTERVAL '1 day')", &[&name]),
            _ => Sql::fill("CAST(@ AS DATE)", &[&name]),
        }
    }

    /// Something to group or select by, of any type.
    pub fn key(&mut self) -> Sql {
        match self.below(12) {
            0..=6 => {
                let column = self.column_where(|c| {
                    !c.multi_value
                        && (matches!(c.domain, Domain::Small | Domain::Edge)
                            || c.name.ends_with(TIME_COLUMN))
                });
                self.named(column)
            }
            7 => {
                let column = self.column_where(|c| !c.multi_value && c.name.ends_with("_1"));
                self.named(column)
            }
            8 => self.text(1),
            9 => self.instant(1),
            10 => {
                let integer = self.column_where(is_integer);
                let integer = self.named(integer);
                Sql::fill("(@ % 5)", &[&integer])
            }
            _ => {
                let condition = self.leaf_predicate();
                Sql::fill("CASE WHEN @ THEN 1 ELSE 0 END", &[&condition])
            }
        }
    }

    /// An aggregate, sometimes with FILTER or DISTINCT.
    pub fn aggregate(&mut self) -> Sql {
        let call = match self.below(17) {
            0 | 1 => Sql::same("count(*)"),
            2 => {
                let column = self.column_where(|_| true);
                Sql::fill("count(@)", &[&self.named(column)])
            }
            3 | 4 => {
                let column = self.column_where(|c| !c.multi_value);
                Sql::fill("count(DISTINCT @)", &[&self.named(column)])
            }
            5..=7 => {
                let number = self.number(1);
                Sql::fill("sum(@)", &[&number])
            }
            8 | 9 => {
                let number = self.number(1);
                Sql::fill("avg(@)", &[&number])
            }
            10 | 11 => {
                let column = self.column_where(|c| !c.multi_value && c.data_type != DataType::Json);
                let function = self.one_of(&["min", "max"]);
                let name = self.named(column);
                let sql = Sql::fill(&format!("{function}(@)"), &[&name]);
                if column.domain != Domain::Edge {
                    return self.filtered(sql);
                }
                // DataFusion's own accumulators for groups of floats lose infinities and what stands before a NaN.
                let direction = if function == "min" { "ASC" } else { "DESC" };
                let first = format!("first_value(@ ORDER BY @ {direction} NULLS LAST)");
                Sql {
                    plain: Sql::fill(&first, &[&name, &name]).plain,
                    ..sql
                }
            }
            12 => {
                let number = self.number(1);
                let function = self.one_of(&["min", "max"]);
                Sql::fill(&format!("{function}(@)"), &[&number])
            }
            13 if self.chance(50) => {
                let column = self.column_where(is_integer);
                Sql::fill("sum(DISTINCT @)", &[&self.named(column)])
            }
            // Sums of LONG wrap around; DuckDB's grow.
            13 => {
                let column = self.column_where(|c| {
                    !c.multi_value
                        && c.domain == Domain::Edge
                        && matches!(c.data_type, DataType::Int | DataType::Long)
                });
                Sql::fill("sum(@)", &[&self.named(column)]).not_in_duck()
            }
            14 => {
                let column = self.column_where(|c| is_float(c) && c.name.ends_with("_0"));
                let function = self.one_of(&["stddev", "var_pop", "var_samp"]);
                Sql::fill(&format!("{function}(@)"), &[&self.named(column)])
            }
            15 => {
                let column =
                    self.column_where(|c| !c.multi_value && c.data_type == DataType::Boolean);
                let function = self.one_of(&["bool_and", "bool_or"]);
                Sql::fill(&format!("{function}(@)"), &[&self.named(column)])
            }
            _ => {
                let integer = self.column_where(is_integer);
                Sql::fill("bit_xor(@)", &[&self.named(integer)])
            }
        };
        self.filtered(call)
    }

    fn filtered(&mut self, call: Sql) -> Sql {
        if self.chance(18) {
            let condition = self.predicate(1);
            Sql::fill("@ FILTER (WHERE @)", &[&call, &condition])
        } else {
            call
        }
    }
}
