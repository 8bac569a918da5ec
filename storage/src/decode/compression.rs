//! Messages that were compressed as a whole, each with a bound on what comes out.

use std::borrow::Cow;
use std::io::Read;

/// The largest window of a zstd frame, as a power of two.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;
/// How a stream in snappy's framing format begins.
const SNAPPY_FRAMES: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// How messages are compressed (`...decoder.prop.compression`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// They are not.
    #[default]
    None,
    /// gzip, of one or several members.
    Gzip,
    /// Frames of zstd.
    Zstd,
    /// LZ4's frame format.
    Lz4,
    /// Snappy, as one raw block or in its framing format.
    Snappy,
}

impl Compression {
    /// The compression of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "" | "none" | "pass_through" => Self::None,
            "gzip" => Self::Gzip,
            "zstd" | "zstandard" => Self::Zstd,
            "lz4" => Self::Lz4,
            "snappy" => Self::Snappy,
            _ => return None,
        })
    }

    /// A payload as it was before; at most `bytes_max` bytes.
    pub(super) fn undo(self, payload: &[u8], bytes_max: usize) -> Result<Cow<'_, [u8]>, String> {
        let out = match self {
            Self::None => return Ok(Cow::Borrowed(payload)),
            Self::Gzip => read(
                "gzip",
                flate2::read::MultiGzDecoder::new(payload),
                bytes_max,
            ),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(payload)
                    .and_then(|mut d| d.window_log_max(ZSTD_WINDOW_LOG_MAX).map(|()| d));
                match decoder {
                    Ok(decoder) => read("zstd", decoder, bytes_max),
                    Err(e) => Err(format!("not zstd: {e}")),
                }
            }
            // The decoder takes the end of the bytes for the end of the frame.
            Self::Lz4 if !has_end_mark(payload) => {
                Err("not lz4: the frame is cut short".to_owned())
            }
            Self::Lz4 => read(
                "lz4",
                lz4_flex::frame::FrameDecoder::new(payload),
                bytes_max,
            ),
            Self::Snappy if payload.starts_with(SNAPPY_FRAMES) => {
                read("snappy", snap::read::FrameDecoder::new(payload), bytes_max)
            }
            Self::Snappy => {
                let length =
                    snap::raw::decompress_len(payload).map_err(|e| format!("not snappy: {e}"))?;
                if length > bytes_max {
                    return Err(too_long(bytes_max));
                }
                let mut decoder = snap::raw::Decoder::new();
                (decoder.decompress_vec(payload)).map_err(|e| format!("not snappy: {e}"))
            }
        };
        out.map(Cow::Owned)
    }
}

/// Whether LZ4's frame ends with its mark, and the checksum that may follow.
fn has_end_mark(frame: &[u8]) -> bool {
    let has_checksum = frame.get(4).is_some_and(|flags| flags & 4 != 0);
    let end = frame.len().saturating_sub(if has_checksum { 4 } else { 0 });
    frame.get(..end).is_some_and(|f| f.ends_with(&[0; 4]))
}

fn too_long(bytes_max: usize) -> String {
    format!("the message is longer than the limit of {bytes_max} when it is decompressed")
}

fn read(name: &str, from: impl Read, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let limit = bytes_max as u64 + 1;
    (from.take(limit).read_to_end(&mut out)).map_err(|e| format!("not {name}: {e}"))?;
    match out.len() {
        0 => Err(format!(
            "not {name}: nothing is left when it is decompressed"
        )),
        length if length > bytes_max => Err(too_long(bytes_max)),
        _ => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn compressed(by: Compression, bytes: &[u8]) -> Vec<u8> {
        match by {
            Compression::None => bytes.to_vec(),
            Compression::Gzip => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                to.write_all(bytes).unwrap();
                to.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Compression::Lz4 => {
                let mut to = lz4_flex::frame::FrameEncoder::new(Vec::new());
                to.write_all(bytes).unwrap();
                to.finish().unwrap()
            }
            Compression::Snappy => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
        }
    }

    const ALL: [Compression; 4] = [
        Compression::Gzip,
        Compression::Zstd,
        Compression::Lz4,
        Compression::Snappy,
    ];

    #[test]
    fn what_was_compressed_comes_back_up_to_the_limit() {
        let bytes = b"abc".repeat(1_000);
        for by in ALL {
            let payload = compressed(by, &bytes);
            assert_ne!(payload, bytes, "{by:?}");
            assert_eq!(
                by.undo(&payload, bytes.len()).unwrap(),
                &bytes[..],
                "{by:?}"
            );
            let error = by.undo(&payload, bytes.len() - 1).unwrap_err();
            assert!(error.contains("limit of 2999 when"), "{by:?}: {error}");
        }
        let mut framed = snap::write::FrameEncoder::new(Vec::new());
        framed.write_all(&bytes).unwrap();
        let framed = framed.into_inner().unwrap();
        assert_eq!(
            Compression::Snappy.undo(&framed, 3_000).unwrap(),
            &bytes[..]
        );
        assert!(Compression::Snappy.undo(&framed, 2_999).is_err());
    }

    #[test]
    fn a_bomb_and_broken_bytes_are_refused() {
        let bomb = vec![0; 64 << 20];
        for by in ALL {
            let payload = compressed(by, &bomb);
            let error = by.undo(&payload, 1 << 20).unwrap_err();
            assert!(error.contains("longer than the limit"), "{by:?}: {error}");
            let good = compressed(by, b"some text that is some text");
            for end in 1..good.len() {
                assert!(by.undo(&good[..end], 100).is_err(), "{by:?} cut at {end}");
            }
            for at in 0..good.len() {
                let mut flipped = good.clone();
                flipped[at] ^= 0x40;
                // It may still read as something, but never beyond the limit.
                let _ = by.undo(&flipped, 100).map(|out| assert!(out.len() <= 100));
            }
        }
    }
}
