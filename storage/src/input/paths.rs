//! Files and directories to the files to load.

use super::InputFormat;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use strandline_proto::{Error, Result};

/// Files of one load.
const FILES_MAX: usize = 1_000_000;

/// The files of `paths`, directories replaced by the files in them (at any depth) whose ending is known, in
/// the order of their names. Names that begin with `.` or `_` are passed over, as other tools do. A directory is
/// entered once, whatever links lead to it.
///
/// # Errors
/// When a path can't be read, or when there are no files.
pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let metadata =
            std::fs::metadata(path).map_err(|e| super::read_error(&e).at(path.display()))?;
        if !metadata.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        walk(path, &mut HashSet::new(), &mut files)?;
        if files.len() == before {
            return Err(Error::not_found(format!(
                "{}: no file that ends in .parquet, .avro, .json, .jsonl, .ndjson or .csv",
                path.display()
            )));
        }
    }
    if files.is_empty() {
        return Err(Error::invalid(
            "no input files: name files, or folders that hold parquet, avro, json or csv files",
        ));
    }
    Ok(files)
}

/// Bytes of the files together, for a progress bar: one whose size can't be told counts for nothing.
pub fn total_bytes(files: &[PathBuf]) -> u64 {
    let sizes = files.iter().filter_map(|file| std::fs::metadata(file).ok());
    sizes.map(|metadata| metadata.len()).sum()
}

fn walk(root: &Path, entered: &mut HashSet<PathBuf>, files: &mut Vec<PathBuf>) -> Result<()> {
    // A stack instead of recursion: the depth of a tree is not ours.
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let place = |e: std::io::Error| super::read_error(&e).at(directory.display());
        if !entered.insert(directory.canonicalize().map_err(place)?) {
            continue;
        }
        for entry in std::fs::read_dir(&directory).map_err(place)? {
            let entry = entry.map_err(place)?;
            let path = entry.path();
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with(['.', '_']))
            {
                continue;
            }
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => waiting.push(path),
                Ok(metadata) if metadata.is_file() && InputFormat::of_ending(&path).is_some() => {
                    found.push(path)
                }
                Ok(_) => {}
                Err(error) => return Err(super::read_error(&error).at(path.display())),
            }
            if files.len() + found.len() > FILES_MAX {
                return Err(Error::exhausted(format!(
                    "{}: more than {FILES_MAX} files in one load",
                    root.display()
                )));
            }
        }
    }
    found.sort();
    files.append(&mut found);
    Ok(())
}
