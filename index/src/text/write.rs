//! Writing a text index: words, document by document, become the bytes of a section.

use super::failed;
use crate::reader::IndexError;
use crate::wire::corrupt;
use std::fmt::Write;
use tantivy::directory::RamDirectory;
use tantivy::schema::{IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{Token, TokenStream, Tokenizer, TokenizerManager};
use tantivy::{Directory, Index, IndexSettings, SingleSegmentIndexWriter, TantivyDocument};

/// The number of the only layout so far.
pub(super) const FORMAT: u32 = 1;
/// The name that takes the place of a segment's random one.
const SEGMENT: &str = "00000000000000000000000000000000";
/// The field's name, and its tokenizer's.
const FIELD: &str = "t";
const WORDS: &str = "words";
/// Memory by which tantivy sizes its first table of words; the words themselves take what they need.
const TABLE_BYTES: usize = 16 << 20;

/// Takes the words of documents in their order.
pub struct TextIndexWriter {
    key: String,
    writer: SingleSegmentIndexWriter,
    files: RamDirectory,
    /// The document at hand: word, place, word, place, each with a zero behind it.
    document: String,
    docs: u32,
}

impl TextIndexWriter {
    /// An index without documents. `key` names how text becomes words.
    ///
    /// # Errors
    /// When tantivy fails.
    pub fn new(key: &str) -> Result<Self, IndexError> {
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(WORDS)
            .set_fieldnorms(false)
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let mut schema = Schema::builder();
        schema.add_text_field(FIELD, TextOptions::default().set_indexing_options(indexing));
        let tokenizers = TokenizerManager::new();
        tokenizers.register(WORDS, Given);
        let files = RamDirectory::create();
        let writer = Index::builder()
            .schema(schema.build())
            .tokenizers(tokenizers)
            .settings(IndexSettings {
                docstore_compress_dedicated_thread: false,
                ..IndexSettings::default()
            })
            .single_segment_index_writer(files.clone(), TABLE_BYTES)
            .map_err(|e| failed(&e))?;
        Ok(Self {
            key: key.to_owned(),
            writer,
            files,
            document: String::new(),
            docs: 0,
        })
    }

    /// Adds a word of the document at hand; places ascend.
    pub fn word(&mut self, place: u32, word: &str) {
        // A zero ends the word; no word of letters and digits has one.
        let word = word.split('\0').next().unwrap_or_default();
        // Writing to a string can't fail.
        let _ = write!(self.document, "{word}\0{place}\0");
    }

    /// Ends the document at hand, which may be without words.
    ///
    /// # Errors
    /// When tantivy fails.
    pub fn end_document(&mut self) -> Result<(), IndexError> {
        let mut document = TantivyDocument::new();
        if !self.document.is_empty() {
            document.add_text(field(), &self.document);
            self.document.clear();
        }
        self.docs += 1;
        self.writer.add_document(document).map_err(|e| failed(&e))
    }

    /// The section.
    ///
    /// # Errors
    /// When tantivy fails, or an index of one file of 4 GiB names would come out.
    pub fn finish(self) -> Result<Vec<u8>, IndexError> {
        let index = self.writer.finalize().map_err(|e| failed(&e))?;
        let ids = index.searchable_segment_ids().map_err(|e| failed(&e))?;
        let random: Vec<[String; 2]> = ids
            .iter()
            .map(|id| {
                let plain = id.uuid_string();
                let hyphens = [0..8, 8..12, 12..16, 16..20, 20..32]
                    .map(|part| plain.get(part).unwrap_or_default())
                    .join("-");
                [plain, hyphens]
            })
            .collect();
        let named = |name: &str| {
            let mut name = name.to_owned();
            for [plain, hyphens] in &random {
                name = name.replace(plain, SEGMENT);
                name = name.replace(hyphens, "00000000-0000-0000-0000-000000000000");
            }
            name
        };
        let read = |name: &std::path::Path| {
            self.files
                .atomic_read(name)
                .map_err(|e| corrupt(format!("a text index of this memory: {e}")))
        };
        let mut files = Vec::new();
        for path in index.directory().list_managed_files() {
            let name = path.to_string_lossy();
            let bytes = read(&path)?;
            let bytes = match name.ends_with(".json") {
                true => named(&String::from_utf8_lossy(&bytes)).into_bytes(),
                false => bytes,
            };
            files.push((named(&name), bytes));
        }
        files.sort();
        let mut head = Vec::new();
        for number in [FORMAT, self.docs, self.key.len() as u32] {
            head.extend_from_slice(&number.to_le_bytes());
        }
        head.extend_from_slice(self.key.as_bytes());
        head.extend_from_slice(&(files.len() as u32).to_le_bytes());
        for (name, bytes) in &files {
            head.extend_from_slice(&(name.len() as u32).to_le_bytes());
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            head.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
        }
        let mut out = Vec::new();
        out.extend_from_slice(&(head.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
        out.extend_from_slice(&head);
        for (_, bytes) in &files {
            out.extend_from_slice(bytes);
        }
        Ok(out)
    }
}

/// The schema's only field.
pub(super) fn field() -> tantivy::schema::Field {
    tantivy::schema::Field::from_field_id(0)
}

/// Takes a document apart again into the words and places that it was given as.
#[derive(Clone)]
struct Given;

struct GivenWords<'a> {
    rest: std::str::Split<'a, char>,
    token: Token,
}

impl Tokenizer for Given {
    type TokenStream<'a> = GivenWords<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> GivenWords<'a> {
        GivenWords {
            rest: text.split('\0'),
            token: Token::default(),
        }
    }
}

impl TokenStream for GivenWords<'_> {
    fn advance(&mut self) -> bool {
        let (Some(word), Some(place)) = (self.rest.next(), self.rest.next()) else {
            return false;
        };
        let Ok(place) = place.parse() else {
            return false;
        };
        self.token.text.clear();
        self.token.text.push_str(word);
        self.token.position = place;
        self.token.position_length = 1;
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}
