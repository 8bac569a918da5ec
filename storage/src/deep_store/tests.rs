//! One suite over a folder and memory, and damage.

use super::*;
use object_store::memory::InMemory;

async fn contract(store: &DeepStore) {
    let dir = tempfile::tempdir().unwrap();
    let (file, back) = (dir.path().join("segment"), dir.path().join("back"));
    for bytes in [
        vec![],
        vec![1; 100],
        (0..11_000_000_u32).map(|i| (i % 251) as u8).collect(),
    ] {
        std::fs::write(&file, &bytes).unwrap();
        let (name, checksum) = (
            SegmentName::new(&format!("a ~%ü*__0__{}", bytes.len())),
            bytes.len() as u64,
        );
        store
            .put("t", &name, checksum, Finished::Theirs(&file))
            .await
            .unwrap();
        store
            .put("t", &name, checksum, Finished::Theirs(&file))
            .await
            .unwrap();
        store.get("t", &name, checksum, &back).await.unwrap();
        store.get("t", &name, checksum, &back).await.unwrap();
        assert_eq!(std::fs::read(&back).unwrap(), bytes);
        assert_eq!(
            store.list("t").await.unwrap(),
            [StoredSegment {
                name: name.clone(),
                checksum,
                bytes: bytes.len() as u64
            }]
        );
        assert_eq!(
            store
                .get("t", &name, checksum + 1, &back)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::NotFound
        );
        assert_eq!(store.list("u").await.unwrap(), []);
        let all = store.list_all().await.unwrap();
        assert_eq!(
            (all.len(), all[0].0.as_str(), &all[0].1.name),
            (1, "t", &name)
        );
        if let Some(path) = store.local_path("t", &name, checksum).await.unwrap() {
            assert_eq!(std::fs::read(path).unwrap(), bytes);
        }
        store.delete("t", &name, checksum).await.unwrap();
        store.delete("t", &name, checksum).await.unwrap();
        assert_eq!(
            store
                .get("t", &name, checksum, &back)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::NotFound
        );
    }
    for name in [
        "",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "a\0",
        ".x",
        &"x".repeat(201),
    ] {
        assert_eq!(
            store
                .put("t", &SegmentName::new(name), 1, Finished::Theirs(&file))
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidArgument,
            "{name:?}"
        );
        assert_eq!(
            store
                .get(name, &SegmentName::new("s"), 1, &back)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidArgument,
            "{name:?}"
        );
    }
    let missing = store
        .put(
            "t",
            &SegmentName::new("s"),
            1,
            Finished::Theirs(&dir.path().join("none")),
        )
        .await
        .unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_folder_and_memory_keep_segments_alike() {
    let dir = tempfile::tempdir().unwrap();
    contract(
        &DeepStore::local(&dir.path().join("deep"), Environment::real())
            .await
            .unwrap(),
    )
    .await;
    contract(&DeepStore::new(
        Arc::new(InMemory::new()),
        Environment::real(),
    ))
    .await;
}

#[tokio::test]
async fn what_a_cut_off_upload_left_is_swept_and_never_listed() {
    let dir = tempfile::tempdir().unwrap();
    let (deep, name) = (dir.path().join("deep"), SegmentName::new("s ä"));
    let file = dir.path().join("segment");
    std::fs::write(&file, b"content").unwrap();
    let store = DeepStore::local(&deep, Environment::real()).await.unwrap();
    store
        .put("t", &name, 7, Finished::Theirs(&file))
        .await
        .unwrap();
    let whole = store.local_path("t", &name, 7).await.unwrap().unwrap();
    let mut left = whole.clone().into_os_string();
    left.push("#1");
    std::fs::write(&left, b"con").unwrap();
    assert_eq!(store.list("t").await.unwrap().len(), 1);
    DeepStore::local(&deep, Environment::real()).await.unwrap();
    assert!(whole.exists() && !Path::new(&left).exists());
}

#[tokio::test]
async fn a_file_that_nobody_writes_to_is_taken_in_without_a_copy_where_it_can_be() {
    use crate::environment::{FaultyFiles, FileOperation};
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyFiles::new(Environment::real().files);
    let environment = Environment::real().with_files(Arc::new(faulty.clone()));
    let store = DeepStore::local(&dir.path().join("deep ä"), environment)
        .await
        .unwrap();
    let file = dir.path().join("made");
    for (segment, can_link) in [("a ~%ü", true), ("b", false)] {
        std::fs::write(&file, segment).unwrap();
        faulty.set(move |operation, _| {
            (!can_link && operation == FileOperation::Link)
                .then(|| io::Error::from(io::ErrorKind::CrossesDevices))
        });
        let name = SegmentName::new(segment);
        // What was cut off before its folders were synced is tried again.
        for _ in 0..2 {
            store
                .put("t", &name, 7, Finished::Ours(&file))
                .await
                .unwrap();
        }
        let path = store.local_path("t", &name, 7).await.unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), segment.as_bytes());
        let [made, stored] = [&file, &path].map(|path| std::fs::metadata(path).unwrap().ino());
        assert_eq!(made == stored, can_link);
        // One that is there and damaged is replaced, not written over.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, vec![b'x'; segment.len()]).unwrap();
        store
            .put("t", &name, 7, Finished::Ours(&file))
            .await
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), segment.as_bytes());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), segment.as_bytes());
    }
}

/// After a failed sync the system takes for written what is in memory alone, and the next sync succeeds.
#[tokio::test]
async fn a_file_whose_sync_failed_is_stored_anew() {
    use crate::environment::{FaultyFiles, FileOperation};
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyFiles::new(Environment::real().files);
    let environment = Environment::real().with_files(Arc::new(faulty.clone()));
    let store = DeepStore::local(&dir.path().join("deep"), environment)
        .await
        .unwrap();
    let (file, name) = (dir.path().join("made"), SegmentName::new("s"));
    std::fs::write(&file, "segment").unwrap();
    let put = async || store.put("t", &name, 7, Finished::Ours(&file)).await;
    faulty.set(|operation, _| {
        (operation == FileOperation::Sync).then(|| io::Error::from(io::ErrorKind::StorageFull))
    });
    put().await.unwrap_err();
    faulty.clear();
    let stored = async || {
        let path = store.local_path("t", &name, 7).await.unwrap().unwrap();
        std::fs::metadata(path).unwrap().ino()
    };
    let failed = stored().await;
    // Nothing takes its place that is not on disk.
    faulty.set(|operation, _| {
        (operation == FileOperation::Publish).then(|| io::Error::from(io::ErrorKind::StorageFull))
    });
    put().await.unwrap_err();
    assert_eq!(stored().await, failed);
    faulty.clear();
    put().await.unwrap();
    let anew = stored().await;
    assert_ne!(anew, failed);
    put().await.unwrap();
    assert_eq!(stored().await, anew);
}

#[tokio::test]
async fn a_damaged_copy_is_never_handed_out_and_put_repairs_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = DeepStore::local(&dir.path().join("deep"), Environment::real())
        .await
        .unwrap();
    let (file, back, name) = (
        dir.path().join("segment"),
        dir.path().join("back"),
        SegmentName::new("s"),
    );
    std::fs::write(&file, b"the content").unwrap();
    store
        .put("t", &name, 7, Finished::Theirs(&file))
        .await
        .unwrap();
    let stored = std::fs::read_dir(dir.path().join("deep/t/s"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for damage in [&b"the contemt"[..], b"the con", b""] {
        std::fs::write(&stored, damage).unwrap();
        let error = store.get("t", &name, 7, &back).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
        assert!(!back.exists() && !dir.path().join("back.get").exists());
        store
            .put("t", &name, 7, Finished::Theirs(&file))
            .await
            .unwrap();
        store.get("t", &name, 7, &back).await.unwrap();
        assert_eq!(std::fs::read(&back).unwrap(), b"the content");
        std::fs::remove_file(&back).unwrap();
    }
}
