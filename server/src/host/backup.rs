//! Backups while the server runs, copies of the metastore beside the segments, and a metastore made again of such a copy.
//!
//! The deep store holds, beside the segments, the newest copies of the metastore that names them. A segment's file is removed
//! only when a copy that does not name it is there, so that a lost metastore can be made again of the newest copy: what was
//! read from streams since is read again, and what was pushed since is told.

use super::data_dir::DataDir;
use super::registry::Registry;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use strandline_broker::transport::CatalogSource;
use strandline_proto::ids::{CatalogVersion, Half, SegmentName};
use strandline_proto::{Error, ErrorKind, Result};
use strandline_storage::archive;
use strandline_storage::backup::{Manifest, Unfinished};
use strandline_storage::deep_store::DeepStore;
use strandline_storage::environment::{Environment, blocking, file_error};
use strandline_storage::meta::Metastore;
use strandline_storage::meta::sql::SqlMetastore;
use strandline_storage::segment::immutable::ImmutableSegment;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Where copies of the metastore are, in the deep store's folder: no table's name begins with a dot.
const COPIES: &str = ".metastore";
/// Copies that are kept.
const COPIES_KEPT: usize = 2;
/// The least time between two copies, and how many times as long as a copy takes.
const PERIOD: Duration = Duration::from_secs(1);
const REST_FACTOR: u32 = 20;
/// How often the last copy is tried again, and the pause between two attempts.
const LAST_ATTEMPTS: u32 = 5;
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// How often a backup begins again when segments go under it.
const ATTEMPTS_MAX: u32 = 10;

/// What a backup is made of.
pub struct Backups {
    /// The metastore.
    pub metastore: Arc<SqlMetastore>,
    /// Keeps what snapshots name.
    pub registry: Arc<Registry>,
    /// The segments.
    pub deep_store: Arc<DeepStore>,
    /// Folders of the data.
    pub deep: PathBuf,
    /// The embedded log's.
    pub log: PathBuf,
    /// Where backups go.
    pub root: PathBuf,
    /// Time, tasks.
    pub environment: Environment,
}

impl Backups {
    /// Makes a backup; gives its folder and what it holds.
    ///
    /// # Errors
    /// When it can't be written, or there is one of this name; nothing is left of it then.
    pub async fn make(&self, name: &str) -> Result<(PathBuf, Manifest)> {
        let mut attempt = 1;
        loop {
            match self.try_make(name).await {
                Err(e) if e.kind() == ErrorKind::SegmentGone && attempt < ATTEMPTS_MAX => {
                    attempt += 1;
                }
                made => return made,
            }
        }
    }

    async fn try_make(&self, name: &str) -> Result<(PathBuf, Manifest)> {
        let mut backup = Unfinished::begin(&self.root, name)?;
        // Keeps the segments that it names, and with them nearly all that the copy will.
        let _named = self.registry.snapshot();
        let copy = backup.place("meta.sqlite")?;
        self.metastore.copy_to(&copy).await?;
        let Named {
            version, contents, ..
        } = named_by(&copy, &self.environment).await?;
        let mut files = Vec::with_capacity(contents.len());
        for (table, segment, checksum) in contents {
            let path = self
                .deep_store
                .local_path(&table, &segment, checksum)
                .await?;
            let path = path.ok_or_else(|| {
                Error::segment_gone(format!("segment {segment} of table {table} went meanwhile"))
            })?;
            files.push(path);
        }
        let (deep, log) = (self.deep.clone(), self.log.clone());
        let now_ms = self.environment.clock.now_ms();
        blocking(&self.environment.spawner, "backup", move || {
            backup.note("meta.sqlite")?;
            // After the metastore: what it has committed is archived by now.
            archived(&deep.join(archive::FOLDER), &mut files)?;
            for file in files {
                let inside = file.strip_prefix(&deep).map_err(|_| {
                    Error::internal(format!("{} is not in the deep store", file.display()))
                })?;
                let path = format!("deep/{}", inside.to_string_lossy());
                backup
                    .take(&file, &path, true)
                    .map_err(|e| match e.kind() {
                        ErrorKind::NotFound => Error::segment_gone(e.message()),
                        _ => e,
                    })?;
            }
            // After the metastore: all that it has read is in the log by now.
            backup.take_folder(&log, "log")?;
            backup.finish(version.0, now_ms)
        })
        .await
    }
}

/// Adds the objects of the archive below a folder; those that are still being written are not among them.
fn archived(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |e: std::io::Error| file_error("list", folder, &e);
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            archived(&path, files)?;
        } else if path.to_string_lossy().ends_with(archive::ENDING) {
            files.push(path);
        }
    }
    Ok(())
}

/// A segment's table, name and checksum.
type Content = (String, SegmentName, u64);

/// The segments that a copy of the metastore knows.
struct Named {
    version: CatalogVersion,
    /// Those of tables, and what pushes replaced and is kept.
    contents: Vec<Content>,
    /// Those that are gone, whose files may still be there.
    removed: Vec<Content>,
}

/// The catalog version of a copy of the metastore, and all segments that it names or keeps.
async fn named_by(copy: &Path, environment: &Environment) -> Result<Named> {
    let metastore = SqlMetastore::open(copy, Arc::clone(&environment.clock)).await?;
    let state = metastore.state().await;
    let kept = metastore.kept_pushes().await;
    let removed = metastore.removed_segments().await;
    metastore.close().await;
    let (state, kept) = (state?, kept?);
    let named = state.tables.iter().flat_map(|table| {
        let of_table = table.segments.iter();
        of_table.map(|s| (table.name.clone(), s.name.clone(), s.checksum))
    });
    let kept = kept.iter().flat_map(|push| {
        let of_push = push.segments.iter();
        of_push.map(|s| (push.table.clone(), s.name.clone(), s.checksum))
    });
    let contents = named.chain(kept).collect();
    let removed = removed?.into_iter();
    let removed = removed.map(|r| (r.table, r.segment.name, r.segment.checksum));
    for ending in ["-wal", "-shm"] {
        let mut path = copy.as_os_str().to_owned();
        path.push(ending);
        let _ = std::fs::remove_file(PathBuf::from(path));
    }
    Ok(Named {
        version: state.version,
        contents,
        removed: removed.collect(),
    })
}

/// Keeps copies of the metastore beside the segments.
pub struct MetastoreCopies {
    metastore: Arc<SqlMetastore>,
    folder: PathBuf,
    environment: Environment,
    copied: watch::Sender<CatalogVersion>,
}

impl MetastoreCopies {
    /// Copies of `metastore` in the folder of a deep store; none is made until it is run.
    pub fn new(metastore: Arc<SqlMetastore>, deep: &Path, environment: Environment) -> Self {
        Self {
            metastore,
            folder: deep.join(COPIES),
            environment,
            copied: watch::Sender::new(CatalogVersion(0)),
        }
    }

    /// The version of the newest copy; changes can be waited for.
    pub fn copied(&self) -> watch::Receiver<CatalogVersion> {
        self.copied.subscribe()
    }

    /// Copies what has changed until it is stopped, and once more then.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let begun = self.environment.clock.monotonic();
            let is_last = stop.is_cancelled();
            let mut is_copied = self.copy_if_changed().await;
            if is_last {
                // What hinders it may be over in a moment.
                for _ in 0..LAST_ATTEMPTS {
                    if is_copied {
                        break;
                    }
                    self.environment.clock.sleep(LAST_PAUSE).await;
                    is_copied = self.copy_if_changed().await;
                }
                return;
            }
            let took = self.environment.clock.monotonic().saturating_sub(begun);
            let rest = PERIOD.max(took.saturating_mul(REST_FACTOR));
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.environment.clock.sleep(rest) => {}
            }
        }
    }

    /// Whether the newest copy is as the metastore is now.
    async fn copy_if_changed(&self) -> bool {
        let copied = match self.metastore.state().await {
            Ok(state) if state.version == *self.copied.borrow() => return true,
            Ok(state) => self.copy(state.version).await,
            Err(e) => Err(e),
        };
        match copied {
            Ok(version) => {
                self.copied.send_replace(version);
                true
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot copy the metastore beside the segments; it is tried again");
                false
            }
        }
    }

    /// Makes a copy that is of `version` or newer.
    async fn copy(&self, version: CatalogVersion) -> Result<CatalogVersion> {
        let (folder, files) = (self.folder.clone(), Arc::clone(&self.environment.files));
        let temporary = folder.join("unfinished");
        let prepared = temporary.clone();
        blocking(&self.environment.spawner, "copy metastore", move || {
            let made = std::fs::create_dir_all(&folder).and_then(|()| match prepared.exists() {
                true => std::fs::remove_file(&prepared),
                false => Ok(()),
            });
            made.map_err(|e| file_error("make the folder", &folder, &e))
        })
        .await?;
        self.metastore.copy_to(&temporary).await?;
        let folder = self.folder.clone();
        blocking(&self.environment.spawner, "copy metastore", move || {
            let target = folder.join(format!("{:020}.sqlite", version.0));
            files
                .publish(&temporary, &target)
                .map_err(|e| file_error("publish", &target, &e))?;
            let copies = copies(&folder);
            for old in copies.iter().rev().skip(COPIES_KEPT) {
                files
                    .remove(old)
                    .map_err(|e| file_error("remove", old, &e))?;
            }
            Ok(version)
        })
        .await
    }
}

/// Copies of a metastore, oldest first.
fn copies(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "sqlite"))
        .collect();
    found.sort();
    found
}

/// What a metastore that was made again knows.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// The catalog version of the copy that it was made of.
    pub version: u64,
    /// Its tables.
    pub tables: Vec<String>,
    /// Segments that it names.
    pub segments: usize,
    /// Segments that it names and that are not in the deep store.
    pub missing: Vec<String>,
    /// Offline segments in the deep store that it does not name: they were pushed after the copy, and were put aside here.
    pub aside: Vec<PathBuf>,
}

/// Makes the metastore of a data folder again of the newest copy that is beside its segments.
///
/// # Errors
/// `FailedPrecondition` when there is a metastore, or another process holds the folder; `NotFound` without a copy.
pub async fn rebuild(data: &Path, environment: Environment) -> Result<Rebuilt> {
    if !data.is_dir() {
        return Err(Error::not_found(format!("no folder {}", data.display())));
    }
    let dir = DataDir::open(data)?;
    if dir.metastore().exists() {
        return Err(Error::precondition(format!(
            "{} is there: move it, with its -wal and -shm files, out of the way first",
            dir.metastore().display()
        )));
    }
    for ending in ["-wal", "-shm"] {
        let mut path = dir.metastore().into_os_string();
        path.push(ending);
        let _ = std::fs::remove_file(PathBuf::from(path));
    }
    let mut failed = Error::not_found(format!(
        "{} holds no copy of the metastore: restore a backup",
        dir.deep().join(COPIES).display()
    ));
    for copy in copies(&dir.deep().join(COPIES)).into_iter().rev() {
        match use_copy(&dir, &copy, &environment).await {
            Ok(rebuilt) => return Ok(rebuilt),
            // An older one may be whole.
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

async fn use_copy(dir: &DataDir, copy: &Path, environment: &Environment) -> Result<Rebuilt> {
    let candidate = dir.staging().join("meta.sqlite");
    std::fs::copy(copy, &candidate).map_err(|e| file_error("copy", copy, &e))?;
    let Named {
        version,
        contents,
        removed,
    } = named_by(&candidate, environment).await?;
    let deep_store = DeepStore::local(&dir.deep(), environment.clone()).await?;
    let mut rebuilt = Rebuilt {
        version: version.0,
        segments: contents.len(),
        ..Rebuilt::default()
    };
    for (table, segment, checksum) in &contents {
        if !rebuilt.tables.contains(table) {
            rebuilt.tables.push(table.clone());
        }
        if deep_store
            .local_path(table, segment, *checksum)
            .await?
            .is_none()
        {
            rebuilt.missing.push(format!("{table}/{segment}"));
        }
    }
    let stored = deep_store.list_all().await?;
    // What it removed goes at the next start.
    let named: HashSet<&Content> = contents.iter().chain(&removed).collect();
    let unnamed = stored
        .into_iter()
        .filter(|(table, s)| !named.contains(&(table.clone(), s.name.clone(), s.checksum)));
    for (table, segment) in unnamed {
        let path = deep_store
            .local_path(&table, &segment.name, segment.checksum)
            .await?;
        let Some(path) = path else { continue };
        // What came from a stream is read again.
        let opened = ImmutableSegment::open(&path);
        if !opened.is_ok_and(|s| s.info().half == Half::Offline) {
            continue;
        }
        let target = dir.root().join("unnamed").join(&table);
        let file = target.join(format!("{}.seg", segment.name));
        std::fs::create_dir_all(&target)
            .and_then(|()| std::fs::rename(&path, &file))
            .map_err(|e| file_error("move", &path, &e))?;
        rebuilt.aside.push(file);
    }
    environment
        .files
        .publish(&candidate, &dir.metastore())
        .map_err(|e| file_error("publish", &dir.metastore(), &e))?;
    Ok(rebuilt)
}

#[cfg(test)]
mod tests;
