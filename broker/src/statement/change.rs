//! Statements that change tables: what follows ALTER and DELETE.

use super::{Cursor, NESTING_MAX, STATEMENT_BYTES_MAX, place, syntax_error, tokens};
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
    /// Rows go for which the predicate, in SQL, is true; without one, all.
    Delete {
        table: String,
        predicate: Option<String>,
    },
}

/// The forms of ALTER TABLE, for errors.
const FORMS: &str = "PIN BOUNDARY '2014-01-22', RELEASE BOUNDARY, FORCE COMMIT, PAUSE CONSUMPTION, RESUME CONSUMPTION, REVERT PUSH 'id' or DROP OFFLINE FROM '2014-01-21' TO '2014-01-22'";

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
    } else if cursor.take("DROP") {
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
        for (sql, expected) in [
            ("DELETE t", "expected FROM"),
            ("DELETE FROM t WHERE", "syntax error"),
            ("DELETE FROM t WHERE a = 1 LIMIT 5", "syntax error at LIMIT"),
            ("ALTER TABLE t FLY", "PAUSE CONSUMPTION"),
            ("ALTER TABLE t DROP OFFLINE FROM 1", "expected TO"),
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
