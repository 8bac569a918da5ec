//! Statements that change tables: what follows ALTER and DELETE.

use super::{Cursor, NESTING_MAX, STATEMENT_BYTES_MAX, place, syntax_error, tokens};
use crate::server_side::SchemaChange;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use strandline_proto::{Error, Result};

/// A statement that changes a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdminStatement {
    DropTable {
        table: String,
        if_exists: bool,
    },
    PinBoundary {
        table: String,
        boundary: String,
    },
    ReleaseBoundary {
        table: String,
    },
    ForceCommit {
        table: String,
    },
    /// Reading the stream ends until it is told to go on.
    SetPaused {
        table: String,
        paused: bool,
    },
    RevertPush {
        table: String,
        push_id: String,
    },
    /// Offline rows of an interval go, and realtime answers there.
    DropOffline {
        table: String,
        from: String,
        to: String,
    },
    /// Rows of an interval are made again of archived messages.
    Rebuild {
        table: String,
        from: String,
        to: String,
    },
    ChangeSchema {
        table: String,
        change: SchemaChange,
    },
    /// Rows go for which the predicate, in SQL, is true; without one, all.
    Delete {
        table: String,
        predicate: Option<String>,
    },
}

/// The forms of ALTER TABLE, for errors.
const FORMS: &str = "PIN BOUNDARY '2014-01-22', RELEASE BOUNDARY, FORCE COMMIT, PAUSE CONSUMPTION, RESUME CONSUMPTION, REVERT PUSH 'id', DROP OFFLINE FROM '2014-01-21' TO '2014-01-22', REBUILD FROM '2014-01-21' TO '2014-01-22', ADD COLUMN c LONG DEFAULT 0, DROP COLUMN c, RENAME COLUMN c TO d or ALTER COLUMN c TYPE LONG";

/// What follows ALTER.
pub(super) fn alter(mut cursor: Cursor<'_>) -> Result<AdminStatement> {
    cursor.require("TABLE")?;
    let table = cursor.table()?;
    let statement = if cursor.take("PIN") {
        cursor.require("BOUNDARY")?;
        AdminStatement::PinBoundary {
            table,
            boundary: cursor.text()?,
        }
    } else if cursor.take("RELEASE") {
        cursor.require("BOUNDARY")?;
        AdminStatement::ReleaseBoundary { table }
    } else if cursor.take("FORCE") {
        cursor.require("COMMIT")?;
        AdminStatement::ForceCommit { table }
    } else if cursor.is("PAUSE") || cursor.is("RESUME") {
        let paused = cursor.is("PAUSE");
        cursor.advance();
        cursor.require("CONSUMPTION")?;
        AdminStatement::SetPaused { table, paused }
    } else if cursor.take("REVERT") {
        cursor.require("PUSH")?;
        AdminStatement::RevertPush {
            table,
            push_id: cursor.text()?,
        }
    } else if cursor.take("REBUILD") {
        cursor.require("FROM")?;
        let from = cursor.text()?;
        cursor.require("TO")?;
        AdminStatement::Rebuild {
            table,
            from,
            to: cursor.text()?,
        }
    } else if cursor.take("ADD") {
        cursor.take("COLUMN");
        let column = cursor.name()?;
        let (data_type, multi_value) = data_type(&mut cursor)?;
        let default = match cursor.take("DEFAULT") {
            true => Some(cursor.text()?),
            false => None,
        };
        let change = SchemaChange::Add {
            column,
            data_type,
            multi_value,
            default,
        };
        AdminStatement::ChangeSchema { table, change }
    } else if cursor.take("RENAME") {
        cursor.take("COLUMN");
        let column = cursor.name()?;
        cursor.require("TO")?;
        let to = cursor.name()?;
        let change = SchemaChange::Rename { column, to };
        AdminStatement::ChangeSchema { table, change }
    } else if cursor.take("ALTER") {
        cursor.take("COLUMN");
        let column = cursor.name()?;
        if cursor.take("SET") {
            cursor.require("DATA")?;
        }
        cursor.require("TYPE")?;
        let (data_type, _) = data_type(&mut cursor)?;
        let change = SchemaChange::Widen { column, data_type };
        AdminStatement::ChangeSchema { table, change }
    } else if cursor.take("DROP") {
        if cursor.take("COLUMN") {
            let column = cursor.name()?;
            cursor.end()?;
            let change = SchemaChange::Drop { column };
            return Ok(AdminStatement::ChangeSchema { table, change });
        }
        cursor.require("OFFLINE")?;
        cursor.require("FROM")?;
        let from = cursor.text()?;
        cursor.require("TO")?;
        AdminStatement::DropOffline {
            table,
            from,
            to: cursor.text()?,
        }
    } else {
        return Err(cursor.expected(FORMS));
    };
    cursor.end()?;
    Ok(statement)
}

/// A type as a schema document names it, and whether it is one of lists: `LONG`, `BIGINT`, `STRING ARRAY`, `INT[]`.
fn data_type(cursor: &mut Cursor<'_>) -> Result<(String, bool)> {
    let Some(word) = cursor.word().map(str::to_ascii_uppercase) else {
        return Err(cursor.expected("a type"));
    };
    let name = match word.as_str() {
        "INT" | "INTEGER" | "INT4" => "INT",
        "LONG" | "BIGINT" | "INT8" => "LONG",
        "FLOAT" | "REAL" | "FLOAT4" => "FLOAT",
        "DOUBLE" | "FLOAT8" => "DOUBLE",
        "BIG_DECIMAL" | "DECIMAL" | "NUMERIC" => "BIG_DECIMAL",
        "BOOLEAN" | "BOOL" => "BOOLEAN",
        "TIMESTAMP" => "TIMESTAMP",
        "STRING" | "VARCHAR" | "TEXT" => "STRING",
        "JSON" => "JSON",
        "BYTES" | "BYTEA" | "VARBINARY" => "BYTES",
        _ => {
            return Err(cursor.expected(
                "INT, LONG, FLOAT, DOUBLE, BIG_DECIMAL, BOOLEAN, TIMESTAMP, STRING, JSON or BYTES",
            ));
        }
    };
    cursor.advance();
    if name == "DOUBLE" {
        cursor.take("PRECISION");
    }
    let brackets = cursor.take_token(&Token::LBracket);
    if brackets && !cursor.take_token(&Token::RBracket) {
        return Err(cursor.expected("]"));
    }
    Ok((name.to_owned(), brackets || cursor.take("ARRAY")))
}

/// What follows DELETE.
pub(super) fn delete(mut cursor: Cursor<'_>) -> Result<AdminStatement> {
    cursor.require("FROM")?;
    let table = cursor.table()?;
    if cursor.rest().is_empty() {
        return Ok(AdminStatement::Delete {
            table,
            predicate: None,
        });
    }
    cursor.require("WHERE")?;
    Ok(AdminStatement::Delete {
        table,
        predicate: Some(predicate(cursor.rest())?),
    })
}

/// Checks that a text is what may stand behind WHERE, and nothing more.
///
/// # Errors
/// `InvalidArgument` with the place of what is wrong.
pub fn check_predicate(sql: &str) -> Result<()> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the predicate has {} bytes; at most {STATEMENT_BYTES_MAX} are accepted",
            sql.len()
        )));
    }
    predicate(&tokens(sql)?).map(|_| ())
}

/// One expression, as text.
fn predicate(tokens: &[TokenWithSpan]) -> Result<String> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(tokens.to_vec());
    let predicate = parser.parse_expr().map_err(syntax_error)?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(Error::invalid(format!(
            "{}: syntax error at {}; a condition ends before it",
            place(next.span.start),
            next.token
        )));
    }
    Ok(predicate.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Statement, parse};

    fn admin(sql: &str) -> AdminStatement {
        match parse(sql).unwrap().statement {
            Statement::Admin(statement) => statement,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn changes_of_tables_are_read() {
        let table = || "t".to_owned();
        assert_eq!(
            admin("alter table t pause consumption"),
            AdminStatement::SetPaused {
                table: table(),
                paused: true
            }
        );
        assert_eq!(
            admin("ALTER TABLE t RESUME CONSUMPTION;"),
            AdminStatement::SetPaused {
                table: table(),
                paused: false
            }
        );
        assert_eq!(
            admin("ALTER TABLE t REVERT PUSH 'day-5'"),
            AdminStatement::RevertPush {
                table: table(),
                push_id: "day-5".into()
            }
        );
        assert_eq!(
            admin("ALTER TABLE t DROP OFFLINE FROM '2014-01-01' TO 5"),
            AdminStatement::DropOffline {
                table: table(),
                from: "2014-01-01".into(),
                to: "5".into()
            }
        );
        assert_eq!(
            admin("alter table t rebuild from '2014-01-01 12:00:00' to '2014-01-02'"),
            AdminStatement::Rebuild {
                table: table(),
                from: "2014-01-01 12:00:00".into(),
                to: "2014-01-02".into()
            }
        );
        assert_eq!(
            admin("DELETE FROM t"),
            AdminStatement::Delete {
                table: table(),
                predicate: None
            }
        );
        let deleted = AdminStatement::Delete {
            table: "T_OFFLINE".into(),
            predicate: Some("a = 'it''s' AND \"B c\" > 5".into()),
        };
        assert_eq!(
            admin("delete from T_OFFLINE where a = 'it''s' and \"B c\" > 5"),
            deleted
        );
        let changes = [
            (
                "ADD COLUMN \"New one\" bigint DEFAULT -5",
                SchemaChange::Add {
                    column: "New one".into(),
                    data_type: "LONG".into(),
                    multi_value: false,
                    default: Some("-5".into()),
                },
            ),
            (
                "ADD tags VARCHAR ARRAY",
                SchemaChange::Add {
                    column: "tags".into(),
                    data_type: "STRING".into(),
                    multi_value: true,
                    default: None,
                },
            ),
            ("DROP COLUMN a", SchemaChange::Drop { column: "a".into() }),
            (
                "RENAME COLUMN a TO b",
                SchemaChange::Rename {
                    column: "a".into(),
                    to: "b".into(),
                },
            ),
            (
                "ALTER COLUMN a SET DATA TYPE DOUBLE PRECISION",
                SchemaChange::Widen {
                    column: "a".into(),
                    data_type: "DOUBLE".into(),
                },
            ),
        ];
        for (sql, change) in changes {
            let expected = AdminStatement::ChangeSchema {
                table: table(),
                change,
            };
            assert_eq!(admin(&format!("ALTER TABLE t {sql}")), expected, "{sql}");
        }
        for (sql, expected) in [
            ("ALTER TABLE t ADD COLUMN a MONEY", "expected INT"),
            ("DELETE t", "expected FROM"),
            ("DELETE FROM t WHERE", "syntax error"),
            ("DELETE FROM t WHERE a = 1 LIMIT 5", "syntax error at LIMIT"),
            ("ALTER TABLE t FLY", "PAUSE CONSUMPTION"),
            ("ALTER TABLE t DROP OFFLINE FROM 1", "expected TO"),
            ("ALTER TABLE t REBUILD", "expected FROM"),
        ] {
            let error = parse(sql).unwrap_err();
            assert!(error.message().contains(expected), "{sql}: {error}");
        }
    }

    #[test]
    fn a_predicate_is_one_expression() {
        for right in [
            "a = 1",
            "a IN (SELECT b FROM u) AND c LIKE '%;%'",
            "a = 1 -- it is",
        ] {
            check_predicate(right).unwrap();
        }
        for wrong in [
            "",
            "a = 1; DROP TABLE t",
            "a = 1 ORDER BY b",
            "a = ",
            "a) OR (b",
        ] {
            assert!(check_predicate(wrong).is_err(), "{wrong}");
        }
    }
}
