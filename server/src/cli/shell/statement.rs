//! Cutting text into statements: a `;` ends one unless it stands in quotes or a comment.

/// Takes the first complete statement off `text`, without its `;`.
pub(super) fn take_statement(text: &mut String) -> Option<String> {
    let end = end_of_statement(text)?;
    let rest = text.split_off(end + 1);
    let mut statement = std::mem::replace(text, rest);
    statement.pop();
    Some(statement)
}

/// Where the first `;` outside of quotes and comments stands.
fn end_of_statement(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        match (character, next) {
            (';', _) => return Some(at),
            // A doubled quote closes and opens again, which comes to the same.
            (quote @ ('\'' | '"'), _) => {
                characters.by_ref().find(|(_, c)| *c == quote)?;
            }
            ('-', Some('-')) => {
                characters.by_ref().find(|(_, c)| *c == '\n')?;
            }
            ('/', Some('*')) => {
                characters.next();
                let mut depth = 1;
                let mut before = ' ';
                while depth > 0 {
                    let (_, c) = characters.next()?;
                    (depth, before) = match (before, c) {
                        ('*', '/') => (depth - 1, ' '),
                        ('/', '*') => (depth + 1, ' '),
                        _ => (depth, c),
                    };
                }
            }
            _ => {}
        }
    }
    None
}

/// Whether there is nothing but spaces and comments.
pub(super) fn is_blank(text: &str) -> bool {
    let text = text.trim_start();
    match text.strip_prefix("--") {
        Some(comment) => comment
            .split_once('\n')
            .is_none_or(|(_, rest)| is_blank(rest)),
        None => text.is_empty(),
    }
}

/// The name and value of `SET name = value`, which the shell keeps and sends with each statement.
pub(super) fn set_option(sql: &str) -> Option<(String, String)> {
    let sql = sql.trim();
    let rest = sql
        .get(..3)
        .filter(|word| word.eq_ignore_ascii_case("set"))
        .and_then(|_| sql.get(3..))?;
    let (name, value) = rest.strip_prefix(char::is_whitespace)?.split_once('=')?;
    let name = name.trim().trim_matches('"');
    let value = value.trim();
    let value = value
        .strip_prefix('\'')
        .and_then(|v| v.strip_suffix('\''))
        .unwrap_or(value);
    let plain = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '.');
    plain.then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(text: &str) -> (Vec<String>, String) {
        let mut rest = text.to_owned();
        let mut all = Vec::new();
        while let Some(statement) = take_statement(&mut rest) {
            all.push(statement);
        }
        (all, rest)
    }

    #[test]
    fn semicolons_in_quotes_and_comments_end_nothing() {
        let text = "SELECT ';''' || \"a;b\" -- one; two\n/* ; /* ; */ */;SELECT 2; SELECT 'open;";
        let (all, rest) = statements(text);
        assert_eq!(
            all,
            [
                "SELECT ';''' || \"a;b\" -- one; two\n/* ; /* ; */ */",
                "SELECT 2"
            ]
        );
        assert_eq!(rest, " SELECT 'open;");
    }

    #[test]
    fn a_comment_alone_is_blank() {
        assert!(is_blank("  -- nothing\n\n -- here"));
        assert!(!is_blank("-- first\nSELECT 1"));
    }

    #[test]
    fn set_is_read_in_its_spellings() {
        assert_eq!(
            set_option("SET usePlanCache = 'off'"),
            Some(("usePlanCache".into(), "off".into()))
        );
        assert_eq!(
            set_option("set timeoutMs=5"),
            Some(("timeoutMs".into(), "5".into()))
        );
        assert_eq!(set_option("SETTINGS = 1"), None);
        assert_eq!(set_option("SELECT 1"), None);
    }
}
