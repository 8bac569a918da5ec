//! A folder of the operating system's whose files may be lost: what of it is durable is kept beside it.
//!
//! All reading is real (segments are mapped), and so are the files. What an end of the power leaves is made of what was synced
//! and, by chance, of what was not: each entry of a folder that is not synced is there or not, each block of a file that
//! is not synced holds old bytes or new ones. A sync that fails loses what it was to make durable: a later one that
//! succeeds does not bring it back.

use super::machine::{Machine, Point};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_storage::environment::{DurableFile, Files};

/// What is written to a disk at once.
const BLOCK_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File(u64),
    Folder,
}

type Entries = BTreeMap<OsString, Entry>;

#[derive(Default)]
struct Content {
    /// Kept open, so that its number is not given to another file.
    _file: Option<File>,
    /// On the disk for sure.
    synced: Vec<u8>,
    /// Which bytes a failed sync left in memory as if they were on the disk.
    lost: Vec<bool>,
}

#[derive(Default)]
struct State {
    contents: HashMap<u64, Content>,
    folders: BTreeMap<PathBuf, Entries>,
}

/// What a disk holds after the end of a life.
#[derive(Debug, Default)]
pub(super) struct Image {
    folders: Vec<PathBuf>,
    /// Each with the number that it had, by which its other names are found.
    files: Vec<(PathBuf, u64, Vec<u8>)>,
}

/// The folder.
pub(super) struct Disk {
    root: PathBuf,
    state: Mutex<State>,
}

fn listing(folder: &Path) -> Entries {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let entry = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().ok()?;
        let kind = match metadata.is_dir() {
            true => Entry::Folder,
            false => Entry::File(metadata.ino()),
        };
        Some((entry.file_name(), kind))
    };
    entries.filter_map(entry).collect()
}

impl Disk {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            state: Mutex::default(),
        }
    }

    fn synced(&self, file: &File) -> io::Result<()> {
        let number = file.metadata()?.ino();
        let now = whole(file)?;
        let mut state = self.state.lock();
        let content = state.contents.entry(number).or_default();
        if content._file.is_none() {
            content._file = Some(file.try_clone()?);
        }
        // What has not been written again since is not on the disk.
        let byte = |(at, byte): (usize, u8)| match content.lost.get(at) {
            Some(true) => content.synced.get(at).copied().unwrap_or(0),
            _ => byte,
        };
        content.synced = now.into_iter().enumerate().map(byte).collect();
        Ok(())
    }

    fn failed_sync(&self, file: &File) -> io::Result<()> {
        let number = file.metadata()?.ino();
        let now = whole(file)?;
        let mut state = self.state.lock();
        let content = state.contents.entry(number).or_default();
        if content._file.is_none() {
            content._file = Some(file.try_clone()?);
        }
        let (synced, before) = (&content.synced, &content.lost);
        let is_lost = |(at, byte): (usize, &u8)| {
            synced.get(at) != Some(byte) || before.get(at) == Some(&true)
        };
        content.lost = now.iter().enumerate().map(is_lost).collect();
        Ok(())
    }

    fn written(&self, file: &File, from: usize, to: usize) -> io::Result<()> {
        let number = file.metadata()?.ino();
        if let Some(content) = self.state.lock().contents.get_mut(&number) {
            let end = to.min(content.lost.len());
            if let Some(written) = content.lost.get_mut(from..end) {
                written.fill(false);
            }
        }
        Ok(())
    }

    fn synced_folder(&self, folder: &Path) {
        let entries = listing(folder);
        self.state.lock().folders.insert(folder.to_owned(), entries);
    }

    /// What is left after the process, or with `power` the machine, has ended now. `draw` gives a number below its argument.
    pub(super) fn image(&self, power: bool, draw: &mut dyn FnMut(u64) -> u64) -> Image {
        let state = self.state.lock();
        let mut image = Image::default();
        let mut chosen = HashMap::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            let now = listing(&folder);
            let synced = match power {
                true => state.folders.get(&folder).cloned().unwrap_or_default(),
                false => now.clone(),
            };
            let names: BTreeSet<&OsString> = now.keys().chain(synced.keys()).collect();
            for name in names {
                let (new, old) = (now.get(name), synced.get(name));
                let entry = match new == old || draw(2) == 0 {
                    true => new,
                    false => old,
                };
                let path = folder.join(name);
                match entry {
                    None => {}
                    Some(Entry::Folder) => {
                        image.folders.push(path.clone());
                        folders.push(path);
                    }
                    Some(Entry::File(number)) => {
                        let bytes = chosen.entry(*number).or_insert_with(|| {
                            let is_here = new == Some(&Entry::File(*number));
                            let now = is_here.then(|| std::fs::read(&path).unwrap_or_default());
                            let content = state.contents.get(number);
                            let synced = content.map_or(&[][..], |c| &c.synced);
                            match (now, power) {
                                (Some(now), false) => now,
                                (Some(now), true) => torn(synced, now, draw),
                                (None, _) => synced.to_vec(),
                            }
                        });
                        image.files.push((path, *number, bytes.clone()));
                    }
                }
            }
        }
        image
    }

    /// Makes the folder hold an image. After an end of the power all of it is durable; otherwise what was durable is.
    pub(super) fn restore(&self, image: Image, power: bool) {
        let mut state = self.state.lock();
        let before = std::mem::take(&mut *state);
        std::fs::remove_dir_all(&self.root).expect("the simulated disk is removed");
        std::fs::create_dir(&self.root).expect("the simulated disk is made");
        for folder in &image.folders {
            std::fs::create_dir(folder).expect("a folder of the simulated disk is made");
        }
        let mut numbers: HashMap<u64, (u64, PathBuf)> = HashMap::new();
        for (path, number, bytes) in &image.files {
            if let Some((_, first)) = numbers.get(number) {
                std::fs::hard_link(first, path).expect("a file of the simulated disk is linked");
                continue;
            }
            std::fs::write(path, bytes).expect("a file of the simulated disk is written");
            let file = File::open(path).expect("a file of the simulated disk is opened");
            let new = file.metadata().expect("it has a number").ino();
            let mut content = match before.contents.get(number) {
                Some(old) if !power => Content {
                    _file: None,
                    synced: old.synced.clone(),
                    lost: old.lost.clone(),
                },
                None if !power => Content::default(),
                _ => Content {
                    synced: bytes.clone(),
                    ..Content::default()
                },
            };
            content._file = Some(file);
            state.contents.insert(new, content);
            numbers.insert(*number, (new, path.clone()));
        }
        if power {
            for folder in image.folders.iter().chain([&self.root]) {
                state.folders.insert(folder.clone(), listing(folder));
            }
            return;
        }
        for (folder, entries) in before.folders {
            let renumbered = entries.into_iter().map(|(name, entry)| {
                let entry = match entry {
                    Entry::File(number) => {
                        // One that is gone by now holds what it held when it was synced.
                        let new = numbers.get(&number).map_or(number, |(new, _)| *new);
                        Entry::File(new)
                    }
                    Entry::Folder => Entry::Folder,
                };
                (name, entry)
            });
            state.folders.insert(folder, renumbered.collect());
        }
        for (number, content) in before.contents {
            if !numbers.contains_key(&number) {
                state.contents.insert(number, content);
            }
        }
    }
}

fn whole(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.metadata()?.len() as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// What a file holds whose blocks may be on the disk or not.
fn torn(synced: &[u8], now: Vec<u8>, draw: &mut dyn FnMut(u64) -> u64) -> Vec<u8> {
    if now == synced {
        return now;
    }
    match draw(4) {
        0 => return synced.to_vec(),
        1 => return now,
        _ => {}
    }
    let (short, long) = (synced.len().min(now.len()), synced.len().max(now.len()));
    let len = short + draw((long - short) as u64 + 1) as usize;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let from = if draw(2) == 0 { synced } else { &now };
        let end = len.min(bytes.len() + BLOCK_BYTES);
        for at in bytes.len()..end {
            bytes.push(from.get(at).copied().unwrap_or(0));
        }
    }
    bytes
}

/// The disk as one life of a server sees it.
pub(super) struct SimulatedFiles {
    pub(super) machine: Arc<Machine>,
    pub(super) life: u64,
}

fn over() -> io::Error {
    io::Error::other("the simulated process has ended")
}

impl SimulatedFiles {
    /// Before each operation: gives whether it is to fail.
    fn begin(&self, operation: &str, path: &Path) -> io::Result<bool> {
        let machine = &self.machine;
        if machine.is_over(self.life) || !machine.passes(Point::File) {
            return Err(over());
        }
        let fails = machine.once_in(machine.faults().files);
        let mark = if fails { " fails" } else { "" };
        machine.note(format_args!("{operation} {}{mark}", path.display()));
        Ok(fails)
    }

    fn check(&self, operation: &str, path: &Path) -> io::Result<()> {
        match self.begin(operation, path)? {
            true => Err(self.error()),
            false => Ok(()),
        }
    }

    fn error(&self) -> io::Error {
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::Other];
        io::Error::from(self.machine.one_of(&kinds))
    }

    fn sync_handle(&self, file: &File, path: &Path) -> io::Result<()> {
        if self.begin("sync", path)? {
            self.machine.disk.failed_sync(file)?;
            return Err(self.error());
        }
        self.machine.disk.synced(file)
    }
}

impl Files for SimulatedFiles {
    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.sync_handle(&File::open(path)?, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check("rename", to)?;
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check("link", to)?;
        std::fs::hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.check("sync folder", dir)?;
        std::fs::metadata(dir)?;
        self.machine.disk.synced_folder(dir);
        Ok(())
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.check("make folder", dir)?;
        std::fs::create_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check("remove", path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.check("read", path)?;
        std::fs::read(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.check("list", dir)?;
        std::fs::metadata(dir)?;
        Ok(listing(dir)
            .into_keys()
            .map(|name| dir.join(name))
            .collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DurableFile>> {
        self.check("open", path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(SimulatedFile {
            files: Self {
                machine: Arc::clone(&self.machine),
                life: self.life,
            },
            path: path.to_owned(),
            file,
        }))
    }
}

struct SimulatedFile {
    files: SimulatedFiles,
    path: PathBuf,
    file: File,
}

impl DurableFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.files.check("read at", &self.path)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[filled..], position + filled as u64)?
            {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let machine = &self.files.machine;
        if machine.is_over(self.files.life) {
            return Err(over());
        }
        if machine.dies(Point::File) {
            // Some of it was on its way.
            let part = machine.below(bytes.len() as u64 + 1) as usize;
            self.file.write_all_at(&bytes[..part], position)?;
            machine.settle();
            return Err(over());
        }
        let fails = machine.once_in(machine.faults().files);
        machine.note(format_args!(
            "write {} {position}+{}{}",
            self.path.display(),
            bytes.len(),
            if fails { " fails" } else { "" }
        ));
        if fails {
            let part = machine.below(bytes.len() as u64 + 1) as usize;
            self.file.write_all_at(&bytes[..part], position)?;
            return Err(self.files.error());
        }
        self.file.write_all_at(bytes, position)?;
        let (from, to) = (position as usize, position as usize + bytes.len());
        machine.disk.written(&self.file, from, to)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.files.check("cut", &self.path)?;
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.files.sync_handle(&self.file, &self.path)
    }
}
