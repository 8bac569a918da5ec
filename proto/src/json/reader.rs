//! Reads JSON text without building a tree: whoever reads takes the tokens one by one, borrowed from the text, and
//! skips what it does not need. All of the text is checked against RFC 8259, also where it is skipped.

use std::borrow::Cow;

/// Nesting of objects and arrays.
pub const DEPTH_MAX: usize = 128;

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub struct JsonReader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// A JSON number as it is written: `digits * 10^-scale`, or less than nothing by as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainNumber {
    /// Whether a minus comes first, also before a zero.
    pub is_negative: bool,
    /// All digits, as one whole number below 10^18.
    pub digits: u64,
    /// How many of them stand behind the point.
    pub scale: usize,
}

impl PlainNumber {
    /// Digits of a number.
    const DIGITS_MAX: usize = 18;

    /// It as a whole number; none when it has a point.
    #[inline]
    pub fn integer(self) -> Option<i64> {
        let value = i64::try_from(self.digits)
            .ok()
            .filter(|_| self.scale == 0)?;
        Some(if self.is_negative { -value } else { value })
    }

    /// The nearest double, with the sign of a zero; none when it takes more than one exact step to find it.
    #[inline]
    pub fn double(self) -> Option<f64> {
        // Both are exact as they are, so that the quotient is rounded once.
        if self.digits > 1 << 53 {
            return None;
        }
        let value = self.digits as f64 / POWERS_OF_TEN.get(self.scale)?;
        Some(if self.is_negative { -value } else { value })
    }

    /// The nearest float, as [`Self::double`].
    #[inline]
    pub fn float(self) -> Option<f32> {
        // The first powers of ten are exact as floats as well.
        if self.digits > 1 << 24 || self.scale > 10 {
            return None;
        }
        let value = self.digits as f32 / *POWERS_OF_TEN.get(self.scale)? as f32;
        Some(if self.is_negative { -value } else { value })
    }
}

/// Powers of ten that doubles hold exactly.
const POWERS_OF_TEN: [f64; PlainNumber::DIGITS_MAX + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

/// Whether the text is one JSON document.
///
/// # Errors
/// What is wrong with it, and at which byte.
pub fn check(text: &str) -> Result<(), String> {
    let mut reader = JsonReader::new(text);
    reader.skip_value(0)?;
    reader.end()
}

impl<'a> JsonReader<'a> {
    /// A reader at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    /// The next byte, spaces included.
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// An error about what comes next.
    pub fn wrong(&self, what: &str) -> String {
        match self.peek() {
            Some(_) => format!("not JSON: {what} at byte {}", self.at),
            None => format!("not JSON: {what}, found the end at byte {}", self.at),
        }
    }

    /// Moves past spaces.
    #[inline]
    pub fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    /// The text from `start` to here. Both are on character boundaries: they stand beside ASCII.
    #[inline]
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Where the next byte stands.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether exactly this comes next; moves past it then.
    #[inline]
    pub fn skips(&mut self, text: &str) -> bool {
        let text = text.as_bytes();
        let next = self.bytes.get(self.at..self.at + text.len());
        let is_next = next.is_some_and(|next| same(next, text));
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    /// Moves past the next byte.
    #[inline]
    pub fn step(&mut self) {
        self.at += 1;
    }

    /// Checks that only spaces are left.
    pub fn end(&mut self) -> Result<(), String> {
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("unexpected text after the document")),
        }
    }

    /// Right behind the opening bracket: whether `close` comes next; moves past it.
    pub fn is_first_end(&mut self, close: u8) -> bool {
        self.skip_space();
        let ends = self.peek() == Some(close);
        self.at += usize::from(ends);
        ends
    }

    /// Behind a member: whether `close` comes next and not a comma; moves past either.
    #[inline]
    pub fn is_end(&mut self, close: u8) -> Result<bool, String> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(false)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.wrong(&format!("expected ',' or '{}'", char::from(close)))),
        }
    }

    /// A field's name and the colon after it.
    pub fn key(&mut self) -> Result<Cow<'a, str>, String> {
        self.skip_space();
        if self.peek() != Some(b'"') {
            return Err(self.wrong("expected a field name in quotes"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.wrong("expected ':'"));
        }
        self.at += 1;
        Ok(key)
    }

    /// Moves past the word, `true`, `false` or `null`.
    pub fn word(&mut self, word: &str) -> Result<(), String> {
        if self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            self.at += word.len();
            return Ok(());
        }
        Err(self.wrong("expected a value"))
    }

    /// Moves to the next quote or backslash of a string.
    #[inline]
    fn skip_plain(&mut self) -> Result<u8, String> {
        self.at += plain_len(self.bytes.get(self.at..).unwrap_or_default());
        match self.peek() {
            Some(byte @ (b'"' | b'\\')) => Ok(byte),
            Some(_) => Err(self.wrong("a control character inside of a string")),
            None => Err(self.wrong("a string is not closed")),
        }
    }

    /// The string that begins here.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>, String> {
        self.at += 1;
        let start = self.at;
        if self.skip_plain()? == b'"' {
            let plain = self.since(start);
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut out = self.since(start).to_owned();
        loop {
            let plain = self.at;
            let stop = self.skip_plain()?;
            out.push_str(self.since(plain));
            if stop == b'"' {
                self.at += 1;
                return Ok(Cow::Owned(out));
            }
            out.push(self.escape()?);
        }
    }

    /// The string that begins here, when it is one without escapes; moves past it then, and stays otherwise.
    #[inline]
    pub fn plain_string(&mut self) -> Option<&'a str> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let start = self.at + 1;
        let end = start + plain_len(self.bytes.get(start..).unwrap_or_default());
        if self.bytes.get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        self.text.get(start..end)
    }

    /// The number that begins here, when it is one without an exponent and of few digits; moves past it then, and stays otherwise.
    #[inline]
    pub fn plain_number(&mut self) -> Option<PlainNumber> {
        let mut at = self.at;
        let is_negative = self.bytes.get(at) == Some(&b'-');
        at += usize::from(is_negative);
        let start = at;
        let digit = |at: usize| match self.bytes.get(at) {
            Some(byte @ b'0'..=b'9') => Some(u64::from(byte - b'0')),
            _ => None,
        };
        // Wraps where there are more digits than are taken.
        let mut digits = 0_u64;
        while let Some(next) = digit(at) {
            digits = digits.wrapping_mul(10).wrapping_add(next);
            at += 1;
        }
        let whole = at - start;
        if whole == 0 || (whole > 1 && digit(start) == Some(0)) {
            return None;
        }
        let mut scale = 0;
        if self.bytes.get(at) == Some(&b'.') {
            let point = at;
            at += 1;
            while let Some(next) = digit(at) {
                digits = digits.wrapping_mul(10).wrapping_add(next);
                at += 1;
            }
            scale = at - point - 1;
            if scale == 0 {
                return None;
            }
        }
        if whole + scale > PlainNumber::DIGITS_MAX
            || matches!(self.bytes.get(at), Some(b'e' | b'E'))
        {
            return None;
        }
        self.at = at;
        Some(PlainNumber {
            is_negative,
            digits,
            scale,
        })
    }

    fn escape(&mut self) -> Result<char, String> {
        let escape = self.bytes.get(self.at + 1).copied();
        let plain = match escape {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.hex4(self.at + 2)?;
                self.at += 6;
                if !(0xd800..0xe000).contains(&first) {
                    return char::from_u32(first).ok_or_else(|| self.wrong("a wrong \\u escape"));
                }
                let low = match self.bytes.get(self.at..self.at + 2) {
                    Some(b"\\u") if first < 0xdc00 => self.hex4(self.at + 2)?,
                    _ => return Err(self.wrong("half of a surrogate pair")),
                };
                if !(0xdc00..0xe000).contains(&low) {
                    return Err(self.wrong("half of a surrogate pair"));
                }
                self.at += 6;
                let code = 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(code).ok_or_else(|| self.wrong("a wrong \\u escape"));
            }
            _ => return Err(self.wrong("a wrong escape")),
        };
        self.at += 2;
        Ok(plain)
    }

    fn hex4(&self, at: usize) -> Result<u32, String> {
        let digits = self
            .bytes
            .get(at..at + 4)
            .filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        digits
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u32::from_str_radix(d, 16).ok())
            .ok_or_else(|| self.wrong("a wrong \\u escape"))
    }

    fn skip_digits(&mut self) -> Result<(), String> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.wrong("expected a digit"))
        } else {
            Ok(())
        }
    }

    /// Moves past the number that begins here.
    pub fn skip_number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.wrong("a number with a leading zero"));
            }
        } else {
            self.skip_digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), String> {
        self.at += 1;
        while self.skip_plain()? == b'\\' {
            self.escape()?;
        }
        self.at += 1;
        Ok(())
    }

    /// Moves past the value that comes next, which stands `depth` deep.
    pub fn skip_value(&mut self, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!(
                "not supported: JSON nested more than {DEPTH_MAX} deep"
            ));
        }
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.skip_string(),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            Some(b'{') => {
                self.at += 1;
                if self.is_first_end(b'}') {
                    return Ok(());
                }
                loop {
                    self.skip_space();
                    if self.peek() != Some(b'"') {
                        return Err(self.wrong("expected a field name in quotes"));
                    }
                    self.skip_string()?;
                    self.skip_space();
                    if self.peek() != Some(b':') {
                        return Err(self.wrong("expected ':'"));
                    }
                    self.at += 1;
                    self.skip_value(depth + 1)?;
                    if self.is_end(b'}')? {
                        return Ok(());
                    }
                }
            }
            Some(b'[') => {
                self.at += 1;
                if self.is_first_end(b']') {
                    return Ok(());
                }
                loop {
                    self.skip_value(depth + 1)?;
                    if self.is_end(b']')? {
                        return Ok(());
                    }
                }
            }
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(self.wrong("expected a value")),
        }
    }
}

/// Whether two pieces of one length are equal: short ones are looked at as one or two words.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N])> {
        Some((*bytes.first_chunk()?, *bytes.last_chunk()?))
    }
    match a.len() {
        4..=8 => ends::<4>(a) == ends::<4>(b),
        9..=16 => ends::<8>(a) == ends::<8>(b),
        _ => a == b,
    }
}

/// How many bytes come before the first quote, backslash or control character; eight are looked at at once.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = 0;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * u64::from(b'"'));
        let backslash = word ^ (ONES * u64::from(b'\\'));
        // The lowest bit set stands for the first such byte; those above may be false.
        let stops = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        if stops & HIGH != 0 {
            return at + (stops & HIGH).trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + rest
        .iter()
        .position(|b| matches!(b, b'"' | b'\\' | 0..0x20))
        .unwrap_or(rest.len())
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
