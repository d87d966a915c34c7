//! Whose folder a bucket's folder is: the file `.afterimage/bucket`, and the lock beside it. Blocks.
//!
//! Place: under `tree.rs`, before anything in the folder is touched. The file's first line is the bucket's name. A folder
//! outside of the data folder (on another disk, on a share) can be reached by two data folders, whose purges would destroy
//! each other's copies: its second line is `data-folder <id> <path>`, whose it is, and while it is open `.afterimage/lock` is
//! held by `flock`. Another data folder is refused until a person says that it takes the folder over; the one that lost it is
//! refused from then on.
//!
//! The id stands in the data folder's file `id`. Both files are written whole: temporary file, fsync, rename, fsync of the
//! folder. A crash leaves the old one, or none and a temporary file that the next writing replaces.

use super::path::RESERVED;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file that says whose folder this is.
const MARKER: &str = "bucket";
/// The file that is locked while the folder is open.
const LOCK: &str = "lock";
/// The data folder's file with its id.
const ID: &str = "id";
/// How the line of the owner begins.
const OWNER: &str = "data-folder ";

/// A data folder, as a folder outside of it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Its id.
    pub(super) id: String,
    /// Where it was when it took the folder; for messages.
    pub(super) at: String,
}

impl Owner {
    /// The data folder's own name of itself, made at its first opening.
    pub(super) fn of(data_dir: &Path, new_id: String) -> io::Result<Owner> {
        let file = data_dir.join(ID);
        let id = match fs::read_to_string(&file) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the data folder's id is empty")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_whole(&file, &format!("{new_id}\n"))?;
                new_id
            }
            Err(error) => return Err(error),
        };
        let at = data_dir.display().to_string().replace(char::is_control, "?");
        Ok(Owner { id, at })
    }
}

/// What to do with a folder that has no marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unmarked {
    /// Mark it.
    Take,
    /// Fail with `NotFound`: its disk is not mounted, or somebody took it away (V8).
    Missing,
}

struct Marker {
    bucket: String,
    owner: Option<Owner>,
}

/// Whether a folder is a bucket's, of whatever data folder.
pub fn is_bucket_folder(folder: &Path) -> bool {
    folder.join(RESERVED).join(MARKER).exists()
}

/// Files by which a folder is known to be kept for the program itself: a bucket's, or a data folder.
pub(super) const SIGNS: [&[&str]; 2] = [&[".afterimage/bucket"], &["format", super::STATE_FILE]];

fn is_kept(folder: &Path) -> bool {
    SIGNS.iter().any(|signs| signs.iter().all(|sign| folder.join(sign).is_file()))
}

/// The bucket's or data folder that this folder is, or lies in, wherever symbolic links lead. Folders that are not there yet
/// are in their nearest parent that is.
pub(super) fn enclosing(folder: &Path) -> io::Result<Option<PathBuf>> {
    let absolute = std::path::absolute(folder)?;
    let there = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let real = there.canonicalize()?;
    Ok(real.ancestors().find(|folder| is_kept(folder)).map(Path::to_owned))
}

/// Makes sure that the folder is this bucket's, marks it if it is nobody's, and locks it if it has an owner. The lock is held
/// for as long as the file lives. Errors: `AlreadyExists` (another bucket's), `PermissionDenied` (another data folder's),
/// `NotFound`.
pub(super) fn hold(root: &Path, bucket: &str, owner: Option<&Owner>, unmarked: Unmarked) -> io::Result<Option<File>> {
    if unmarked == Unmarked::Missing && !is_bucket_folder(root) {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", root.display())));
    }
    fs::create_dir_all(root.join(RESERVED))?;
    let lock = owner.map(|_| lock(root)).transpose()?.flatten();
    let found = read(root)?;
    let (renamed, theirs) = match &found {
        None => (false, None),
        Some(marker) => (marker.bucket != bucket, marker.owner.as_ref()),
    };
    let ours = owner.is_some() && theirs.map(|theirs| &theirs.id) == owner.map(|owner| &owner.id);
    if let Some((theirs, owner)) = theirs.zip(owner).filter(|_| !ours) {
        let (root, them, us) = (root.display(), &theirs.at, &owner.at);
        let why = format!(
            "the folder {root} holds the copies of the data folder {them} ({}), not those of {us} ({}): name another \
             destination; or, if {them} is lost or will never be served again, start once with `afterimage serve \
             --take-over`",
            theirs.id, owner.id
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    // A destination that was moved keeps its owner, and gets the name that its new place has.
    if renamed && !ours {
        let name = found.as_ref().map_or("", |marker| marker.bucket.as_str());
        let why = format!("the folder {} belongs to bucket `{name}`", root.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    if found.is_none() || renamed || (owner.is_some() && theirs.is_none()) {
        write(root, &Marker { bucket: bucket.to_owned(), owner: owner.cloned() })?;
    }
    Ok(lock)
}

/// Makes a marked folder this data folder's and this bucket's, whosever it was; fails when a process works on it. A folder
/// without marker, or with no other owner, is left for [`hold`]. Errors: `PermissionDenied`, also for a folder that is part of a data folder: the
/// marker there names no owner, and the one who works on it holds the data folder's lock alone.
pub(super) fn take_over(root: &Path, bucket: &str, owner: &Owner) -> io::Result<()> {
    let Some(marker) = read(root)? else { return Ok(()) };
    let above = root.canonicalize()?.parent().map_or(Ok(None), enclosing)?;
    let part_of = match above {
        Some(above) => Some(above.display().to_string()),
        None if marker.owner.is_none() && marker.bucket != bucket => {
            Some(format!("another folder, as its bucket `{}`", marker.bucket))
        }
        None => None,
    };
    if let Some(part_of) = part_of {
        let root = root.display();
        let why = format!("the folder {root} is part of {part_of}, and is not taken over: name another destination");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let _lock = lock(root)?;
    write(root, &Marker { bucket: bucket.to_owned(), owner: Some(owner.clone()) })
}

fn lock(root: &Path) -> io::Result<Option<File>> {
    let file = root.join(RESERVED).join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(file)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let why =
                format!("another process, or another policy, works on the folder {}: stop that one", root.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
        Err(error) => {
            // Not every share has locks. Whose the folder is still holds.
            tracing::warn!(folder = %root.display(), %error, "cannot be locked: nothing else may write there");
            Ok(None)
        }
    }
}

fn read(root: &Path) -> io::Result<Option<Marker>> {
    let text = match fs::read_to_string(root.join(RESERVED).join(MARKER)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut lines = text.lines();
    let bucket = lines.next().unwrap_or_default().trim_end().to_owned();
    let owner = lines.find_map(|line| line.strip_prefix(OWNER)).map(|line| {
        let (id, at) = line.split_once(' ').unwrap_or((line, "somewhere"));
        Owner { id: id.to_owned(), at: at.to_owned() }
    });
    Ok(Some(Marker { bucket, owner }))
}

fn write(root: &Path, marker: &Marker) -> io::Result<()> {
    let owner = marker.owner.as_ref().map_or(String::new(), |owner| format!("{OWNER}{} {}\n", owner.id, owner.at));
    write_whole(&root.join(RESERVED).join(MARKER), &format!("{}\n{owner}", marker.bucket))
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
