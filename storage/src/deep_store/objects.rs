//! Objects beside the segments, which are found by their paths and not by a table's segments.

use super::{Content, DeepStore, replace, store_error};
use crate::environment::{Environment, blocking, file_error};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use strandline_proto::Result;

impl DeepStore {
    /// Keeps a finished file of ours, of this CRC32C and length, under `path`, durably. Its content is on disk before it has that
    /// name, so one that is there already, whose name says the same, is whole. May be repeated.
    pub(crate) async fn put_object(
        &self,
        path: &ObjectPath,
        file: &Path,
        (crc, bytes): (u32, u64),
    ) -> Result<()> {
        let content = Content {
            checksum: 0,
            crc,
            bytes,
        };
        let Some(root) = &self.root else {
            return self.upload(file, path, content).await;
        };
        let is_suspect = self.suspect.lock().contains(path);
        let (from, to) = (file.to_owned(), root.join(path.as_ref()));
        let files = Arc::clone(&self.environment.files);
        let placed = blocking(&self.environment.spawner, "store object", move || {
            if let Some(dir) = to.parent() {
                files
                    .create_dir(dir)
                    .map_err(|e| file_error("make the folder", dir, &e))?;
            }
            if is_suspect {
                // What can be read of the file need not be on disk, and no later sync says that it is.
                return replace::replace(&*files, &from, &to, content);
            }
            files
                .sync_file(&from)
                .map_err(|e| file_error("sync", &from, &e))?;
            match files.link(&from, &to) {
                Ok(()) => Ok(()),
                Err(_) if to.exists() => Ok(()),
                Err(_) => replace::replace(&*files, &from, &to, content),
            }
        });
        let stored = match placed.await {
            Ok(()) => self.sync(path).await,
            failed => failed,
        };
        match &stored {
            Ok(()) => self.suspect.lock().remove(path),
            Err(_) => self.suspect.lock().insert(path.clone()),
        };
        stored
    }

    /// Paths and lengths of the objects below a folder.
    pub(crate) async fn list_objects(&self, folder: &ObjectPath) -> Result<Vec<(ObjectPath, u64)>> {
        let found: Vec<_> = self
            .store
            .list(Some(folder))
            .try_collect()
            .await
            .map_err(|e| store_error("list", folder, &e))?;
        let found = found.into_iter();
        Ok(found.map(|o| (o.location, o.size)).collect())
    }

    /// A range of an object's bytes, which must be within its length.
    pub(crate) async fn read_object(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes> {
        let read = self.store.get_range(path, range).await;
        read.map_err(|e| store_error("read", path, &e))
    }

    /// Removes an object. One that is gone is no error.
    pub(crate) async fn remove_object(&self, path: &ObjectPath) -> Result<()> {
        let removed = self.store.delete(path).await;
        self.removals.fetch_add(1, Ordering::SeqCst);
        match removed {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            removed => removed.map_err(|e| store_error("remove", path, &e)),
        }
    }

    /// How many removals there were: while it is the same, no object that was listed is gone.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}
