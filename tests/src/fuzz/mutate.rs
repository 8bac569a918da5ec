//! Changes of bytes, drawn by a seed: what a fuzzer does, without its feedback.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::ops::Range;

/// Pieces that parsers take for something.
const PIECES: [&[u8]; 28] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"-",
    b"1e999",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"''",
    b"(",
    b")",
    b" OR ",
    b"\n",
    b"\r\n",
    b"\xc3\x28",
    b"$[*]",
    b"CAST(n AS ",
    b"0x",
    b"%",
];

/// Draws mutations.
pub struct Mutator(StdRng);

impl Mutator {
    /// The same mutations for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// One of `seeds`, changed in a few places; `bytes_max` at most.
    pub fn draw(&mut self, seeds: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
        let random = &mut self.0;
        let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
        // One change more often than many.
        let more = random.random_range(0..=4);
        for _ in 0..=random.random_range(0..=more) {
            let at = random.random_range(0..=bytes.len());
            let end = (at + random.random_range(0..=16)).min(bytes.len());
            match random.random_range(0..11) {
                0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
                2 if at < bytes.len() => bytes[at] = random.random(),
                3 => drop(bytes.drain(at..end)),
                4 if random.random_range(0..4) == 0 => bytes.truncate(at),
                5 => {
                    let piece = PIECES[random.random_range(0..PIECES.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                6 => {
                    let other = &seeds[random.random_range(0..seeds.len())];
                    let from = random.random_range(0..=other.len());
                    let to = (from + random.random_range(0..=64)).min(other.len());
                    bytes.splice(at..end, other[from..to].iter().copied());
                }
                // One word for another: what texts are made of.
                7..=9 => {
                    let other = &seeds[random.random_range(0..seeds.len())];
                    let from = random.random_range(0..=other.len());
                    let (word, new) = (word(&bytes, at), word(other, from));
                    bytes.splice(word, other[new].iter().copied());
                }
                _ => {
                    let again = bytes[at..end].to_vec();
                    let times = random.random_range(1..=8);
                    bytes.splice(at..at, again.repeat(times));
                }
            }
        }
        bytes.truncate(bytes_max);
        bytes
    }
}

/// The letters and digits around a place.
fn word(bytes: &[u8], at: usize) -> Range<usize> {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric();
    let before = bytes[..at].iter().rev().take_while(is_part).count();
    let behind = bytes[at..].iter().take_while(is_part).count();
    at - before..at + behind
}
