//! Files on their way in: written under `staging/` of the data folder, loaded from there, then removed.
//!
//! *Invariant*: nothing in `staging/` outlives the request that wrote it, nor a restart of the server.

use std::path::{Component, Path, PathBuf};
use strandline_proto::{Error, Result};
use strandline_storage::environment::file_error;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

/// Bytes of a file name.
const NAME_BYTES_MAX: usize = 200;
/// Files in one upload.
const FILES_MAX: usize = 10_000;

/// The folder for incoming files.
#[derive(Clone, Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
    bytes_max: u64,
}

impl Staging {
    /// Opens the folder and removes what an earlier run left in it.
    pub(crate) fn open(dir: PathBuf, bytes_max: u64) -> Result<Self> {
        let wrong = |error: std::io::Error| file_error("empty the staging folder", &dir, &error);
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(wrong(error)),
            _ => std::fs::create_dir_all(&dir).map_err(wrong)?,
        }
        Ok(Self { dir, bytes_max })
    }

    /// Begins one upload.
    pub(crate) async fn begin(&self) -> Result<Stage> {
        let dir = self.dir.join(uuid::Uuid::new_v4().to_string());
        tokio::fs::create_dir(&dir)
            .await
            .map_err(|error| file_error("make the staging folder", &dir, &error))?;
        Ok(Stage {
            dir,
            files: Vec::new(),
            current: None,
            bytes: 0,
            bytes_max: self.bytes_max,
        })
    }
}

/// One upload's files; removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Stage {
    dir: PathBuf,
    files: Vec<PathBuf>,
    current: Option<File>,
    bytes: u64,
    bytes_max: u64,
}

impl Stage {
    /// Begins the next file. The name is a client's: only a plain file name is taken.
    pub(crate) async fn file(&mut self, name: &str) -> Result<()> {
        self.close().await?;
        let path = self.dir.join(plain_name(name)?);
        if self.files.contains(&path) {
            return Err(Error::invalid(format!(
                "file \"{name}\" is in the upload twice; give each file its own name"
            )));
        }
        if self.files.len() == FILES_MAX {
            return Err(Error::exhausted(format!(
                "an upload has at most {FILES_MAX} files; push the rest separately"
            )));
        }
        self.current = Some(
            File::create_new(&path)
                .await
                .map_err(|error| refused(&path, &error))?,
        );
        self.files.push(path);
        Ok(())
    }

    /// Appends bytes to the current file.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let path = self.files.last().cloned().unwrap_or_default();
        let Some(file) = &mut self.current else {
            return Err(Error::invalid("bytes arrived before the name of a file"));
        };
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.bytes_max {
            return Err(Error::exhausted(format!(
                "the upload is larger than the {} bytes this server takes (upload_bytes_max); split it, or let the server read the files with Load",
                self.bytes_max
            )));
        }
        file.write_all(bytes)
            .await
            .map_err(|error| refused(&path, &error))
    }

    async fn close(&mut self) -> Result<()> {
        if let Some(mut file) = self.current.take() {
            let path = self.files.last().cloned().unwrap_or_default();
            file.flush().await.map_err(|error| refused(&path, &error))?;
        }
        Ok(())
    }

    /// Ends the upload and gives its files, at least one.
    pub(crate) async fn finish(&mut self) -> Result<Vec<PathBuf>> {
        self.close().await?;
        if self.files.is_empty() {
            return Err(Error::invalid("the upload has no file"));
        }
        Ok(self.files.clone())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            tracing::warn!(
                "staging folder {} stays until the next start: {error}",
                self.dir.display()
            );
        }
    }
}

fn refused(path: &Path, error: &std::io::Error) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    file_error("stage", path, error).at(format_args!("file \"{name}\""))
}

/// `name` when it is one plain component of a path.
fn plain_name(name: &str) -> Result<&str> {
    let mut components = Path::new(name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(one)), None) if one == name);
    if plain && name.len() <= NAME_BYTES_MAX && !name.contains(['/', '\\', '\0']) {
        return Ok(name);
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::invalid(format!(
        "\"{shown}\" is not a plain file name of at most {NAME_BYTES_MAX} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for wrong in [
            "",
            ".",
            "..",
            "../a",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "a/",
            "a\0b",
        ] {
            assert!(plain_name(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(plain_name("day 1.parquet").unwrap(), "day 1.parquet");
    }

    #[tokio::test]
    async fn a_stage_holds_its_limit_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::open(folder.path().join("staging"), 10).unwrap();
        let mut stage = staging.begin().await.unwrap();
        assert!(stage.write(b"x").await.is_err());
        stage.file("a.csv").await.unwrap();
        stage.write(b"12345").await.unwrap();
        assert!(stage.file("a.csv").await.is_err());
        stage.file("b.csv").await.unwrap();
        let error = stage.write(b"123456").await.unwrap_err();
        assert!(error.message().contains("upload_bytes_max"));
        drop(stage);
        assert_eq!(
            std::fs::read_dir(folder.path().join("staging"))
                .unwrap()
                .count(),
            0
        );
    }
}
