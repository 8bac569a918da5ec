//! The one place where a segment file is mapped into memory.

use memmap2::Mmap;
use std::fs::File;
use std::io;

/// Maps the whole of `file` for reading.
#[expect(
    unsafe_code,
    reason = "mapping a file is unsafe, and segments are read from their mapping"
)]
pub(super) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes under a mapping must not change. Segment files are written under a temporary
    // name, renamed once complete and from then on only opened for reading and unlinked, which leaves
    // mappings intact; the server holds the lock of its data directory. What changes them in spite of
    // that (an operator who truncates one) can stop the process but not make it answer from unchecked
    // offsets: all lengths were taken from the mapping and verified against it.
    unsafe { Mmap::map(file) }
}
