//! The deep store: where sealed and pushed segment files are kept, whichever server answers from them.
//!
//! Any object store serves; a folder by default. An object is named `<table>/<segment>/<checksum>-<crc32c>-<bytes>`:
//! the segment's own checksum, by which the metastore knows it, and CRC32C and length of the file, by which each
//! copy is checked on its way back without opening it. What was put is durable (in a folder: synced) when
//! [`DeepStore::put`] answers. Every operation may be repeated.

mod objects;
mod replace;
#[cfg(test)]
mod tests;

use crate::environment::{Environment, Files, blocking, file_error};
use bytes::Bytes;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::Poll;
use strandline_proto::ids::SegmentName;
use strandline_proto::{Error, ErrorKind, Result};

/// Bytes of a table's or segment's name at most.
pub const NAME_BYTES_MAX: usize = 200;
/// What is read, and uploaded as one part, at once. Object stores want parts of at least 5 MiB.
const CHUNK_BYTES: usize = 8 << 20;
/// Parts of one upload under way at once.
const PARTS_MAX: usize = 4;

/// A store of segment files.
#[derive(Clone)]
pub struct DeepStore {
    store: Arc<dyn ObjectStore>,
    /// The folder, when it is one.
    root: Option<PathBuf>,
    /// Objects whose sync failed: what can be read of them need not be on disk, and no later sync says that it is.
    suspect: Arc<Mutex<HashSet<ObjectPath>>>,
    /// How many objects were removed by their path.
    removals: Arc<AtomicU64>,
    environment: Environment,
}

/// A finished segment file on its way into a store.
#[derive(Clone, Copy, Debug)]
pub enum Finished<'a> {
    /// Made for it, and written to by nobody any more: a folder on the file's own file system takes it in under another name,
    /// and nothing is copied.
    Ours(&'a Path),
    /// Somebody else's, who may do with it what they like afterwards.
    Theirs(&'a Path),
}

/// One stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSegment {
    /// The segment.
    pub name: SegmentName,
    /// Its own checksum, as in `SegmentInfo`.
    pub checksum: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What an object's name says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    checksum: u64,
    crc: u32,
    bytes: u64,
}

impl Content {
    fn file_name(self) -> String {
        format!("{:016x}-{:08x}-{}", self.checksum, self.crc, self.bytes)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let content = Self {
            checksum: u64::from_str_radix(parts.next()?, 16).ok()?,
            crc: u32::from_str_radix(parts.next()?, 16).ok()?,
            bytes: parts.next()?.parse().ok()?,
        };
        (content.file_name() == name).then_some(content)
    }
}

/// Checks that `name` can be one part of an object's path.
fn validate(what: &str, name: &str) -> Result<()> {
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '\\' | '#');
    if name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || name.starts_with('.')
        || name.chars().any(forbidden)
    {
        return Err(Error::invalid(format!(
            "{what} name {name:?} can't name a file: use 1 to {NAME_BYTES_MAX} bytes without '/', '\\', '#' and control characters, not beginning with '.'"
        )));
    }
    Ok(())
}

/// The name that a part of an object's path writes with `%XX` for some bytes.
fn decode(part: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(part.len()), part.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |c: &u8| char::from(*c).to_digit(16);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                after
            }
            _ => {
                bytes.push(*first);
                after
            }
        };
    }
    String::from_utf8(bytes).ok()
}

fn store_error(action: &str, path: &ObjectPath, error: &object_store::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut from_file = None;
    while let Some(cause) = source {
        from_file = from_file.or_else(|| cause.downcast_ref::<io::Error>());
        source = cause.source();
    }
    if let Some(io) = from_file {
        return file_error(action, Path::new(path.as_ref()), io).at("deep store");
    }
    let kind = match error {
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => ErrorKind::FailedPrecondition,
        object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. } => {
            ErrorKind::Unsupported
        }
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("deep store: can't {action} {path}: {error}"))
}

impl DeepStore {
    /// A store in a folder, created when absent.
    pub async fn local(root: &Path, environment: Environment) -> Result<Self> {
        let (files, dir) = (environment.files.clone(), root.to_owned());
        blocking(&environment.spawner, "open deep store", move || {
            files
                .create_dir(&dir)
                .and_then(|()| sweep(&*files, &dir))
                .map_err(|e| file_error("open", &dir, &e))
        })
        .await?;
        let store = LocalFileSystem::new_with_prefix(root)
            .map_err(|e| store_error("open", &ObjectPath::default(), &e))?;
        Ok(Self {
            store: Arc::new(store),
            root: Some(root.to_owned()),
            suspect: Arc::default(),
            removals: Arc::default(),
            environment,
        })
    }

    /// A store in any object store, whose puts are durable when they answer.
    pub fn new(store: Arc<dyn ObjectStore>, environment: Environment) -> Self {
        Self {
            store,
            root: None,
            suspect: Arc::default(),
            removals: Arc::default(),
            environment,
        }
    }

    /// Keeps `file`, or a copy of it. One that is there and whole is left as it is, one that isn't is replaced.
    pub async fn put(
        &self,
        table: &str,
        segment: &SegmentName,
        checksum: u64,
        file: Finished<'_>,
    ) -> Result<()> {
        let (file, may_link) = match file {
            Finished::Ours(file) => (file, true),
            Finished::Theirs(file) => (file, false),
        };
        let folder = folder(table, segment)?;
        let source = file.to_owned();
        let (crc, bytes) = blocking(&self.environment.spawner, "check segment file", move || {
            crc_of(&source)
        })
        .await?;
        let content = Content {
            checksum,
            crc,
            bytes,
        };
        let path = folder.join(content.file_name());
        let is_suspect = self.suspect.lock().contains(&path);
        match self.store.head(&path).await {
            Ok(there)
                if there.size == bytes
                    && !is_suspect
                    && self.check(&path, content).await.is_ok() => {}
            Ok(_) => {
                // Another file takes the place of one that is not whole or not known to be on disk.
                match &self.root {
                    Some(root) => {
                        self.replace(file, root.join(path.as_ref()), content)
                            .await?
                    }
                    None => self.upload(file, &path, content).await?,
                }
                self.suspect.lock().remove(&path);
            }
            Err(object_store::Error::NotFound { .. }) => {
                if !(may_link && self.link(file, &path).await) {
                    self.upload(file, &path, content).await?;
                }
                self.suspect.lock().remove(&path);
            }
            Err(error) => return Err(store_error("look for", &path, &error)),
        }
        let synced = self.sync(&path).await;
        if synced.is_err() {
            self.suspect.lock().insert(path);
        }
        synced
    }

    /// Copies a segment's file to `to`, durably and whole, or leaves `to` as it was.
    ///
    /// Errors: `NotFound` when it isn't there, `DataLoss` when the stored copy is damaged.
    pub async fn get(
        &self,
        table: &str,
        segment: &SegmentName,
        checksum: u64,
        to: &Path,
    ) -> Result<()> {
        let folder = folder(table, segment)?;
        let stored = self
            .objects(&folder)
            .await?
            .into_iter()
            .filter(|(_, content)| content.checksum == checksum);
        let mut failed = Error::not_found(format!(
            "deep store: no copy of segment {segment} of table {table} with checksum {checksum:016x}"
        ));
        for (path, content) in stored {
            match self.download(&path, content, to).await {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Deletes a segment's copies. None there is no error.
    pub async fn delete(&self, table: &str, segment: &SegmentName, checksum: u64) -> Result<()> {
        let folder = folder(table, segment)?;
        for (path, _) in self
            .objects(&folder)
            .await?
            .into_iter()
            .filter(|(_, content)| content.checksum == checksum)
        {
            match self.store.delete(&path).await {
                Err(error) if !matches!(error, object_store::Error::NotFound { .. }) => {
                    return Err(store_error("delete", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where a segment's file can be mapped in place, when the store is a folder and has it. Not checked here.
    pub async fn local_path(
        &self,
        table: &str,
        segment: &SegmentName,
        checksum: u64,
    ) -> Result<Option<PathBuf>> {
        let folder = folder(table, segment)?;
        let Some(root) = &self.root else {
            return Ok(None);
        };
        let stored = self.objects(&folder).await?;
        let path = stored
            .into_iter()
            .find(|(_, content)| content.checksum == checksum);
        Ok(path.map(|(path, _)| root.join(path.as_ref())))
    }

    /// A table's stored segments, by name.
    pub async fn list(&self, table: &str) -> Result<Vec<StoredSegment>> {
        validate("table", table)?;
        let stored = self.objects(&ObjectPath::from_iter([table])).await?;
        Ok(named(stored)
            .into_iter()
            .map(|(_, segment)| segment)
            .collect())
    }

    /// All stored segments with their tables, by table and name.
    pub async fn list_all(&self) -> Result<Vec<(String, StoredSegment)>> {
        Ok(named(self.objects(&ObjectPath::default()).await?))
    }

    /// The objects below `folder` that are whole segments' copies by their names.
    async fn objects(&self, folder: &ObjectPath) -> Result<Vec<(ObjectPath, Content)>> {
        let found = self.list_objects(folder).await?;
        let named = found.into_iter().filter_map(|(path, _)| {
            let content = Content::parse(path.filename()?)?;
            Some((path, content))
        });
        Ok(named.collect())
    }

    /// Whether `file` stands under the object's name now. Where it can't, a copy may.
    async fn link(&self, file: &Path, path: &ObjectPath) -> bool {
        let Some(root) = &self.root else {
            return false;
        };
        let (from, to) = (file.to_owned(), root.join(path.as_ref()));
        let files = Arc::clone(&self.environment.files);
        let linked = blocking(&self.environment.spawner, "link segment file", move || {
            let made = to.parent().map_or(Ok(()), |dir| files.create_dir(dir));
            let linked = made.and_then(|()| files.link(&from, &to));
            linked.map_err(|e| file_error("link", &to, &e))
        });
        linked.await.is_ok()
    }

    async fn replace(&self, file: &Path, to: PathBuf, content: Content) -> Result<()> {
        let (from, files) = (file.to_owned(), Arc::clone(&self.environment.files));
        let spawner = &self.environment.spawner;
        blocking(spawner, "replace segment file", move || {
            replace::replace(&*files, &from, &to, content)
        })
        .await
    }

    async fn upload(&self, file: &Path, path: &ObjectPath, content: Content) -> Result<()> {
        let failed = |e| store_error("write", path, &e);
        let mut upload = self.store.put_multipart(path).await.map_err(failed)?;
        // Parts go up here and not in tasks that nobody sees.
        let mut parts = FuturesUnordered::new();
        let (mut position, mut crc) = (0_u64, 0);
        let mut source = Some(File::open(file).map_err(|e| file_error("open", file, &e))?);
        while position < content.bytes {
            let Some(reading) = source.take() else { break };
            let place = file.to_owned();
            let (reading, chunk) =
                blocking(&self.environment.spawner, "read segment file", move || {
                    read_chunk(reading, &place)
                })
                .await?;
            if chunk.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, &chunk);
            position += chunk.len() as u64;
            if parts.len() >= PARTS_MAX {
                parts.try_next().await.map_err(failed)?;
            }
            parts.push(upload.put_part(chunk.into()));
            // Sets it going, beside the reading of the next one.
            while let Poll::Ready(Some(done)) = futures::poll!(parts.next()) {
                done.map_err(failed)?;
            }
            source = Some(reading);
        }
        if (position, crc) != (content.bytes, content.crc) {
            drop(parts);
            // Nothing was published yet; leftovers of the upload are the store's to clean.
            let _ = upload.abort().await;
            return Err(Error::precondition(format!(
                "{}: the file changed while it was being stored",
                file.display()
            )));
        }
        while parts.try_next().await.map_err(failed)?.is_some() {}
        upload.complete().await.map_err(failed)?;
        Ok(())
    }

    /// Makes an object in a folder durable, with the folders that name it.
    async fn sync(&self, path: &ObjectPath) -> Result<()> {
        let Some(root) = self.root.clone() else {
            return Ok(());
        };
        let parts: Vec<_> = path.parts().map(|part| part.as_ref().to_owned()).collect();
        let files = self.environment.files.clone();
        blocking(&self.environment.spawner, "sync deep store", move || {
            let mut path = root;
            let mut folders = Vec::new();
            for part in parts {
                folders.push(path.clone());
                path.push(part);
            }
            let synced = files.open(&path).and_then(|file| file.sync());
            synced.map_err(|e| file_error("sync", &path, &e))?;
            for folder in folders.iter().rev() {
                files
                    .sync_dir(folder)
                    .map_err(|e| file_error("sync", folder, &e))?;
            }
            Ok(())
        })
        .await
    }

    /// Reads an object through; `DataLoss` when it isn't what its name says.
    async fn check(&self, path: &ObjectPath, content: Content) -> Result<()> {
        let mut object = self.read(path).await?;
        while object.next().await?.is_some() {}
        object.verify(content)
    }

    /// Begins to read an object.
    async fn read<'a>(&self, path: &'a ObjectPath) -> Result<Reading<'a>> {
        let object = self.store.get(path).await;
        let chunks = object
            .map_err(|e| store_error("read", path, &e))?
            .into_stream();
        Ok(Reading {
            path,
            chunks,
            crc: 0,
            bytes: 0,
        })
    }

    async fn download(&self, path: &ObjectPath, content: Content, to: &Path) -> Result<()> {
        let mut name = to.as_os_str().to_owned();
        name.push(".get");
        let temporary = PathBuf::from(name);
        let failed = |e: io::Error| file_error("write", &temporary, &e);
        let mut target = Some(File::create(&temporary).map_err(failed)?);
        let mut object = self.read(path).await?;
        while let Some(chunk) = object.next().await? {
            let Some(mut writing) = target.take() else {
                break;
            };
            let place = temporary.clone();
            let written = blocking(&self.environment.spawner, "write segment file", move || {
                writing
                    .write_all(&chunk)
                    .map_err(|e| file_error("write", &place, &e))?;
                Ok(writing)
            });
            target = Some(written.await?);
        }
        drop(target);
        let (files, to) = (self.environment.files.clone(), to.to_owned());
        let verified = object.verify(content);
        blocking(
            &self.environment.spawner,
            "publish segment file",
            move || match verified {
                Ok(()) => files
                    .publish(&temporary, &to)
                    .map_err(|e| file_error("publish", &to, &e)),
                Err(damaged) => {
                    files
                        .remove(&temporary)
                        .map_err(|e| file_error("remove", &temporary, &e))?;
                    Err(damaged)
                }
            },
        )
        .await
    }
}

fn folder(table: &str, segment: &SegmentName) -> Result<ObjectPath> {
    validate("table", table)?;
    validate("segment", segment.as_str())?;
    Ok(ObjectPath::from_iter([table, segment.as_str()]))
}

/// Tables and segments that objects belong to, in order.
fn named(objects: Vec<(ObjectPath, Content)>) -> Vec<(String, StoredSegment)> {
    let mut named: Vec<_> = objects
        .into_iter()
        .filter_map(
            |(
                path,
                Content {
                    checksum, bytes, ..
                },
            )| {
                let mut parts = path.parts();
                let (table, name) = (
                    decode(parts.next()?.as_ref())?,
                    decode(parts.next()?.as_ref())?,
                );
                Some((
                    table,
                    StoredSegment {
                        name: SegmentName::new(&name),
                        checksum,
                        bytes,
                    },
                ))
            },
        )
        .collect();
    named.sort_by(|a, b| (&a.0, &a.1.name).cmp(&(&b.0, &b.1.name)));
    named
}

/// Removes what uploads that were cut off left in a folder (`<object>#<number>`); blocks.
fn sweep(files: &dyn Files, dir: &Path) -> io::Result<()> {
    for path in files.list(dir)? {
        if path.is_dir() {
            sweep(files, &path)?;
        } else if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains('#'))
        {
            files.remove(&path)?;
        }
    }
    Ok(())
}

/// An object on its way, and what is known of the bytes so far.
struct Reading<'a> {
    path: &'a ObjectPath,
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    crc: u32,
    bytes: u64,
}

impl Reading<'_> {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(chunk) = self.chunks.next().await else {
            return Ok(None);
        };
        let chunk = chunk.map_err(|e| store_error("read", self.path, &e))?;
        self.crc = crc32c::crc32c_append(self.crc, &chunk);
        self.bytes += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// At the end: `DataLoss` when the object isn't what its name says.
    fn verify(&self, content: Content) -> Result<()> {
        if (self.crc, self.bytes) == (content.crc, content.bytes) {
            return Ok(());
        }
        Err(Error::data_loss(format!(
            "deep store: {} is damaged: {} bytes with CRC32C {:08x}; delete it and restore it from a copy",
            self.path, self.bytes, self.crc
        )))
    }
}

fn read_chunk(mut file: File, path: &Path) -> Result<(File, Bytes)> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    Read::by_ref(&mut file)
        .take(CHUNK_BYTES as u64)
        .read_to_end(&mut chunk)
        .map_err(|e| file_error("read", path, &e))?;
    Ok((file, Bytes::from(chunk)))
}

/// CRC32C and length of a file; blocks.
fn crc_of(path: &Path) -> Result<(u32, u64)> {
    let mut file = File::open(path).map_err(|e| file_error("open", path, &e))?;
    let (mut crc, mut bytes) = (0, 0_u64);
    loop {
        let (rest, chunk) = read_chunk(file, path)?;
        if chunk.is_empty() {
            return Ok((crc, bytes));
        }
        crc = crc32c::crc32c_append(crc, &chunk);
        bytes += chunk.len() as u64;
        file = rest;
    }
}
