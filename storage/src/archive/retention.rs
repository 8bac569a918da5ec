//! What is too old is removed: always a beginning of what there is, so that no hole comes into what is left.

use super::{Archive, ArchiveObject};
use strandline_proto::Result;

impl Archive {
    /// Removes the first objects of a partition, as far as they end at or before `committed` and all of their messages' timestamps are before
    /// `before_ms`; gives those that went. Objects without messages go with those behind them, and messages whose timestamps are
    /// not known stay, and all behind them.
    ///
    /// # Errors
    /// While the deep store can't be read or written, and `DataLoss` when an object is damaged; some of the objects may be gone.
    pub async fn remove_older(
        &self,
        partition: u32,
        committed: u64,
        before_ms: i64,
    ) -> Result<Vec<ArchiveObject>> {
        let objects = self.objects(partition).await?;
        let mut old = 0;
        // All before it is in the objects that are looked at.
        let mut end = objects.first().map_or(0, |first| first.offsets().start);
        for (place, object) in objects.iter().enumerate() {
            let range = object.offsets();
            if range.end > committed {
                break;
            }
            if range.end > end {
                let reader = self.open(object, range.start).await?;
                match reader.timestamps_ms() {
                    Some((_, largest)) if largest < before_ms => old = place + 1,
                    None if reader.messages() == 0 => {}
                    _ => break,
                }
                end = range.end;
            } else if old == place {
                old = place + 1;
            }
        }
        let mut removed: Vec<_> = objects.into_iter().take(old).collect();
        // Were it ended halfway, what is left would still be without a hole.
        removed.sort_unstable_by_key(|object| object.offsets().end);
        for object in &removed {
            self.deep_store.remove_object(&object.path).await?;
        }
        Ok(removed)
    }

    /// Changes whenever objects may have been removed.
    pub(crate) fn removals(&self) -> u64 {
        self.deep_store.removals()
    }
}
