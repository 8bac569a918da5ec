//! One CSV record a message (`CSVMessageDecoder`).
//!
//! The names of the fields come from the property `header`, or else from the message's first line. An empty field is null.
//! One record is what a message holds: a second one is an error, so that no row is passed over.

use crate::convert::Cell;
use std::borrow::Cow;

/// Fields of a record.
const FIELDS_MAX: usize = 16_384;

/// How records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvRecordFormat {
    /// Names of the fields; none when the first line of each message names them.
    pub header: Option<Vec<String>>,
    /// Between two fields.
    pub delimiter: u8,
    /// Around a field that holds a delimiter, a line's end, or itself doubled.
    pub quote: Option<u8>,
    /// Before a character that stands for itself.
    pub escape: Option<u8>,
    /// Between the elements of a multi-value column.
    pub element_delimiter: char,
    /// The field's text that stands for null, besides none.
    pub null: Option<String>,
}

impl Default for CsvRecordFormat {
    fn default() -> Self {
        Self {
            header: None,
            delimiter: b',',
            quote: Some(b'"'),
            escape: None,
            element_delimiter: ';',
            null: None,
        }
    }
}

/// A field's name and its text.
pub(super) type Named<'m> = (Cow<'m, str>, Cow<'m, str>);

impl CsvRecordFormat {
    /// A message's fields by name.
    pub(super) fn read<'m>(&'m self, text: &'m str) -> Result<Vec<Named<'m>>, String> {
        let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut first = Vec::new();
        let names: Vec<Cow<'m, str>> = match &self.header {
            Some(names) => names.iter().map(|n| Cow::Borrowed(n.as_str())).collect(),
            None => {
                rest = self.record(rest, &mut first)?;
                (first.drain(..))
                    .map(|name| Cow::Owned(name.trim().to_owned()))
                    .collect()
            }
        };
        if rest.trim().is_empty() {
            return Err("the message has no record behind its header".to_owned());
        }
        let mut fields = Vec::with_capacity(names.len());
        let after = self.record(rest, &mut fields)?;
        if !after.trim_matches(['\r', '\n']).is_empty() {
            return Err("the message holds more than one record; send one a message".to_owned());
        }
        if fields.len() != names.len() {
            return Err(format!(
                "the record has {} fields, the header {}",
                fields.len(),
                names.len()
            ));
        }
        Ok(names.into_iter().zip(fields).collect())
    }

    /// A field's text as a cell.
    pub(super) fn cell<'m>(&self, field: Cow<'m, str>, multi_value: bool) -> Cell<'m> {
        if field.is_empty() || self.null.as_deref() == Some(&*field) {
            return Cell::Null;
        }
        if !multi_value {
            return Cell::Text(field);
        }
        let elements = field.split(self.element_delimiter);
        Cell::List(
            elements
                .map(|e| Cell::Text(Cow::Owned(e.to_owned())))
                .collect(),
        )
    }

    /// Reads one record, and gives what is behind its line.
    fn record<'m>(&self, text: &'m str, out: &mut Vec<Cow<'m, str>>) -> Result<&'m str, String> {
        let bytes = text.as_bytes();
        let mut at = 0;
        loop {
            let (field, end) = match bytes.get(at) {
                Some(byte) if self.quote == Some(*byte) => self.quoted(text, at)?,
                _ => self.plain(text, at),
            };
            out.push(field);
            if out.len() > FIELDS_MAX {
                return Err(format!("the record has more than {FIELDS_MAX} fields"));
            }
            let behind = |length: usize| text.get(end + length..).unwrap_or_default();
            match (bytes.get(end), bytes.get(end + 1)) {
                (Some(byte), _) if *byte == self.delimiter => at = end + 1,
                (Some(b'\r'), Some(b'\n')) => return Ok(behind(2)),
                (Some(b'\n'), _) => return Ok(behind(1)),
                (None, _) | (Some(b'\r'), None) => return Ok(""),
                _ => {
                    return Err(format!(
                        "field {}: text behind the closing quote",
                        out.len()
                    ));
                }
            }
        }
    }

    /// A field in quotes that begins at `at`, and where it ends.
    fn quoted<'m>(&self, text: &'m str, at: usize) -> Result<(Cow<'m, str>, usize), String> {
        let mut out = String::new();
        let (mut from, mut at) = (at + 1, at + 1);
        let bytes = text.as_bytes();
        loop {
            let byte = *bytes.get(at).ok_or("a quote is not closed")?;
            if Some(byte) == self.quote {
                out.push_str(text.get(from..at).unwrap_or_default());
                if bytes.get(at + 1) != Some(&byte) {
                    return Ok((Cow::Owned(out), at + 1));
                }
                (from, at) = (at + 1, at + 2);
            } else if Some(byte) == self.escape {
                out.push_str(text.get(from..at).unwrap_or_default());
                // The next character stands for itself, whatever it is.
                (from, at) = (at + 1, at + 2);
            } else {
                at += 1;
            }
        }
    }

    /// A field without quotes that begins at `at`, and where it ends.
    fn plain<'m>(&self, text: &'m str, start: usize) -> (Cow<'m, str>, usize) {
        let bytes = text.as_bytes();
        let (mut at, mut from, mut out) = (start, start, String::new());
        let mut escaped = false;
        while let Some(byte) = bytes.get(at) {
            if *byte == self.delimiter || *byte == b'\n' {
                break;
            }
            if *byte == b'\r' && matches!(bytes.get(at + 1), None | Some(b'\n')) {
                break;
            }
            if Some(*byte) == self.escape && at + 1 < bytes.len() {
                out.push_str(text.get(from..at).unwrap_or_default());
                (escaped, from, at) = (true, at + 1, at + 2);
            } else {
                at += 1;
            }
        }
        let raw = text.get(start..at).unwrap_or_default();
        // `\\N` stands for null before its escape is taken away.
        if !escaped || self.null.as_deref() == Some(raw) {
            return (Cow::Borrowed(raw), at);
        }
        out.push_str(text.get(from..at).unwrap_or_default());
        (Cow::Owned(out), at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &CsvRecordFormat, text: &str) -> Result<Vec<(String, String)>, String> {
        let fields = format.read(text)?;
        Ok(fields
            .into_iter()
            .map(|(n, v)| (n.into_owned(), v.into_owned()))
            .collect())
    }

    fn with_header(names: &[&str]) -> CsvRecordFormat {
        CsvRecordFormat {
            header: Some(names.iter().map(|n| (*n).to_owned()).collect()),
            ..CsvRecordFormat::default()
        }
    }

    fn values(format: &CsvRecordFormat, text: &str) -> Result<Vec<String>, String> {
        Ok(read(format, text)?.into_iter().map(|(_, v)| v).collect())
    }

    #[test]
    fn records_are_read_with_quotes_escapes_and_ends_of_lines() {
        let two = with_header(&["a", "b"]);
        for (text, expected) in [
            ("1,2", ["1", "2"]),
            ("1,2\n", ["1", "2"]),
            ("1,2\r\n", ["1", "2"]),
            ("1,2\r", ["1", "2"]),
            (",", ["", ""]),
            ("\"x,\"\"y\"\"\nz\",é", ["x,\"y\"\nz", "é"]),
            ("a\"b,\"\"", ["a\"b", ""]),
            ("1\r2,3", ["1\r2", "3"]),
        ] {
            assert_eq!(
                values(&two, text).as_deref(),
                Ok(&expected.map(str::to_owned)[..]),
                "{text:?}"
            );
        }
        for (text, part) in [
            ("1", "has 1 fields, the header 2"),
            ("1,2,3", "has 3 fields, the header 2"),
            ("1,2\n3,4", "more than one record"),
            ("\"1,2", "quote is not closed"),
            ("\"1\"x,2", "text behind the closing quote"),
            ("", "no record"),
            ("\n", "no record"),
        ] {
            let error = values(&two, text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_first_line_names_the_fields_where_no_header_is_given() {
        let format = CsvRecordFormat::default();
        let read = |text| read(&format, text);
        let expected = vec![
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "2".to_owned()),
        ];
        assert_eq!(read("\u{feff}a, b\n1,2\n"), Ok(expected));
        assert!(
            read("a,b\n")
                .unwrap_err()
                .contains("no record behind its header")
        );
    }

    #[test]
    fn tabs_escapes_and_nulls_are_as_mysql_writes_them() {
        let format = CsvRecordFormat {
            delimiter: b'\t',
            quote: None,
            escape: Some(b'\\'),
            null: Some("\\N".to_owned()),
            ..with_header(&["a", "b", "c"])
        };
        let fields = format.read("x\\\ty\t\\N\t\"é\\é").unwrap();
        let cells: Vec<Cell<'_>> = (fields.into_iter())
            .map(|(_, field)| format.cell(field, false))
            .collect();
        let text = |t: &'static str| Cell::Text(t.into());
        assert_eq!(cells, [text("x\ty"), Cell::Null, text("\"éé")]);
        let list = CsvRecordFormat::default().cell("a;b".into(), true);
        assert_eq!(list, Cell::List(vec![text("a"), text("b")]));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_panics(
            fields in proptest::collection::vec("[a,\"\n\r\\\\é ;]{0,6}", 1..5), odd in "[a,\"\n\r\\\\é]{0,20}", escape in proptest::prelude::any::<bool>(),
        ) {
            let format = CsvRecordFormat {
                header: Some(fields.iter().map(|_| "x".to_owned()).collect()),
                escape: escape.then_some(b'\\'),
                ..CsvRecordFormat::default()
            };
            let quoted = |f: &String| {
                let f = if escape { f.replace('\\', "\\\\") } else { f.clone() };
                format!("\"{}\"", f.replace('"', "\"\""))
            };
            let line = fields.iter().map(quoted).collect::<Vec<_>>().join(",");
            proptest::prop_assert_eq!(values(&format, &line), Ok(fields));
            let _ = values(&format, &odd);
            let _ = values(&CsvRecordFormat::default(), &odd);
        }
    }
}
