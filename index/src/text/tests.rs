use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeSet;

type Documents = Vec<Vec<(u32, String)>>;

fn written(documents: &Documents) -> Vec<u8> {
    let mut writer = TextIndexWriter::new("plain").unwrap();
    for document in documents {
        for (place, word) in document {
            writer.word(*place, word);
        }
        writer.end_document().unwrap();
    }
    writer.finish().unwrap()
}

fn grown(documents: &Documents, steps: &[usize]) -> MutableText {
    let text = MutableText::new("plain");
    for &step in steps.iter().chain([&documents.len()]) {
        text.extend(step as u32, &|doc, sink| {
            for (place, word) in &documents[doc as usize] {
                sink(*place, word);
            }
        });
    }
    text
}

fn docs(set: &DocSet) -> Vec<DocId> {
    let mut out = Vec::new();
    set.append_docs(&mut out);
    out
}

/// Asks for everything that a reader answers and holds it against the documents.
fn check(index: &dyn TextPostings, documents: &Documents) {
    let documents = &documents[..index.num_docs() as usize];
    let words: BTreeSet<&str> = documents
        .iter()
        .flatten()
        .map(|(_, word)| word.as_str())
        .collect();
    for word in words.iter().copied().chain(["absent", ""]) {
        let expected: Vec<(DocId, Vec<u32>)> = documents
            .iter()
            .enumerate()
            .map(|(doc, words)| {
                let places = words
                    .iter()
                    .filter(|(_, w)| w == word)
                    .map(|(place, _)| *place);
                (doc as DocId, places.collect::<Vec<_>>())
            })
            .filter(|(_, places)| !places.is_empty())
            .collect();
        let mut set = DocSet::new();
        index.fill(word, &mut set).unwrap();
        assert_eq!(
            docs(&set),
            expected.iter().map(|(doc, _)| *doc).collect::<Vec<_>>(),
            "{word}"
        );
        assert_eq!(set.count(), expected.len() as u64);
        for step in [1, 3, 700] {
            let mut walk = index.walk(word).unwrap();
            let mut from = 0;
            while let Some(doc) = walk.doc() {
                let next = expected.iter().find(|(doc, _)| *doc >= from);
                let mut places = Vec::new();
                walk.places(&mut places);
                assert_eq!(next, Some(&(doc, places)), "{word} from {from}");
                from = doc + step;
                walk.seek(from);
            }
            assert!(
                expected.iter().all(|(doc, _)| *doc < from),
                "{word}: nothing from {from} on"
            );
        }
    }
    for prefix in ["", "a", "ab", "é", "zz"] {
        let matches = |word: &str| word.len() % 2 == 1;
        let mut set = DocSet::new();
        index.fill_matching(prefix, &matches, &mut set).unwrap();
        let passes = |words: &[(u32, String)]| {
            words
                .iter()
                .any(|(_, word)| word.starts_with(prefix) && matches(word))
        };
        let expected = (0..documents.len()).filter(|&doc| passes(&documents[doc]));
        assert_eq!(
            docs(&set),
            expected.map(|doc| doc as DocId).collect::<Vec<_>>(),
            "{prefix}*"
        );
    }
}

fn document() -> impl Strategy<Value = Vec<(u32, String)>> {
    prop::collection::vec((1u32..4, "[abé]{1,3}"), 0..6).prop_map(|words| {
        let mut place = 0;
        words
            .into_iter()
            .map(|(gap, word)| {
                place += gap;
                (place, word)
            })
            .collect()
    })
}

/// Some documents many times over, so that pieces are merged.
fn many(some: &Documents, docs: usize) -> Documents {
    (0..docs)
        .map(|doc| some[doc * doc % some.len()].clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn stored_words_are_found_in_their_documents_and_places(documents in prop::collection::vec(document(), 0..40)) {
        let section = written(&documents);
        prop_assert_eq!(&section, &written(&documents), "the same words give the same bytes");
        let index = ImmutableText::open(&section.into()).unwrap();
        prop_assert_eq!((index.key(), index.num_docs() as usize), ("plain", documents.len()));
        check(&index, &documents);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn growing_words_are_found_at_every_number_of_documents(
        some in prop::collection::vec(document(), 1..20),
        rows in 1_000usize..20_000,
        first in 0usize..20_000,
        view in 0usize..20_000,
    ) {
        let documents = many(&some, rows);
        let text = grown(&documents, &[first.min(rows)]);
        let whole = text.view(rows as u32);
        prop_assert_eq!(whole.num_docs() as usize, rows / 1_024 * 1_024);
        check(&whole, &documents);
        check(&text.view(view.min(rows) as u32), &documents);
        prop_assert_eq!(text.due(rows as u32), None);
    }
}

#[test]
fn a_chunk_of_growing_words_is_one_piece_that_holds_what_its_parts_did() {
    let some: Documents = vec![
        vec![(0, "a".into()), (1, "b".into()), (4, "a".into())],
        vec![],
        vec![(3, "é".into())],
    ];
    let documents = many(&some, 70_000);
    let text = grown(&documents, &[30_000, 30_001]);
    check(&text.view(70_000), &documents);
    assert!(text.bytes() > 70_000 * 8);
}

#[test]
fn damaged_sections_give_errors() {
    let documents: Documents = (0..500)
        .map(|doc| vec![(0, format!("w{}", doc % 37)), (2, "common".into())])
        .collect();
    let section = written(&documents);
    let ask = |section: Vec<u8>| -> Result<(), IndexError> {
        let index = ImmutableText::open(&Bytes::from(section))?;
        let mut set = DocSet::new();
        index.fill("common", &mut set)?;
        index.fill_matching("w", &|_| true, &mut set)?;
        index.walk("w1").map(|_| ())
    };
    assert_eq!(ask(section.clone()), Ok(()));
    for at in (0..section.len()).step_by(section.len() / 400 + 1) {
        let mut damaged = section.clone();
        damaged[at] ^= 0x11;
        assert!(ask(damaged).is_err(), "byte {at} of {}", section.len());
    }
    for len in (0..section.len()).step_by(section.len() / 50 + 1) {
        assert!(ask(section[..len].to_vec()).is_err(), "cut at {len}");
    }
}
