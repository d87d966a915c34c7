//! One bucket's folder: files made, published, read, deleted and walked, never outside of it. Blocks.
//!
//! Place: under everything that touches data files. Names come from `path.rs`; the kernel is told on top of that to stay
//! beneath the root and to follow no symbolic link (openat2 `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`; where the kernel has
//! no openat2, every folder is opened one by one with `O_NOFOLLOW`).
//!
//! Order of writes: temporary file, fsync, rename, fsync of the folder and of every folder above it that is not known to
//! survive a power cut. A crash leaves a temporary file, which the next opening removes, or a complete file that nobody
//! has been told of. Deleting does not fsync: after a power cut a deleted file may be back, as one that no row knows.

use super::limits::{DURABLE_FOLDERS_KNOWN, PROBES_MAX, PUBLISH_TRIES};
use super::marker::{self, Owner, Unmarked};
use super::path::{CONFLICT, RESERVED};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Folders of the store itself below [`RESERVED`].
const OWN_FOLDERS: [&str; 3] = ["tmp", "uploads", "meta"];

/// Who may read what a tree makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The owner only.
    Private,
    /// As the process's umask says: for folders that people asked for.
    Umask,
}

/// A bucket's folder.
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    access: Access,
    /// Folders whose names are known to survive a power cut.
    durable: Mutex<HashSet<String>>,
    /// Held while the folder is open, if it lies outside of the data folder.
    _lock: Option<File>,
}

/// A temporary file. Deleted when it is dropped before it was published.
pub(super) struct Temp {
    tree: Arc<Tree>,
    name: String,
    /// The open file.
    pub(super) file: File,
    published: bool,
}

impl Tree {
    /// Makes the folder, if need be, and takes it for the bucket of that name. `owner`: the data folder, for a folder outside
    /// of it. Errors: those of [`marker::hold`].
    pub(super) fn create(path: &Path, bucket: &str, owner: Option<&Owner>) -> io::Result<Tree> {
        std::fs::create_dir_all(path)?;
        let lock = marker::hold(path, bucket, owner, Unmarked::Take)?;
        for folder in path.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            match File::open(folder).and_then(|folder| folder.sync_all()) {
                Ok(()) => {}
                // A folder above that this user may not open was not made just now either.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                Err(error) => return Err(error),
            }
        }
        Tree::held(path, lock)
    }

    /// Opens a folder that was made for this bucket. Errors: those of [`marker::hold`]; a folder that is not there (its disk
    /// is not mounted) is never to be taken for an empty bucket (V8).
    pub(super) fn open(path: &Path, bucket: &str, owner: Option<&Owner>) -> io::Result<Tree> {
        let lock = marker::hold(path, bucket, owner, Unmarked::Missing)?;
        Tree::held(path, lock)
    }

    /// A folder that is certain to be the bucket's. Its own folders are made again if somebody took them away.
    fn held(path: &Path, lock: Option<File>) -> io::Result<Tree> {
        let own = path.join(RESERVED);
        for folder in OWN_FOLDERS {
            std::fs::create_dir_all(own.join(folder))?;
        }
        File::open(&own)?.sync_all()?;
        let tree = Tree { _lock: lock, ..Tree::plain(path, Access::Private)? };
        for name in tree.names_in(&format!("{RESERVED}/tmp"))? {
            tree.remove_own(&format!("tmp/{name}"))?;
        }
        Ok(tree)
    }

    /// Any folder, made if need be, for files that people asked for.
    pub(super) fn folder(path: &Path) -> io::Result<Tree> {
        std::fs::create_dir_all(path.join(RESERVED).join("tmp"))?;
        Tree::plain(path, Access::Umask)
    }

    fn plain(path: &Path, access: Access) -> io::Result<Tree> {
        let root = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Tree { root, path: path.to_owned(), access, durable: Mutex::default(), _lock: None })
    }

    /// Whether the folder is still the bucket's: tells a missing file from a missing disk.
    pub(super) fn is_there(&self) -> bool {
        marker::is_bucket_folder(&self.path)
    }

    /// The first folder on the way to a file that is a bucket's or a data folder itself.
    pub(super) fn kept_on_the_way(&self, names: &[String]) -> io::Result<Option<String>> {
        let mut folder = String::new();
        for name in names.iter().take(names.len().saturating_sub(1)) {
            folder.push_str(name);
            for signs in marker::SIGNS {
                let mut there = 0;
                for sign in signs {
                    match self.open_file(&format!("{folder}/{sign}")) {
                        Ok(_) => there += 1,
                        Err(error) if is_no_such(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
                if there == signs.len() {
                    return Ok(Some(self.path.join(folder).display().to_string()));
                }
            }
            folder.push('/');
        }
        Ok(None)
    }

    /// A new temporary file.
    pub(super) fn temp(self: &Arc<Self>, name: String) -> io::Result<Temp> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let at = format!("{RESERVED}/tmp/{name}");
        let file = File::from(rustix::fs::openat(&self.root, at, flags, self.file_mode())?);
        Ok(Temp { tree: Arc::clone(self), name, file, published: false })
    }

    /// Gives a finished temporary file its name, durably, replacing what had it; the path that it got. The caller has
    /// fsynced the file.
    pub(super) fn publish(&self, temp: &mut Temp, names: &[String]) -> io::Result<String> {
        let (file, folders) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let from = format!("{RESERVED}/tmp/{}", temp.name);
        for _ in 0..PUBLISH_TRIES {
            let (folder, mut path) = self.make_folders(folders)?;
            let marked = format!("{file}{CONFLICT}");
            let mut name = file;
            let mut renamed = rustix::fs::renameat(&self.root, &from, &folder, name);
            if matches!(renamed, Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY)) {
                name = &marked;
                renamed = rustix::fs::renameat(&self.root, &from, &folder, name);
            }
            match renamed {
                Ok(()) => {}
                // The folder was empty, and was removed between our two calls: once more.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            }
            temp.published = true;
            rustix::fs::fsync(&folder)?;
            path.push_str(name);
            return Ok(path);
        }
        Err(io::Error::other("the folder vanished again and again"))
    }

    /// Opens a data file for reading.
    pub(super) fn open_file(&self, path: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = File::from(self.open_beneath(path, flags)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::ISDIR.into()) }
    }

    /// The path of a plain file whose names may carry marks of conflict; `None` when there is none.
    pub(super) fn find(&self, names: &[String]) -> io::Result<Option<String>> {
        let mut probes = PROBES_MAX;
        self.find_below(String::new(), names, &mut probes)
    }

    fn find_below(&self, above: String, names: &[String], probes: &mut usize) -> io::Result<Option<String>> {
        let Some((name, rest)) = names.split_first() else { return Ok(None) };
        for mark in ["", "%"] {
            if *probes == 0 {
                return Ok(None);
            }
            *probes -= 1;
            let path = format!("{above}{name}{mark}");
            let opened = if rest.is_empty() {
                self.open_file(&path).map(drop)
            } else {
                self.open_beneath(&path, OFlags::RDONLY | OFlags::DIRECTORY).map(drop).map_err(io::Error::from)
            };
            match opened {
                Ok(()) if rest.is_empty() => return Ok(Some(path)),
                Ok(()) => {
                    if let Some(found) = self.find_below(path + "/", rest, probes)? {
                        return Ok(Some(found));
                    }
                }
                Err(error) if is_no_such(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Deletes data files; those that are gone already are fine. One result each. Folders left empty go too.
    pub(super) fn remove(&self, paths: &[String]) -> Vec<io::Result<()>> {
        let mut parents = BTreeSet::new();
        let results = paths
            .iter()
            .map(|path| {
                let (parent, name) = split(path);
                match self
                    .open_folder(parent)
                    .and_then(|folder| Ok(rustix::fs::unlinkat(&folder, name, AtFlags::empty())?))
                {
                    Err(error) if !is_no_such(&error) => return Err(error),
                    _ => {}
                }
                parents.insert(parent);
                Ok(())
            })
            .collect();
        for parent in parents.into_iter().rev() {
            self.prune(parent);
        }
        results
    }

    /// Moves a data file out of the bucket, into the store's own folder, under the same names; fine when it is gone.
    pub(super) fn set_aside(&self, path: &str) -> io::Result<()> {
        let (parent, name) = split(path);
        let folders: Vec<String> = [RESERVED, "aside"]
            .into_iter()
            .chain(parent.split('/').filter(|n| !n.is_empty()))
            .map(str::to_owned)
            .collect();
        let (folder, _) = self.make_folders(&folders)?;
        match self.open_folder(parent).and_then(|from| Ok(rustix::fs::renameat(&from, name, &folder, name)?)) {
            Err(error) if !is_no_such(&error) => return Err(error),
            _ => {}
        }
        self.prune(parent);
        Ok(())
    }

    /// Removes a folder and those above it, as long as they are empty. Failing to is no failure: empty folders are
    /// litter, and the next removal beside them tries again.
    fn prune(&self, folder: &str) {
        let mut folder = folder;
        while !folder.is_empty() {
            self.durable().remove(folder);
            let (parent, name) = split(folder);
            let removed = self
                .open_folder(parent)
                .and_then(|parent| Ok(rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?));
            if removed.is_err() {
                return;
            }
            folder = parent;
        }
    }

    /// The path of every data file, in no order. Symbolic links and whatever else is no file are passed over.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let opened = match self.open_folder(&folder) {
                Ok(opened) => opened,
                Err(error) if is_no_such(&error) => continue,
                Err(error) => return Err(error),
            };
            let prefix = if folder.is_empty() { String::new() } else { folder + "/" };
            for entry in Dir::new(opened)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if name == "." || name == ".." || (prefix.is_empty() && name == RESERVED) {
                    continue;
                }
                let path = format!("{prefix}{name}");
                match self.type_of(&entry, &path)? {
                    FileType::Directory => folders.push(path),
                    FileType::RegularFile => visit(&path)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn type_of(&self, entry: &rustix::fs::DirEntry, path: &str) -> io::Result<FileType> {
        if entry.file_type() != FileType::Unknown {
            return Ok(entry.file_type());
        }
        let (parent, name) = split(path);
        let folder = self.open_folder(parent)?;
        let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Gives a finished temporary file one of the store's own names, durably.
    pub(super) fn publish_own(&self, temp: &mut Temp, path: &str) -> io::Result<()> {
        let names: Vec<String> = std::iter::once(RESERVED).chain(path.split('/')).map(str::to_owned).collect();
        self.publish(temp, &names).map(drop)
    }

    /// Opens one of the store's own files.
    pub(super) fn open_own(&self, path: &str, write: bool) -> io::Result<File> {
        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
        Ok(File::from(self.open_beneath(&format!("{RESERVED}/{path}"), flags)?))
    }

    /// Reads one of the store's own small files; `None` when it is not there.
    pub(super) fn read_own(&self, path: &str) -> io::Result<Option<String>> {
        let mut text = String::new();
        match self.open_own(path, false).and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => Ok(Some(text)),
            Err(error) if is_no_such(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hard-links one of the store's own files into the temporary folder.
    pub(super) fn temp_from_own(self: &Arc<Self>, path: &str, name: String) -> io::Result<Temp> {
        let to = format!("{RESERVED}/tmp/{name}");
        rustix::fs::linkat(&self.root, format!("{RESERVED}/{path}"), &self.root, &to, AtFlags::empty())?;
        let file = File::from(self.open_beneath(&to, OFlags::RDWR)?);
        Ok(Temp { tree: Arc::clone(self), name, file, published: false })
    }

    /// Deletes one of the store's own files; fine when it is gone.
    pub(super) fn remove_own(&self, path: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.root, format!("{RESERVED}/{path}"), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes one of the store's own folders with the files in it; fine when it is gone.
    pub(super) fn remove_own_folder(&self, folder: &str) -> io::Result<()> {
        let path = format!("{RESERVED}/{folder}");
        let names = match self.names_in(&path) {
            Ok(names) => names,
            Err(error) if is_no_such(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names {
            self.remove_own(&format!("{folder}/{name}"))?;
        }
        self.durable().remove(&path);
        match rustix::fs::unlinkat(&self.root, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The uploads that have files here.
    pub(super) fn uploads(&self) -> io::Result<Vec<String>> {
        self.names_in(&format!("{RESERVED}/uploads"))
    }

    /// Takes the store's own folder away again, if nothing is in it.
    pub(super) fn remove_empty_own(&self) {
        for folder in [format!("{RESERVED}/tmp"), RESERVED.to_owned()] {
            if let Err(error) = rustix::fs::unlinkat(&self.root, folder, AtFlags::REMOVEDIR) {
                tracing::debug!(%error, "the folder for temporary files stays");
            }
        }
    }

    fn names_in(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.open_folder(folder)?)? {
            match entry?.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    /// Opens the folders one below the other, making those that are missing; the last one, and its path with a slash.
    fn make_folders(&self, names: &[String]) -> io::Result<(OwnedFd, String)> {
        let whole = names.join("/");
        if names.is_empty() || self.durable().contains(&whole) {
            match self.open_folder(&whole) {
                Ok(folder) => return Ok((folder, if names.is_empty() { whole } else { whole + "/" })),
                Err(error) if is_no_such(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut path = String::new();
        let mut folder = self.root.try_clone()?;
        for name in names {
            let (below, name) = match self.make_folder(&folder, name, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    let marked = format!("{name}{CONFLICT}");
                    (self.make_folder(&folder, &marked, &path)?, marked)
                }
                made => (made?, name.clone()),
            };
            path.push_str(&name);
            path.push('/');
            folder = below;
        }
        Ok((folder, path))
    }

    fn make_folder(&self, parent: &OwnedFd, name: &str, above: &str) -> io::Result<OwnedFd> {
        let path = format!("{above}{name}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(parent, name, flags, Mode::empty());
        let (folder, made) = match open() {
            Ok(folder) => (folder, false),
            Err(Errno::NOENT) => match rustix::fs::mkdirat(parent, name, self.folder_mode()) {
                Ok(()) | Err(Errno::EXIST) => (open()?, true),
                Err(error) => return Err(error.into()),
            },
            Err(Errno::LOOP) => return Err(Errno::NOTDIR.into()),
            Err(error) => return Err(error.into()),
        };
        if made || !self.durable().contains(&path) {
            rustix::fs::fsync(parent)?;
            let mut known = self.durable();
            if known.len() >= DURABLE_FOLDERS_KNOWN {
                known.clear();
            }
            known.insert(path);
        }
        Ok(folder)
    }

    fn open_folder(&self, path: &str) -> io::Result<OwnedFd> {
        if path.is_empty() {
            // A duplicate would share the position of a listing: opened anew.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            return Ok(rustix::fs::openat(&self.root, ".", flags, Mode::empty())?);
        }
        Ok(self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?)
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) => self.open_step_by_step(path, flags),
            opened => opened,
        }
    }

    fn open_step_by_step(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let (parent, name) = split(path);
        let mut folder: Option<OwnedFd> = None;
        for step in parent.split('/').filter(|step| !step.is_empty()) {
            let above = folder.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let step_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = Some(rustix::fs::openat(above, step, step_flags, Mode::empty())?);
        }
        let above = folder.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        rustix::fs::openat(above, name, flags, Mode::empty())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file_mode(&self) -> Mode {
        Mode::from_raw_mode(if self.access == Access::Private { 0o600 } else { 0o666 })
    }

    fn folder_mode(&self) -> Mode {
        Mode::from_raw_mode(if self.access == Access::Private { 0o700 } else { 0o777 })
    }
}

impl Temp {
    /// Leaves the file where it is, as a crash would.
    #[cfg(test)]
    pub(super) fn leave(&mut self) {
        self.published = true;
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = self.tree.remove_own(&format!("tmp/{}", self.name))
        {
            tracing::debug!(%error, "a temporary file stays until the next start");
        }
    }
}

/// Whether an error says that there is no such file: it, or a folder on its way, is missing or is something else.
pub(super) fn is_no_such(error: &io::Error) -> bool {
    let loops = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    loops
        || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
