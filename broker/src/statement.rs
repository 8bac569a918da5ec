//! A request's text as one statement of a kind we answer, with the options set before it.
//!
//! Only what is listed here runs: queries, EXPLAIN, SHOW TABLES, DESCRIBE, and statements of ours that change tables.

mod change;

pub(crate) use change::AdminStatement;
pub use change::check_predicate;

use crate::names::nearest;
use datafusion::sql::sqlparser::ast::{Query, SetExpr};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use strandline_proto::{Error, Result};

/// Bytes of the longest statement.
pub(crate) const STATEMENT_BYTES_MAX: usize = 4 << 20;
/// How deeply a statement may nest.
const NESTING_MAX: usize = 100;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    /// SELECT, WITH, VALUES.
    Query(Box<Query>),
    /// EXPLAIN of a query.
    Explain {
        /// Whether the query is run.
        analyze: bool,
        /// The query.
        query: Box<Query>,
    },
    /// SHOW TABLES.
    ShowTables,
    /// DESCRIBE t.
    Describe(String),
    /// A statement that changes a table.
    Admin(AdminStatement),
}

/// A parsed request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Parsed {
    /// `SET`s before the statement, in order.
    pub(crate) settings: Vec<(String, String)>,
    /// The statement.
    pub(crate) statement: Statement,
}

/// A place in the statement's text, for errors.
pub(crate) fn place(location: Location) -> String {
    format!("line {}, column {}", location.line, location.column)
}

/// Parses a request that is known to be one query.
pub(crate) fn parse_query(sql: &str) -> Result<Box<Query>> {
    match parse(sql)?.statement {
        Statement::Query(query) => Ok(query),
        _ => Err(Error::internal("a statement that was a query is none")),
    }
}

/// Parses a request.
pub(crate) fn parse(sql: &str) -> Result<Parsed> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the statement has {} bytes; at most {STATEMENT_BYTES_MAX} are accepted",
            sql.len()
        )));
    }
    let mut statements = split(tokens(sql)?);
    let Some(last) = statements.pop() else {
        return Err(Error::invalid("the statement is empty"));
    };
    let mut settings = Vec::with_capacity(statements.len());
    for statement in statements {
        let cursor = Cursor::new(&statement);
        if !cursor.is("SET") {
            return Err(Error::unsupported(format!(
                "not supported: several statements in one request ({} begins one); only SET may stand before a statement",
                cursor.here()
            )));
        }
        settings.push(setting(cursor)?);
    }
    let cursor = Cursor::new(&last);
    if cursor.is("SET") {
        setting(cursor)?;
        return Err(Error::invalid(
            "SET holds for the statement behind it in the same request: SET name = value; SELECT ...",
        ));
    }
    Ok(Parsed {
        settings,
        statement: statement(&last)?,
    })
}

fn tokens(sql: &str) -> Result<Vec<TokenWithSpan>> {
    Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|e| {
            Error::invalid(format!(
                "{}, syntax error: {}",
                place(e.location),
                crate::error::tidy(&e.message)
            ))
        })
}

/// The statements between semicolons, without empty ones.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut statements = vec![Vec::new()];
    for token in tokens {
        match token.token {
            Token::SemiColon => statements.push(Vec::new()),
            Token::EOF => {}
            _ => {
                if let Some(current) = statements.last_mut() {
                    current.push(token);
                }
            }
        }
    }
    statements.retain(|s| s.iter().any(|t| !matches!(t.token, Token::Whitespace(_))));
    statements
}

fn statement(tokens: &[TokenWithSpan]) -> Result<Statement> {
    let mut cursor = Cursor::new(tokens);
    let Some(word) = cursor.word() else {
        return match cursor.peek() {
            Some(Token::LParen) => Ok(Statement::Query(query(tokens)?)),
            _ => Err(cursor.expected("a statement")),
        };
    };
    match word.to_ascii_uppercase().as_str() {
        "SELECT" | "WITH" | "VALUES" | "FROM" | "TABLE" => Ok(Statement::Query(query(tokens)?)),
        "EXPLAIN" => {
            cursor.advance();
            if cursor.take("PLAN") {
                cursor.require("FOR")?;
            }
            let analyze = cursor.take("ANALYZE");
            cursor.take("VERBOSE");
            let rest = cursor.rest();
            match Cursor::new(rest)
                .word()
                .map(|w| w.to_ascii_uppercase())
                .as_deref()
            {
                Some("SELECT" | "WITH" | "VALUES" | "FROM" | "TABLE") => {}
                None if matches!(cursor.peek(), Some(Token::LParen)) => {}
                _ => {
                    return Err(Error::unsupported(
                        "not supported: EXPLAIN of anything but a query",
                    ));
                }
            }
            Ok(Statement::Explain {
                analyze,
                query: query(rest)?,
            })
        }
        "SHOW" => {
            cursor.advance();
            cursor.require("TABLES")?;
            cursor.end()?;
            Ok(Statement::ShowTables)
        }
        "DESCRIBE" | "DESC" => {
            cursor.advance();
            cursor.take("TABLE");
            let table = cursor.table()?;
            cursor.end()?;
            Ok(Statement::Describe(table))
        }
        "DROP" => {
            cursor.advance();
            cursor.require("TABLE")?;
            let if_exists = cursor.take("IF");
            if if_exists {
                cursor.require("EXISTS")?;
            }
            let table = cursor.table()?;
            cursor.end()?;
            Ok(Statement::Admin(AdminStatement::DropTable {
                table,
                if_exists,
            }))
        }
        "DELETE" => {
            cursor.advance();
            change::delete(cursor).map(Statement::Admin)
        }
        "ALTER" => {
            cursor.advance();
            change::alter(cursor).map(Statement::Admin)
        }
        other => Err(refused(other, &cursor)),
    }
}

fn refused(word: &str, cursor: &Cursor<'_>) -> Error {
    const KNOWN: [&str; 10] = [
        "SELECT", "WITH", "VALUES", "EXPLAIN", "SET", "SHOW", "DESCRIBE", "DROP", "ALTER", "DELETE",
    ];
    const FOREIGN: [&str; 21] = [
        "COPY",
        "CREATE",
        "INSERT",
        "UPDATE",
        "MERGE",
        "TRUNCATE",
        "GRANT",
        "REVOKE",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "PREPARE",
        "EXECUTE",
        "DEALLOCATE",
        "USE",
        "CALL",
        "VACUUM",
        "ANALYZE",
        "RESET",
        "LOAD",
        "UNLOAD",
    ];
    if FOREIGN.contains(&word) {
        return Error::unsupported(format!(
            "not supported: {word}; a query is SELECT, WITH, VALUES, EXPLAIN, SHOW TABLES or DESCRIBE. Rows come in by load and by stream, tables by their configs"
        ));
    }
    Error::invalid(format!(
        "{}: no statement begins with {word}{}",
        cursor.here(),
        nearest(word, KNOWN)
    ))
}

fn setting(mut cursor: Cursor<'_>) -> Result<(String, String)> {
    cursor.advance();
    let Some(name) = cursor.word().map(str::to_owned) else {
        return Err(cursor.expected("an option's name"));
    };
    cursor.advance();
    if !cursor.take_token(&Token::Eq) {
        cursor.require("TO")?;
    }
    let value = cursor.text()?;
    cursor.end()?;
    Ok((name, value))
}

fn query(tokens: &[TokenWithSpan]) -> Result<Box<Query>> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(NESTING_MAX)
        .with_tokens_with_locations(tokens.to_vec());
    let query = parser.parse_query().map_err(syntax_error)?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        return Err(Error::invalid(format!(
            "{}: syntax error at {}",
            place(next.span.start),
            next.token
        )));
    }
    only_reads(&query.body)?;
    if query
        .with
        .iter()
        .flat_map(|w| &w.cte_tables)
        .any(|cte| only_reads(&cte.query.body).is_err())
    {
        return Err(Error::unsupported(
            "not supported: a statement that writes inside WITH",
        ));
    }
    Ok(query)
}

fn only_reads(body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(_) | SetExpr::Values(_) | SetExpr::Table(_) => Ok(()),
        SetExpr::Query(query) => only_reads(&query.body),
        SetExpr::SetOperation { left, right, .. } => {
            only_reads(left).and_then(|()| only_reads(right))
        }
        _ => Err(Error::unsupported(
            "not supported: a statement that writes; queries only read",
        )),
    }
}

fn syntax_error(error: ParserError) -> Error {
    match error {
        ParserError::RecursionLimitExceeded => Error::invalid(format!(
            "the statement nests deeper than {NESTING_MAX} levels"
        )),
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            match text.rsplit_once(" at Line: ") {
                Some((what, at)) => Error::invalid(format!(
                    "line {}: syntax error: {}",
                    at.replace("Column:", "column"),
                    crate::error::tidy(what)
                )),
                None => Error::invalid(format!(
                    "at the end of the statement: syntax error: {}",
                    crate::error::tidy(&text)
                )),
            }
        }
    }
}

/// Reads tokens, skipping white space.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
}

impl<'a> Cursor<'a> {
    fn new(tokens: &'a [TokenWithSpan]) -> Self {
        let mut cursor = Self { tokens };
        cursor.skip_space();
        cursor
    }

    fn skip_space(&mut self) {
        while let [
            TokenWithSpan {
                token: Token::Whitespace(_),
                ..
            },
            rest @ ..,
        ] = self.tokens
        {
            self.tokens = rest;
        }
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.first().map(|t| &t.token)
    }

    fn advance(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
        self.skip_space();
    }

    fn rest(&self) -> &'a [TokenWithSpan] {
        self.tokens
    }

    fn word(&self) -> Option<&'a str> {
        match self.peek() {
            Some(Token::Word(word)) => Some(&word.value),
            _ => None,
        }
    }

    fn is(&self, keyword: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(keyword))
    }

    fn take(&mut self, keyword: &str) -> bool {
        let found = self.is(keyword);
        if found {
            self.advance();
        }
        found
    }

    fn take_token(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        if found {
            self.advance();
        }
        found
    }

    fn require(&mut self, keyword: &str) -> Result<()> {
        if self.take(keyword) {
            Ok(())
        } else {
            Err(self.expected(keyword))
        }
    }

    /// A table's name; one of the `system` schema keeps its dot.
    fn table(&mut self) -> Result<String> {
        let Some(name) = self.word().map(str::to_owned) else {
            return Err(self.expected("a table's name"));
        };
        self.advance();
        if self.take_token(&Token::Period) {
            let Some(second) = self.word() else {
                return Err(self.expected("a table's name"));
            };
            self.advance();
            return Ok(format!("{name}.{second}"));
        }
        Ok(name)
    }

    /// A column's name.
    fn name(&mut self) -> Result<String> {
        let Some(name) = self.word().map(str::to_owned) else {
            return Err(self.expected("a column's name"));
        };
        self.advance();
        Ok(name)
    }

    /// A word, number or quoted text.
    fn text(&mut self) -> Result<String> {
        let text = match self.peek() {
            Some(Token::Word(word)) => word.value.clone(),
            Some(Token::Number(number, _)) => number.clone(),
            Some(Token::SingleQuotedString(text)) => text.clone(),
            Some(Token::Minus) => {
                self.advance();
                return self.text().map(|t| format!("-{t}"));
            }
            _ => return Err(self.expected("a value")),
        };
        self.advance();
        Ok(text)
    }

    fn end(&self) -> Result<()> {
        if self.tokens.is_empty() {
            Ok(())
        } else {
            Err(self.expected("the end of the statement"))
        }
    }

    fn here(&self) -> String {
        self.tokens
            .first()
            .map_or_else(|| "at the end".to_owned(), |t| place(t.span.start))
    }

    fn expected(&self, what: &str) -> Error {
        let found = self
            .peek()
            .map_or_else(|| "nothing".to_owned(), ToString::to_string);
        Error::invalid(format!("{}: expected {what}, found {found}", self.here()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_proto::ErrorKind;

    fn error(sql: &str) -> Error {
        parse(sql).unwrap_err()
    }

    #[test]
    fn settings_stand_before_one_statement() {
        let parsed = parse("SET timeoutMs = 100; set usePlanCache=false;\nSELECT 1;").unwrap();
        assert_eq!(
            parsed.settings,
            [
                ("timeoutMs".into(), "100".into()),
                ("usePlanCache".into(), "false".into())
            ]
        );
        assert!(matches!(parsed.statement, Statement::Query(_)));
        assert!(
            error("SELECT 1; SELECT 2")
                .message()
                .contains("several statements")
        );
        assert!(error("SET a = 1").message().contains("same request"));
        assert!(error(" ; ").message().contains("empty"));
    }

    #[test]
    fn statements_of_ours_are_read() {
        let admin = |sql: &str| match parse(sql).unwrap().statement {
            Statement::Admin(a) => a,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            admin("drop table if exists t_OFFLINE"),
            AdminStatement::DropTable {
                table: "t_OFFLINE".into(),
                if_exists: true
            }
        );
        assert_eq!(
            admin("ALTER TABLE \"t\" PIN BOUNDARY '2014-01-22'"),
            AdminStatement::PinBoundary {
                table: "t".into(),
                boundary: "2014-01-22".into()
            }
        );
        assert_eq!(
            admin("ALTER TABLE t RELEASE BOUNDARY"),
            AdminStatement::ReleaseBoundary { table: "t".into() }
        );
        assert_eq!(
            admin("ALTER TABLE t FORCE COMMIT"),
            AdminStatement::ForceCommit { table: "t".into() }
        );
        assert_eq!(
            parse("SHOW TABLES").unwrap().statement,
            Statement::ShowTables
        );
        assert_eq!(
            parse("DESCRIBE system.tables").unwrap().statement,
            Statement::Describe("system.tables".into())
        );
    }

    #[test]
    fn what_writes_or_reaches_the_host_is_refused() {
        for sql in [
            "COPY t TO '/tmp/x'",
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
            "INSERT INTO t VALUES (1)",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "EXPLAIN INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "EXPLAIN DELETE FROM t",
        ] {
            assert_eq!(
                error(sql).kind(),
                ErrorKind::Unsupported,
                "{sql}: {}",
                error(sql)
            );
        }
    }

    #[test]
    fn syntax_errors_name_their_place() {
        assert!(
            error("SELECT a FROM t\nWHERE (b = 1")
                .message()
                .starts_with("at the end"),
            "{}",
            error("SELECT a FROM t\nWHERE (b = 1")
        );
        assert!(
            error("SELECT a b c FROM t")
                .message()
                .starts_with("line 1, column 12"),
            "{}",
            error("SELECT a b c FROM t")
        );
        assert!(
            error("SELCT 1")
                .message()
                .contains("line 1, column 1: no statement begins with SELCT; did you mean SELECT?")
        );
        assert!(
            error("SELECT 1 FROM t extra words")
                .message()
                .contains("line 1, column 23")
        );
        assert!(
            error(&format!("SELECT {}1{}", "(".repeat(500), ")".repeat(500)))
                .message()
                .contains("nests deeper")
        );
    }
}
