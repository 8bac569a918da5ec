//! An append-only vector with one writer and any number of readers, none of whom waits.
//!
//! Elements live in buckets that double in size and never move: bucket `b` holds `1024 << b` of them. The writer
//! fills slots beyond the published length and then publishes the new length (release); a reader takes the length
//! (acquire) and sees slices of whole buckets, so reading a block is copying from one or two slices.
#![expect(
    unsafe_code,
    reason = "plain slices over slots that are written before the length that covers them is published"
)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

const FIRST_BITS: u32 = 10;
const FIRST: usize = 1 << FIRST_BITS;
const BUCKETS: usize = 32;

struct Bucket<T>(Box<[UnsafeCell<MaybeUninit<T>>]>);

// SAFETY: a slot is written once, by the only writer, before the length that covers it is published with release
// ordering; it is read only below a length taken with acquire ordering. So no slot is read and written at once.
unsafe impl<T: Send + Sync> Sync for Bucket<T> {}

/// The readers' side.
pub(crate) struct AppendVec<T> {
    buckets: [OnceLock<Bucket<T>>; BUCKETS],
    len: AtomicUsize,
}

/// The writer's side; there is one for each vector.
pub(crate) struct AppendWriter<T>(Arc<AppendVec<T>>);

/// Bucket of element `i`, its place there, and the bucket's size.
#[inline(always)]
fn locate(i: usize) -> (usize, usize, usize) {
    let shifted = i + FIRST;
    let bucket = (shifted.ilog2() - FIRST_BITS) as usize;
    (bucket, shifted - (FIRST << bucket), FIRST << bucket)
}

impl<T: Copy + Default + Send + Sync> AppendVec<T> {
    /// An empty vector: what writes it and what reads it.
    pub(crate) fn new() -> (AppendWriter<T>, Arc<Self>) {
        let vec = Arc::new(Self {
            buckets: [const { OnceLock::new() }; BUCKETS],
            len: AtomicUsize::new(0),
        });
        (AppendWriter(vec.clone()), vec)
    }

    /// How many elements are published.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Element `i`; none when it isn't published.
    #[inline]
    pub(crate) fn get(&self, i: usize) -> Option<T> {
        if i >= self.len() {
            return None;
        }
        let (bucket, at, _) = locate(i);
        let slot = self.buckets.get(bucket)?.get()?.0.get(at)?;
        // SAFETY: `i` is below the published length, so the slot was written before and is never written again.
        Some(unsafe { (*slot.get()).assume_init() })
    }

    /// The published elements of `range`, in as many slices as there are buckets.
    pub(crate) fn slices(&self, range: Range<usize>) -> impl Iterator<Item = &[T]> {
        let end = range.end.min(self.len());
        let mut at = range.start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (bucket, from, size) = locate(at);
            let count = (size - from).min(end - at);
            let slots = self.buckets.get(bucket)?.get()?.0.get(from..from + count)?;
            at += count;
            // SAFETY: all of these slots are below the published length: written before, never written again.
            // `UnsafeCell<MaybeUninit<T>>` has the layout of `T`.
            Some(unsafe { std::slice::from_raw_parts(slots.as_ptr().cast::<T>(), count) })
        })
    }

    /// The published elements of `range`, when they lie in one bucket.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<&[T]> {
        if range.is_empty() {
            return Some(&[]);
        }
        if range.end > self.len() {
            return None;
        }
        let (bucket, from, _) = locate(range.start);
        let slots = &self.buckets.get(bucket)?.get()?.0;
        let slots = slots.get(from..from + range.len())?;
        // SAFETY: all of these slots are below the published length: written before, never written again.
        // `UnsafeCell<MaybeUninit<T>>` has the layout of `T`.
        Some(unsafe { std::slice::from_raw_parts(slots.as_ptr().cast::<T>(), slots.len()) })
    }

    /// Calls `sink` with the elements at `positions`; positions that aren't published give the default.
    pub(crate) fn for_positions(&self, positions: &[u32], mut sink: impl FnMut(T)) {
        for &i in positions {
            sink(self.get(i as usize).unwrap_or_default());
        }
    }

    /// Bytes of the published elements.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * size_of::<T>()
    }
}

impl<T: Copy + Default + Send + Sync> AppendWriter<T> {
    /// How many elements there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len.load(Ordering::Relaxed)
    }

    /// Appends `values` and publishes them.
    pub(crate) fn extend(&mut self, mut values: &[T]) {
        let mut len = self.len();
        while !values.is_empty() {
            let (bucket, from, size) = locate(len);
            let (now, later) = values.split_at(values.len().min(size - from));
            let slots = self.0.buckets[bucket].get_or_init(|| {
                let slots = Box::<[UnsafeCell<MaybeUninit<T>>]>::new_uninit_slice(size);
                // SAFETY: a slot is `MaybeUninit`, which needs no initialisation.
                Bucket(unsafe { slots.assume_init() })
            });
            for (slot, value) in slots.0[from..from + now.len()].iter().zip(now) {
                // SAFETY: the slot is beyond the published length, so no reader looks at it, and this is the
                // only writer (`&mut self` of the one writer).
                unsafe { (*slot.get()).write(*value) };
            }
            len += now.len();
            values = later;
        }
        self.0.len.store(len, Ordering::Release);
    }

    /// How many values still lie in one bucket when they come next.
    pub(crate) fn room_together(&self) -> usize {
        let (_, from, size) = locate(self.len());
        size - from
    }

    /// Appends `values` so that they lie in one bucket, and gives the position of the first. Slots that are left
    /// out hold the default.
    pub(crate) fn extend_together(&mut self, values: &[T]) -> usize {
        loop {
            let (len, room) = (self.len(), self.room_together());
            if values.len() <= room {
                self.extend(values);
                return len;
            }
            self.extend(&vec![T::default(); room]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_stay_where_they_are_while_the_vector_grows() {
        let (mut writer, vec) = AppendVec::new();
        let mut expected = Vec::new();
        for step in 0..200u32 {
            let batch: Vec<u32> = (0..step * 7 % 301).map(|i| i ^ step).collect();
            writer.extend(&batch);
            expected.extend_from_slice(&batch);
            let read: Vec<u32> = vec.slices(0..usize::MAX).flatten().copied().collect();
            assert_eq!(read, expected);
        }
        assert!((0..expected.len()).all(|i| vec.get(i) == Some(expected[i])));
        assert_eq!(vec.get(expected.len()), None);
        assert_eq!(
            vec.slices(1000..3000)
                .flatten()
                .copied()
                .collect::<Vec<_>>(),
            expected[1000..3000]
        );
    }

    #[test]
    fn together_means_in_one_slice() {
        let (mut writer, vec) = AppendVec::new();
        for len in [3usize, 1000, 500, 5000, 1, 40_000] {
            let value: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let at = writer.extend_together(&value);
            assert_eq!(vec.slice(at..at + len), Some(value.as_slice()));
        }
    }

    #[test]
    fn readers_see_whole_prefixes_while_the_writer_appends() {
        let (mut writer, vec) = AppendVec::new();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let vec = vec.clone();
                scope.spawn(move || {
                    loop {
                        let len = vec.len();
                        let mut next = 0u64;
                        for slice in vec.slices(0..len) {
                            for &value in slice {
                                assert_eq!(value, next);
                                next += 1;
                            }
                        }
                        assert_eq!(next as usize, len);
                        if len >= 20_000 {
                            break;
                        }
                    }
                });
            }
            let mut next = 0u64;
            while next < 20_000 {
                let batch: Vec<u64> = (next..next + 37).collect();
                writer.extend(&batch);
                next += 37;
            }
        });
    }
}
