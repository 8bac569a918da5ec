//! Copies of a data folder: made while it is used, checked file by file, and brought back.
//!
//! ```text
//! <backup>/
//!   backup.json    what it holds: each file with its length and CRC32C; written last
//!   meta.sqlite    the metastore at one version
//!   deep/          the segments that it names, and all of the archive
//!   log/           the embedded log, at least as far as the metastore has read it
//! ```
//! A folder without `backup.json`, or whose name begins with a dot, is one that was not finished.

use crate::environment::file_error;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use strandline_proto::{Error, Result};

/// The list of files.
pub const MANIFEST: &str = "backup.json";
const FORMAT: u32 = 1;
const CHUNK_BYTES: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The catalog version.
    pub version: u64,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: i64,
    /// Its files.
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Where it is in the folder, with `/`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// CRC32C of its content.
    pub crc32c: u32,
}

impl Manifest {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }
}

/// A backup in the making; removed when it is dropped unfinished.
pub struct Unfinished {
    temporary: PathBuf,
    target: PathBuf,
    files: Vec<BackupFile>,
    finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

impl Unfinished {
    /// Begins a backup `name` in the folder `root`.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no file name, `AlreadyExists` when there is one of this name.
    pub fn begin(root: &Path, name: &str) -> Result<Self> {
        let is_plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if name.is_empty() || name.len() > 200 || name.starts_with('.') || !is_plain {
            return Err(Error::invalid(format!(
                "{name:?} can't name a backup: use letters, digits, '-', '_' and '.', not beginning with '.'"
            )));
        }
        let target = root.join(name);
        if target.exists() {
            return Err(Error::already_exists(format!(
                "there is a backup {}: give another name, or remove it",
                target.display()
            )));
        }
        let temporary = root.join(format!(".{name}.unfinished"));
        let begun = fs::remove_dir_all(&temporary).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(e),
        });
        begun
            .and_then(|()| fs::create_dir_all(&temporary))
            .map_err(|e| file_error("make the folder", &temporary, &e))?;
        Ok(Self {
            temporary,
            target,
            files: Vec::new(),
            finished: false,
        })
    }

    /// Where a file of it goes, with the folders made.
    ///
    /// # Errors
    /// When these can't be made.
    pub fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.temporary.join(path);
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(|e| file_error("make the folder", folder, &e))?;
        }
        Ok(place)
    }

    /// Takes a file in: under another name where nobody writes to it any more and the file system can, else as a copy. The
    /// file is read once.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    pub fn take(&mut self, from: &Path, path: &str, may_link: bool) -> Result<()> {
        let to = self.place(path)?;
        if !(may_link && fs::hard_link(from, &to).is_ok()) {
            let mut source = File::open(from).map_err(|e| file_error("open", from, &e))?;
            let mut target = File::create(&to).map_err(|e| file_error("make", &to, &e))?;
            io::copy(&mut source, &mut target)
                .and_then(|_| target.sync_all())
                .map_err(|e| file_error("write", &to, &e))?;
        }
        self.note(path)
    }

    /// Takes in all files below a folder, as copies.
    ///
    /// # Errors
    /// When one can't be read or written.
    pub fn take_folder(&mut self, from: &Path, path: &str) -> Result<()> {
        let entries = fs::read_dir(from).map_err(|e| file_error("list", from, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e| file_error("list", from, &e))?;
            let path = format!("{path}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                self.take_folder(&entry.path(), &path)?;
            } else {
                self.take(&entry.path(), &path, false)?;
            }
        }
        Ok(())
    }

    /// Notes a file that was put in its place.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn note(&mut self, path: &str) -> Result<()> {
        let (bytes, crc32c) = checksum(&self.temporary.join(path))?;
        self.files.push(BackupFile {
            path: path.to_owned(),
            bytes,
            crc32c,
        });
        Ok(())
    }

    /// Makes the backup whole and durable, under its name.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self, version: u64, created_ms: i64) -> Result<(PathBuf, Manifest)> {
        let manifest = Manifest {
            format: FORMAT,
            version,
            created_ms,
            files: std::mem::take(&mut self.files),
        };
        let path = self.temporary.join(MANIFEST);
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::internal(format!("{}: {e}", path.display())))?;
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&json)?;
            file.sync_all()
        });
        written
            .and_then(|()| sync_folders(&self.temporary))
            .and_then(|()| fs::rename(&self.temporary, &self.target))
            .and_then(|()| sync_folder(self.target.parent().unwrap_or(&self.target)))
            .map_err(|e| file_error("finish", &self.target, &e))?;
        self.finished = true;
        Ok((self.target.clone(), manifest))
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_folders(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    sync_folder(path)
}

/// Length and CRC32C of a file.
fn checksum(path: &Path) -> Result<(u64, u32)> {
    let failed = |e: io::Error| file_error("read", path, &e);
    let mut file = File::open(path).map_err(failed)?;
    let (mut bytes, mut crc) = (0, 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut chunk).map_err(failed)?;
        if read == 0 {
            return Ok((bytes, crc));
        }
        bytes += read as u64;
        crc = crc32c::crc32c_append(crc, chunk.get(..read).unwrap_or_default());
    }
}

/// Reads what a backup says it holds.
///
/// # Errors
/// `NotFound` without a list of files, `DataLoss` when it can't be read, `FailedPrecondition` when a newer version wrote it.
pub fn read(backup: &Path) -> Result<Manifest> {
    let path = backup.join(MANIFEST);
    let text = fs::read(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!(
            "{} is no finished backup: it has no {MANIFEST}",
            backup.display()
        )),
        _ => file_error("read", &path, &e),
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|e| Error::data_loss(format!("{}: {e}", path.display())))?;
    if manifest.format > FORMAT {
        return Err(Error::precondition(format!(
            "{}: a newer version of Strandline made this backup; use that version",
            path.display()
        )));
    }
    Ok(manifest)
}

/// Makes a data folder of a backup. The folder must not be there, or be empty; it is there whole or not at all.
///
/// # Errors
/// `DataLoss` when a file is not what the backup says, `FailedPrecondition` when the folder holds something.
pub fn restore(backup: &Path, data: &Path) -> Result<Manifest> {
    let manifest = read(backup)?;
    let is_taken = fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_some());
    if is_taken || (data.exists() && !data.is_dir()) {
        return Err(Error::precondition(format!(
            "{} is not empty: restore into another folder",
            data.display()
        )));
    }
    let mut name = data.as_os_str().to_owned();
    name.push(".restoring");
    let temporary = PathBuf::from(name);
    let outcome = copy(backup, &manifest, &temporary).and_then(|()| {
        let moved = sync_folders(&temporary)
            .and_then(|()| match data.exists() {
                true => fs::remove_dir(data),
                false => Ok(()),
            })
            .and_then(|()| fs::rename(&temporary, data));
        moved.map_err(|e| file_error("finish", data, &e))
    });
    if outcome.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    outcome.map(|()| manifest)
}

fn copy(backup: &Path, manifest: &Manifest, to: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).map_err(|e| file_error("make the folder", to, &e))?;
    for file in &manifest.files {
        let path = Path::new(&file.path);
        let is_inside = path.components().all(|c| matches!(c, Component::Normal(_)));
        if !is_inside {
            return Err(Error::data_loss(format!(
                "{}: the path {:?} leads out of the backup",
                backup.display(),
                file.path
            )));
        }
        let (from, target) = (backup.join(path), to.join(path));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|e| file_error("make the folder", folder, &e))?;
        }
        fs::copy(&from, &target)
            .and_then(|_| File::open(&target)?.sync_all())
            .map_err(|e| file_error("copy", &from, &e))?;
        if checksum(&target)? != (file.bytes, file.crc32c) {
            return Err(Error::data_loss(format!(
                "{} is damaged: it is not the file that the backup says; use another backup",
                from.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_proto::ErrorKind;

    fn backup(root: &Path) -> PathBuf {
        let source = root.join("source");
        fs::create_dir_all(source.join("log/t/0")).unwrap();
        fs::write(source.join("a"), "segment").unwrap();
        fs::write(source.join("log/t/0/file"), vec![7; 3_000_000]).unwrap();
        let mut unfinished = Unfinished::begin(root, "one").unwrap();
        unfinished
            .take(&source.join("a"), "deep/t/a/x", true)
            .unwrap();
        unfinished.take_folder(&source.join("log"), "log").unwrap();
        let (folder, manifest) = unfinished.finish(5, 9).unwrap();
        assert_eq!((manifest.files.len(), manifest.bytes()), (2, 3_000_007));
        assert_eq!(read(&folder).unwrap(), manifest);
        folder
    }

    #[test]
    fn what_was_backed_up_is_restored_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let folder = backup(root.path());
        let data = root.path().join("data");
        fs::create_dir(&data).unwrap();
        restore(&folder, &data).unwrap();
        assert_eq!(fs::read(data.join("deep/t/a/x")).unwrap(), b"segment");
        assert_eq!(
            fs::read(data.join("log/t/0/file")).unwrap().len(),
            3_000_000
        );
        let again = restore(&folder, &data).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::FailedPrecondition);
        let other = root.path().join("other");
        fs::write(folder.join("log/t/0/file"), vec![8; 3_000_000]).unwrap();
        let damaged = restore(&folder, &other).unwrap_err();
        assert_eq!(damaged.kind(), ErrorKind::DataLoss);
        fs::remove_file(folder.join("log/t/0/file")).unwrap();
        assert!(restore(&folder, &other).is_err() && !other.exists());
        assert!(!root.path().join("other.restoring").exists());
        fs::remove_file(folder.join(MANIFEST)).unwrap();
        assert_eq!(
            restore(&folder, &other).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn names_paths_and_leftovers_are_checked() {
        let root = tempfile::tempdir().unwrap();
        for wrong in ["", ".x", "a/b", "..", "a b"] {
            assert!(Unfinished::begin(root.path(), wrong).is_err(), "{wrong}");
        }
        let folder = backup(root.path());
        assert!(Unfinished::begin(root.path(), "one").is_err());
        drop(Unfinished::begin(root.path(), "two").unwrap());
        assert!(!root.path().join(".two.unfinished").exists());
        let text = fs::read_to_string(folder.join(MANIFEST)).unwrap();
        fs::write(folder.join(MANIFEST), text.replace("deep/t/a/x", "../x")).unwrap();
        let error = restore(&folder, &root.path().join("data")).unwrap_err();
        assert!(error.message().contains("leads out"), "{error}");
    }
}
