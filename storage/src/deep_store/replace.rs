//! Another file in the place of a stored one.

use super::{Content, read_chunk};
use crate::environment::{Files, file_error};
use std::fs::File;
use std::path::{Path, PathBuf};
use strandline_proto::{Error, Result};

/// Puts a copy of `from` in the place of the file `to`; blocks. The copy is on disk before it takes that place: the metastore may
/// name it already, and nobody syncs it any more once the process has ended.
pub(super) fn replace(files: &dyn Files, from: &Path, to: &Path, content: Content) -> Result<()> {
    let mut name = to.as_os_str().to_owned();
    // Swept like what uploads leave.
    name.push("#new");
    let temporary = PathBuf::from(name);
    let failed = |e| file_error("write", &temporary, &e);
    let target = files.open(&temporary).map_err(failed)?;
    target.set_len(0).map_err(failed)?;
    let mut source = File::open(from).map_err(|e| file_error("open", from, &e))?;
    let (mut position, mut crc) = (0, 0);
    loop {
        let (rest, chunk) = read_chunk(source, from)?;
        if chunk.is_empty() {
            break;
        }
        target.write_at(&chunk, position).map_err(failed)?;
        crc = crc32c::crc32c_append(crc, &chunk);
        position += chunk.len() as u64;
        source = rest;
    }
    if (position, crc) != (content.bytes, content.crc) {
        return Err(Error::precondition(format!(
            "{}: the file changed while it was being stored",
            from.display()
        )));
    }
    files
        .publish(&temporary, to)
        .map_err(|e| file_error("replace", to, &e))
}
