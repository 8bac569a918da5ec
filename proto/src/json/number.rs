//! JSON numbers as texts: the one text of each number, and their exact order.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Digits before the point up to which a number is written without an exponent.
const PLAIN_MAX: i64 = 21;
/// Zeros behind the point from which on a number is written with an exponent.
const ZEROS_MAX: i64 = 6;

/// A number of any size: its sign and `0.digits` times ten to the power `point`.
///
/// Exponents beyond 64 bits count as the largest ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Number {
    negative: bool,
    /// ASCII digits without zeros at either end; empty: zero.
    digits: Vec<u8>,
    point: i64,
}

impl Number {
    /// The number that `text` writes as JSON does; none when it is another text.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (unsigned.get(..at)?, Some(unsigned.get(at + 1..)?)),
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole)
            || whole.len() > 1 && whole.starts_with('0')
            || fraction.is_some_and(|f| !all_digits(f))
        {
            return None;
        }
        let shift = exponent.map_or(Some(0), parse_exponent)?;
        let mut digits: Vec<u8> = whole
            .bytes()
            .chain(fraction.unwrap_or("").bytes())
            .collect();
        let zeros = digits.iter().take_while(|&&d| d == b'0').count();
        digits.drain(..zeros);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits,
                point: 0,
            });
        }
        let point = (whole.len() as i64 - zeros as i64).saturating_add(shift);
        Some(Self {
            negative,
            digits,
            point,
        })
    }

    /// The number's one text: without needless zeros or signs, with an exponent where it is very large or small.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if self.digits.is_empty() {
            return "0".to_owned();
        }
        if self.negative {
            out.push('-');
        }
        let digits = self.digits.iter().map(|&d| char::from(d));
        let count = self.digits.len() as i64;
        if 0 < self.point && self.point <= PLAIN_MAX {
            let whole = self.point as usize;
            out.extend(digits.clone().take(whole));
            out.extend(std::iter::repeat_n(
                '0',
                (self.point - count).max(0) as usize,
            ));
            if count > self.point {
                out.push('.');
                out.extend(digits.skip(whole));
            }
        } else if -ZEROS_MAX < self.point && self.point <= 0 {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', -self.point as usize));
            out.extend(digits);
        } else {
            out.extend(digits.clone().take(1));
            if count > 1 {
                out.push('.');
                out.extend(digits.skip(1));
            }
            out.push_str(&format!("e{}", self.point.saturating_sub(1)));
        }
        out
    }
}

fn parse_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse().unwrap_or(i64::MAX);
    Some(if negative { -size } else { size })
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| match (n.digits.is_empty(), n.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let by_size = || (self.point, &self.digits).cmp(&(other.point, &other.digits));
        match sign(self).cmp(&sign(other)) {
            Ordering::Equal if sign(self) < 0 => by_size().reverse(),
            Ordering::Equal if sign(self) > 0 => by_size(),
            unequal => unequal,
        }
    }
}

/// The one text of the number that a JSON document writes as `text`: `1.50` and `15e-1` are `1.5`.
pub fn canonical(text: &str) -> Cow<'_, str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.len() as i64 <= PLAIN_MAX && digits.bytes().all(|b| b.is_ascii_digit());
    if plain && text != "-0" {
        return Cow::Borrowed(text);
    }
    match Number::parse(text) {
        Some(number) => Cow::Owned(number.text()),
        None => Cow::Borrowed(text),
    }
}
