//! The file operations whose durability commits depend on, so that their failures can be rehearsed.
//!
//! All of them block. A path is durable once the file *and* the folder that names it were synced.

use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_proto::{Error, ErrorKind};

/// Durable operations on files and folders. What several steps make durable is made of single ones here, in one order for
/// all file systems.
pub trait Files: Send + Sync {
    /// Makes `path` hold exactly `bytes`, durably, or leaves what was there: writes a temporary file beside it,
    /// syncs, renames, syncs the folder.
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let written = self.open(&temporary).and_then(|file| {
            file.set_len(0)?;
            file.write_at(bytes, 0)
        });
        let written = written.and_then(|()| self.publish(&temporary, path));
        if written.is_err() {
            // The first error is the one to tell; a leftover is overwritten by the next attempt.
            let _ = self.remove(&temporary);
        }
        written
    }
    /// Syncs the finished file `from`, renames it to `to` (same file system) and syncs the folder of `to`.
    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.sync_file(from)?;
        self.rename(from, to)?;
        self.sync_dir(parent(to))
    }
    /// Creates a folder and those above it, durably. One that exists is made durable: who made it may have been killed
    /// before it was.
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return self.sync_dir(parent(dir));
        }
        let above = parent(dir);
        if above != dir {
            self.create_dir(above)?;
        }
        match self.make_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => {
                return Err(error);
            }
            _ => {}
        }
        self.sync_dir(above)
    }
    /// Makes the content of a finished file durable; an error where there is none.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Renames the finished file `from` to `to` (same file system). What is durable of it is up to who needs it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives the file `from` the further name `to`; an error where that is taken, or on another file system.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a folder's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a folder in one that is there; not durable yet.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes a file. One that is not there is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// A file's bytes.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A folder's entries, in the order of their names. A folder that is not there is an error.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Opens a file for reading and writing at positions; creates it when it is not there.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DurableFile>>;
}

/// An open file, read and written at positions by any number of threads.
pub trait DurableFile: Send + Sync {
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills as much of `buffer` as the file holds from `position`; gives the bytes read.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `position`. After an error any part of them may be there.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file's content and length durable. After an error nothing is known of what was
    /// written since the last success, and calling it again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Default)]
pub struct RealFiles;

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

impl Files for RealFiles {
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries = std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort_unstable();
        Ok(entries)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DurableFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }
}

struct RealFile(File);

impl DurableFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.0.write_all_at(bytes, position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Which operation a fault is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileOperation {
    /// [`Files::write_durable`].
    WriteDurable,
    /// [`Files::publish`].
    Publish,
    /// [`Files::sync_file`].
    SyncFile,
    /// [`Files::rename`].
    Rename,
    /// [`Files::link`].
    Link,
    /// [`Files::sync_dir`].
    SyncDir,
    /// [`Files::create_dir`].
    CreateDir,
    /// [`Files::make_dir`].
    MakeDir,
    /// [`Files::remove`].
    Remove,
    /// [`Files::read`].
    Read,
    /// [`Files::list`].
    List,
    /// [`Files::open`].
    Open,
    /// [`DurableFile::read_at`].
    ReadAt,
    /// [`DurableFile::write_at`]: half of the bytes are written before the error.
    WriteAt,
    /// [`DurableFile::set_len`].
    SetLen,
    /// [`DurableFile::sync`].
    Sync,
}

type Fault = Box<dyn FnMut(FileOperation, &Path) -> Option<io::Error> + Send>;

/// A file system that fails where a test says so.
#[derive(Clone)]
pub struct FaultyFiles {
    inner: Arc<dyn Files>,
    fault: Arc<Mutex<Fault>>,
}

impl FaultyFiles {
    /// `inner`, without faults yet.
    pub fn new(inner: Arc<dyn Files>) -> Self {
        Self {
            inner,
            fault: Arc::new(Mutex::new(Box::new(|_, _| None))),
        }
    }

    /// From now on an operation fails when `fault` gives an error for it.
    pub fn set(
        &self,
        fault: impl FnMut(FileOperation, &Path) -> Option<io::Error> + Send + 'static,
    ) {
        *self.fault.lock() = Box::new(fault);
    }

    /// No faults from now on.
    pub fn clear(&self) {
        self.set(|_, _| None);
    }

    fn check(&self, operation: FileOperation, path: &Path) -> io::Result<()> {
        (self.fault.lock())(operation, path).map_or(Ok(()), Err)
    }
}

impl Files for FaultyFiles {
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.check(FileOperation::WriteDurable, path)?;
        self.inner.write_durable(path, bytes)
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(FileOperation::Publish, to)?;
        self.inner.publish(from, to)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.check(FileOperation::SyncFile, path)?;
        self.inner.sync_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(FileOperation::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(FileOperation::Link, to)?;
        self.inner.link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(FileOperation::SyncDir, dir)?;
        self.inner.sync_dir(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(FileOperation::CreateDir, dir)?;
        self.inner.create_dir(dir)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.check(FileOperation::MakeDir, dir)?;
        self.inner.make_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(FileOperation::Remove, path)?;
        self.inner.remove(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.check(FileOperation::Read, path)?;
        self.inner.read(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.check(FileOperation::List, dir)?;
        self.inner.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DurableFile>> {
        self.check(FileOperation::Open, path)?;
        let inner = self.inner.open(path)?;
        Ok(Arc::new(FaultyFile {
            inner,
            files: self.clone(),
            path: path.to_owned(),
        }))
    }
}

struct FaultyFile {
    inner: Arc<dyn DurableFile>,
    files: FaultyFiles,
    path: PathBuf,
}

impl DurableFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.files.check(FileOperation::ReadAt, &self.path)?;
        self.inner.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        if let Err(error) = self.files.check(FileOperation::WriteAt, &self.path) {
            self.inner
                .write_at(bytes.get(..bytes.len() / 2).unwrap_or_default(), position)?;
            return Err(error);
        }
        self.inner.write_at(bytes, position)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.files.check(FileOperation::SetLen, &self.path)?;
        self.inner.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.files.check(FileOperation::Sync, &self.path)?;
        self.inner.sync()
    }
}

/// The error that users meet when doing `action` (`"write"`, `"open"`) with the file at `path` failed.
pub fn file_error(action: &str, path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::ResourceExhausted
        }
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory => ErrorKind::FailedPrecondition,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::DataLoss,
        _ => ErrorKind::Unavailable,
    };
    let remedy = match kind {
        ErrorKind::ResourceExhausted => "; free disk space and try again",
        ErrorKind::FailedPrecondition => "; check the path and its permissions",
        _ => "",
    };
    Error::new(
        kind,
        format!("can't {action} {}: {error}{remedy}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_write_replaces_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let files = FaultyFiles::new(Arc::new(RealFiles));
        let path = dir.path().join("a/b/file");
        files.create_dir(path.parent().unwrap()).unwrap();
        files.write_durable(&path, b"one").unwrap();
        files.set(|op, _| {
            (op == FileOperation::WriteDurable).then(|| io::Error::from(io::ErrorKind::StorageFull))
        });
        let error = files.write_durable(&path, b"two").unwrap_err();
        assert_eq!(
            file_error("write", &path, &error).kind(),
            ErrorKind::ResourceExhausted
        );
        files.clear();
        assert_eq!(files.read(&path).unwrap(), b"one");
        assert_eq!(
            files.list(path.parent().unwrap()).unwrap(),
            std::slice::from_ref(&path)
        );
        files.remove(&path).unwrap();
        files.remove(&path).unwrap();
    }
}
