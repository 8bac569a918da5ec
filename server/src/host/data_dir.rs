//! The data folder: its parts, and the lock that keeps a second process out.

use fs4::fs_std::FileExt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use strandline_proto::{Error, Result};

/// A data folder held by this process until it is dropped.
///
/// ```text
/// LOCK         the holder's process id; locked while the process lives
/// meta.sqlite  the metastore
/// deep/        the deep store, when it is local: one file a segment
/// log/         the embedded log
/// keys/        the keys of rows, made again of segments when it is missing
/// staging/     files in the making; emptied at every start
/// spill/       what queries write when memory is short; emptied at every start
/// ```
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder where it is missing and takes it.
    ///
    /// # Errors
    /// `FailedPrecondition` when another process holds it.
    pub fn open(root: &Path) -> Result<Self> {
        let refuse = |what: &str, e: std::io::Error| {
            Error::precondition(format!(
                "data folder {}: cannot {what}: {e}",
                root.display()
            ))
        };
        let is_new = !root.exists();
        std::fs::create_dir_all(root).map_err(|e| refuse("create it", e))?;
        if is_new && let Some(above) = root.parent() {
            // Where that folder can't be opened, its owner has to see to it.
            let _ = File::open(above).and_then(|above| above.sync_all());
        }
        let path = root.join("LOCK");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| refuse("open its LOCK file", e))?;
        if !lock
            .try_lock_exclusive()
            .map_err(|e| refuse("lock it", e))?
        {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            return Err(Error::precondition(format!(
                "data folder {} is in use by process {}: stop that process, or give another folder with --data",
                root.display(),
                if holder.trim().is_empty() {
                    "(unknown)"
                } else {
                    holder.trim()
                },
            )));
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(|e| refuse("write its LOCK file", e))?;
        let dir = Self {
            root: root.to_owned(),
            _lock: lock,
        };
        for emptied in [dir.staging(), dir.spill()] {
            if emptied.exists() {
                std::fs::remove_dir_all(&emptied)
                    .map_err(|e| refuse("empty its staging folder", e))?;
            }
            std::fs::create_dir_all(&emptied).map_err(|e| refuse("make its staging folder", e))?;
        }
        for kept in [dir.deep(), dir.log()] {
            std::fs::create_dir_all(&kept).map_err(|e| refuse("make its folders", e))?;
        }
        Ok(dir)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The metastore's file.
    pub fn metastore(&self) -> PathBuf {
        self.root.join("meta.sqlite")
    }

    /// The local deep store.
    pub fn deep(&self) -> PathBuf {
        self.root.join("deep")
    }

    /// The embedded log.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The keys of tables' rows.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// Files in the making.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// What queries spill.
    pub fn spill(&self) -> PathBuf {
        self.root.join("spill")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(
            refused
                .message()
                .contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(held);
        DataDir::open(dir.path()).unwrap();
    }
}
