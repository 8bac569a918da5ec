//! Little-endian fields of stored bytes, read with bounds.

use crate::reader::IndexError;

/// An error about stored bytes.
pub(crate) fn corrupt(what: impl Into<String>) -> IndexError {
    IndexError(what.into())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], IndexError> {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end))
        .and_then(|field| field.try_into().ok())
        .ok_or_else(|| {
            corrupt(format!(
                "stored bytes end at {} within a field at {at}",
                bytes.len()
            ))
        })
}

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Result<u8, IndexError> {
    array::<1>(bytes, at).map(|[b]| b)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, IndexError> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, IndexError> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// A length or offset stored as u64.
pub(crate) fn size_at(bytes: &[u8], at: usize) -> Result<usize, IndexError> {
    u64_at(bytes, at)?
        .try_into()
        .map_err(|_| corrupt("a stored length is beyond this machine's address space"))
}

/// The bytes `at..at + len`.
pub(crate) fn part(
    bytes: &bytes::Bytes,
    at: usize,
    len: usize,
) -> Result<bytes::Bytes, IndexError> {
    match at.checked_add(len) {
        Some(end) if end <= bytes.len() => Ok(bytes.slice(at..end)),
        _ => Err(corrupt(format!(
            "stored bytes end at {}, {len} were expected at {at}",
            bytes.len()
        ))),
    }
}
