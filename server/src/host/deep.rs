//! Segment files in a local folder: `<folder>/<table>/<segment>.seg`.

use std::path::{Path, PathBuf};
use strandline_proto::Result;
use strandline_proto::ids::SegmentName;
use strandline_storage::environment::{Environment, blocking, file_error};

/// A folder of segment files.
pub struct DeepStore {
    root: PathBuf,
    environment: Environment,
}

impl DeepStore {
    /// A store in `root`.
    pub fn local_folder(root: &Path, environment: Environment) -> Result<Self> {
        environment
            .files
            .create_dir(root)
            .map_err(|e| file_error("create", root, &e))?;
        Ok(Self {
            root: root.to_owned(),
            environment,
        })
    }

    fn path(&self, table: &str, name: &SegmentName) -> PathBuf {
        self.root.join(table).join(format!("{name}.seg"))
    }

    /// Copies or moves `from` into the store, durably.
    pub async fn put(&self, table: &str, name: &SegmentName, from: &Path) -> Result<()> {
        let (files, to, from) = (
            self.environment.files.clone(),
            self.path(table, name),
            from.to_owned(),
        );
        blocking(&self.environment.spawner, "put segment", move || {
            let dir = to.parent().map(Path::to_owned).unwrap_or_default();
            files
                .create_dir(&dir)
                .map_err(|e| file_error("create", &dir, &e))?;
            let temporary = to.with_extension("tmp");
            std::fs::copy(&from, &temporary).map_err(|e| file_error("write", &temporary, &e))?;
            files
                .publish(&temporary, &to)
                .map_err(|e| file_error("write", &to, &e))
        })
        .await
    }

    /// Where the file can be mapped.
    pub async fn local(&self, table: &str, name: &SegmentName) -> Result<PathBuf> {
        Ok(self.path(table, name))
    }

    /// Removes a file.
    pub async fn delete(&self, table: &str, name: &SegmentName) -> Result<()> {
        let path = self.path(table, name);
        self.environment
            .files
            .remove(&path)
            .map_err(|e| file_error("remove", &path, &e))
    }

    /// All files, as table and segment.
    pub async fn list(&self) -> Result<Vec<(String, SegmentName)>> {
        let mut all = Vec::new();
        let list = |dir: &Path| {
            self.environment
                .files
                .list(dir)
                .map_err(|e| file_error("list", dir, &e))
        };
        for table in list(&self.root)?.into_iter().filter(|p| p.is_dir()) {
            for file in list(&table)? {
                if let (Some(table), Some(name), Some("seg")) = (
                    table.file_name().and_then(|n| n.to_str()),
                    file.file_stem().and_then(|n| n.to_str()),
                    file.extension().and_then(|e| e.to_str()),
                ) {
                    all.push((table.to_owned(), SegmentName::new(name)));
                } else {
                    let _ = self.environment.files.remove(&file);
                }
            }
        }
        Ok(all)
    }
}
