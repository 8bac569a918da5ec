//! Writes a segment file: sections one after the other, then directory and footer, then the name.

use super::{
    ALIGNMENT, ENTRY_BYTES, FOOTER_BYTES, FOOTER_MAGIC, FORMAT_VERSION, HEADER_BYTES, HEADER_MAGIC,
    SectionId, content_checksum,
};
use crate::environment::{DurableFile, Files, file_error};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strandline_proto::{Error, Result};

/// Files being written end like this; what a killed process left of them can be deleted.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Bytes gathered for one write.
const BUFFER_BYTES: usize = 1 << 20;

/// Distinguishes files that one process writes at the same time.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// A segment file in the making, under a temporary name beside its path; deleted when dropped unfinished.
pub(crate) struct SegmentFileWriter {
    files: Arc<dyn Files>,
    path: PathBuf,
    temporary: PathBuf,
    file: Arc<dyn DurableFile>,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    /// Bytes given, in the file or in the buffer.
    written: u64,
    header: [u8; HEADER_BYTES],
    directory: Vec<u8>,
    renamed: bool,
}

impl SegmentFileWriter {
    /// Starts a file that will stand at `path`.
    pub(crate) fn create(files: &Arc<dyn Files>, path: &Path, schema_version: u32) -> Result<Self> {
        let Some(file_name) = path.file_name() else {
            return Err(Error::invalid(format!(
                "{} is not the path of a file",
                path.display()
            )));
        };
        let mut name = OsString::from(file_name);
        name.push(format!(
            ".{}-{}{TEMPORARY_SUFFIX}",
            std::process::id(),
            NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed)
        ));
        let temporary = path.with_file_name(name);
        let file = files
            .open(&temporary)
            .map_err(|e| file_error("create", &temporary, &e))?;
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&HEADER_MAGIC);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&schema_version.to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        let mut writer = Self {
            files: Arc::clone(files),
            path: path.to_path_buf(),
            temporary,
            file,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            written: 0,
            header,
            directory: Vec::new(),
            renamed: false,
        };
        // A process that was killed may have left a file of this name.
        writer
            .file
            .set_len(0)
            .map_err(|e| file_error("create", &writer.temporary, &e))?;
        writer.write(&header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        self.written += bytes.len() as u64;
        if bytes.len() > BUFFER_BYTES {
            return self.put(bytes, self.written - bytes.len() as u64);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn put(&self, bytes: &[u8], position: u64) -> Result<()> {
        self.file
            .write_at(bytes, position)
            .map_err(|e| file_error("write", &self.temporary, &e))
    }

    fn flush(&mut self) -> Result<()> {
        self.put(&self.buffer, self.written - self.buffer.len() as u64)?;
        self.buffer.clear();
        Ok(())
    }

    fn align(&mut self) -> Result<()> {
        let beyond = (self.written % ALIGNMENT as u64) as usize;
        if beyond > 0 {
            self.write(&[0; ALIGNMENT][beyond..])?;
        }
        Ok(())
    }

    /// Appends a section.
    pub(crate) fn section(&mut self, id: SectionId, bytes: &[u8]) -> Result<()> {
        self.align()?;
        let mut entry = [0; ENTRY_BYTES];
        entry[..8].copy_from_slice(&self.written.to_le_bytes());
        entry[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        entry[16..20].copy_from_slice(&id.column.to_le_bytes());
        entry[20..22].copy_from_slice(&id.kind.to_le_bytes());
        entry[24..28].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
        self.directory.extend_from_slice(&entry);
        self.write(bytes)
    }

    /// Completes the file under its name and gives its size and checksum. It is not durable yet: what is kept of segments is
    /// what the deep store has.
    pub(crate) fn finish(mut self) -> Result<(u64, u64)> {
        self.align()?;
        let directory = std::mem::take(&mut self.directory);
        let directory_bytes = u32::try_from(directory.len())
            .map_err(|_| Error::exhausted("a segment has too many sections"))?;
        let mut footer = [0; FOOTER_BYTES];
        footer[..8].copy_from_slice(&self.written.to_le_bytes());
        footer[8..12].copy_from_slice(&directory_bytes.to_le_bytes());
        footer[12..16].copy_from_slice(&crc32c::crc32c(&directory).to_le_bytes());
        let crc = crc32c::crc32c(&footer[..20]);
        footer[20..24].copy_from_slice(&crc.to_le_bytes());
        footer[24..].copy_from_slice(&FOOTER_MAGIC);
        self.write(&directory)?;
        self.write(&footer)?;
        self.flush()?;
        self.files
            .rename(&self.temporary, &self.path)
            .map_err(|e| file_error("write", &self.path, &e))?;
        self.renamed = true;
        Ok((self.written, content_checksum(&self.header, &directory)))
    }
}

impl Drop for SegmentFileWriter {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing can be done about a failure here; the suffix marks the file as garbage.
            let _ = self.files.remove(&self.temporary);
        }
    }
}
