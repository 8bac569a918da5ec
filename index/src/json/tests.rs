use super::*;
use crate::reader::IndexError;

/// Documents whose lists hold lists: `lists[d][e]` are the values of element `e` of document `d`.
fn written(lists: &[Vec<Vec<u32>>]) -> Result<Vec<u8>, IndexError> {
    let mut writer = JsonIndexWriter::new()?;
    for (doc, outer) in lists.iter().enumerate() {
        writer.add_content()?;
        let (path, level) = writer.level(b".a[]", DOCUMENTS)?;
        for (place, inner) in outer.iter().enumerate() {
            let record = writer.element(level, doc as u32)?;
            writer.add(level, path, Kind::Place, place.to_string().as_bytes())?;
            let (inner_path, inner_level) = writer.level(b".a[][]", level)?;
            for value in inner {
                writer.element(inner_level, record)?;
                writer.add(inner_level, inner_path, Kind::Present, &[])?;
                writer.add(inner_level, inner_path, Kind::Value, &value.to_be_bytes())?;
                writer.end_element(inner_level);
            }
            writer.end_element(level);
        }
        writer.end_document()?;
    }
    writer.finish(b"all")
}

fn lists() -> Vec<Vec<Vec<u32>>> {
    (0..3_000u32)
        .map(|doc| {
            (0..doc % 4)
                .map(|e| (0..(doc + e) % 3).map(|i| (doc + i) % 50).collect())
                .collect()
        })
        .collect()
}

#[test]
fn records_are_found_by_value_and_lead_to_their_documents() {
    let lists = lists();
    let index = JsonIndex::open(written(&lists).unwrap().into(), 3_000).unwrap();
    assert_eq!(index.coverage(), b"all");
    let path = index.path(b".a[][]").unwrap();
    let level = index.level_of(path);
    assert_eq!(
        index.parent(level),
        Some(index.level_of(index.path(b".a[]").unwrap()))
    );
    for wanted in [0u32, 7, 49, 50] {
        let mut found = index.none(level);
        if let Some(key) = index.key(path, Kind::Value, &wanted.to_be_bytes()) {
            assert_eq!(index.value(key).as_ref(), wanted.to_be_bytes());
            index.mark(key, &mut found).unwrap();
        }
        let docs = index.parents(&index.parents(&found).unwrap()).unwrap();
        let holds = |doc: &Vec<Vec<u32>>| doc.iter().flatten().any(|&v| v == wanted);
        let expected: Vec<u32> = (0..3_000).filter(|&d| holds(&lists[d as usize])).collect();
        assert_eq!(docs.iter().collect::<Vec<_>>(), expected);
        assert_eq!(docs.count(), expected.len() as u64);
    }
    let (low, high) = (10u32.to_be_bytes(), 20u32.to_be_bytes());
    let between = index.keys(path, Kind::Value, Some((&low, false)), Some((&high, true)));
    assert_eq!(between.len(), 10);
    assert_eq!(index.keys(path, Kind::Value, None, None).len(), 50);
    assert_eq!(index.keys(path, Kind::Present, None, None).len(), 1);
    // Down again: the elements of the documents that have any.
    let elements = index.level_of(index.path(b".a[]").unwrap());
    let docs = index.parents(&index.all(elements)).unwrap();
    assert_eq!(docs.count(), 2_250);
    assert_eq!(index.children(elements, &docs), index.all(elements));
    assert_eq!(index.content().unwrap(), index.all(DOCUMENTS));
    assert!(index.invalid().unwrap().is_empty() && index.parents(&docs).is_none());
    assert!(index.path(b".b").is_none() && index.key(path, Kind::Value, b"x").is_none());
}

#[test]
fn the_same_documents_give_the_same_bytes() {
    assert_eq!(written(&lists()).unwrap(), written(&lists()).unwrap());
    let none = JsonIndexWriter::new().unwrap().finish(b"").unwrap();
    let index = JsonIndex::open(none.into(), 0).unwrap();
    assert!(index.content().unwrap().is_empty());
}

#[test]
fn a_set_stays_within_its_level() {
    let mut set = RecordSet::none(0, 70);
    assert!(set.insert_words(64, &[0b10_0000]) && !set.insert_words(64, &[0b100_0000]));
    set.complement();
    assert_eq!(
        (set.count(), set.contains(69), set.contains(70)),
        (69, false, false)
    );
}

#[test]
fn any_cut_or_changed_byte_is_an_error_or_reads_without_panic() {
    let bytes = written(&lists()[..40]).unwrap();
    for len in 0..bytes.len() {
        assert!(
            JsonIndex::open(bytes[..len].to_vec().into(), 40).is_err(),
            "{len} bytes"
        );
    }
    assert!(JsonIndex::open(bytes.clone().into(), 41).is_err());
    let mut refused = 0;
    for at in 0..bytes.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            let Ok(index) = JsonIndex::open(changed.into(), 40) else {
                refused += 1;
                continue;
            };
            for path in [&b""[..], b".a[]", b".a[][]"] {
                let Some(path) = index.path(path) else {
                    continue;
                };
                for kind in Kind::ALL {
                    for key in index.keys(path, kind, None, None) {
                        let mut found = index.none(index.level_of(path));
                        let _ = index.mark(key, &mut found);
                        let _ = index.parents(&found);
                        let _ = index.value(key);
                    }
                }
            }
        }
    }
    assert!(refused > bytes.len(), "{refused} of {}", 3 * bytes.len());
}
