//! Exact decimals: 128-bit digits and a scale, read from text without going through a float.

/// Digits that an i128 surely holds.
const DIGITS_MAX: usize = 38;

/// Digits and scale of a number's text (`-12.50`, `1e-3`): trailing zeros after the point are dropped. None
/// when it is no number or has more than 38 digits.
pub(crate) fn parse(text: &str) -> Option<(i128, i32)> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (
            &rest[..at],
            rest[at + 1..]
                .parse::<i32>()
                .ok()
                .filter(|e| e.abs() < 10_000)?,
        ),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let mut unscaled: i128 = 0;
    let mut digits = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return None;
        }
        if digits > 0 || byte != b'0' {
            digits += 1;
        }
        if digits > DIGITS_MAX {
            return None;
        }
        unscaled = unscaled * 10 + i128::from(byte - b'0');
    }
    let scale = i32::try_from(fraction.len()).ok()? - exponent;
    Some((
        if negative { -unscaled } else { unscaled },
        if unscaled == 0 { 0 } else { scale },
    ))
}

/// `unscaled * 10^-from` as digits at scale `to`; none when digits would be lost or don't fit.
pub(crate) fn rescale(mut unscaled: i128, from: i32, to: i32) -> Option<i128> {
    if unscaled == 0 {
        return Some(0);
    }
    let mut at = from;
    while at > to {
        if unscaled % 10 != 0 {
            return None;
        }
        unscaled /= 10;
        at -= 1;
    }
    let up = u32::try_from(to - at).ok().filter(|up| *up <= 38)?;
    unscaled.checked_mul(10_i128.pow(up))
}

/// Whether the digits fit a precision.
pub(crate) fn fits(unscaled: i128, precision: u8) -> bool {
    10_u128
        .checked_pow(u32::from(precision))
        .is_none_or(|limit| unscaled.unsigned_abs() < limit)
}

/// The plain text, all digits of the scale written.
pub(crate) fn to_text(unscaled: i128, scale: i8) -> String {
    let digits = unscaled.unsigned_abs().to_string();
    let sign = if unscaled < 0 { "-" } else { "" };
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(scale) => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) if unscaled == 0 => "0".to_owned(),
        Err(_) => format!(
            "{sign}{digits}{}",
            "0".repeat(usize::from(scale.unsigned_abs()))
        ),
    }
}
