//! The key pair of the S3 endpoint: made once, kept in the data folder in a file that only its owner can read.
//!
//! Used by `serve` (load or create, before the endpoint listens) and by `credentials show|rotate`. The secret is never
//! logged: its `Debug` is redacted and it has no `Display`. Rotation has no overlap: the old pair, and every presigned URL
//! made with it, ends at once, because one rotates a pair that may be known to others. A running endpoint is told through
//! its [`Keyring`].
//!
//! A crash half-way leaves the old file or the new one, never a part: the new one is written aside, made durable, renamed.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Name of the file in the data folder.
pub const CREDENTIALS_FILE: &str = "credentials.json";
/// The layout that this program writes.
const FORMAT: u32 = 1;
/// Characters of an access key: S3 clients expect 20 upper-case letters and digits.
const ACCESS_KEY_CHARS: usize = 20;
/// Every access key begins with this, so that a leaked one can be recognised.
const ACCESS_KEY_PREFIX: &str = "AFIM";
/// Characters of a secret key (about 238 bits).
const SECRET_KEY_CHARS: usize = 40;
/// A credentials file is far smaller; more is not read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const UPPER: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const MIXED: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Why there are no credentials. Each message names the file and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Others than the owner have rights on the file.
    #[error(
        "{path} can be read or written by others (mode {mode:04o}); run: chmod 600 {path}, and rotate the pair if others have access to this machine"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is no credentials file, or one of a newer program.
    #[error(
        "{path} is no credentials file that this version can read: {why}; move it away and a new pair is made at the next start"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refused.
    #[error("{attempted} {path}")]
    Io {
        /// Verb: `read`, `write`.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Its own error.
        #[source]
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the operating system gave no random bytes for a new key pair: {0}")]
    Random(getrandom::Error),
}

/// One key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
}

/// Whether the pair was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made by this call: show it to the person, once.
    Created,
    /// It was in the file.
    Loaded,
}

/// The file's layout.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredCredentials {
    version: u32,
    access_key: String,
    secret_key: String,
}

impl Credentials {
    /// A pair given by someone else (tests, configuration).
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Credentials {
        Credentials { access_key: access_key.into(), secret_key: secret_key.into() }
    }

    /// The public half.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret half. For signatures, and for a person who asks for it; never for a log.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The pair of this data folder; made and stored (mode 0600, durable) if there is none.
    pub fn load_or_create(data_folder: &Path) -> Result<(Credentials, Origin), CredentialsError> {
        if let Some(found) = Credentials::load(data_folder)? {
            return Ok((found, Origin::Loaded));
        }
        let made = Credentials::generate()?;
        made.store(data_folder)?;
        Ok((made, Origin::Created))
    }

    /// The pair of this data folder, if there is one. Refuses a file on which others have any right.
    pub fn load(data_folder: &Path) -> Result<Option<Credentials>, CredentialsError> {
        let path = data_folder.join(CREDENTIALS_FILE);
        let failed = |source| CredentialsError::Io { attempted: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(CredentialsError::Exposed { path, mode });
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        // The parser's own message may quote the file, and with it the secret: only the place of the fault is told.
        let stored: StoredCredentials = serde_json::from_str(&text).map_err(|error| CredentialsError::Unreadable {
            path: path.clone(),
            why: format!("fault in line {}, column {}", error.line(), error.column()),
        })?;
        if stored.version != FORMAT {
            let why = format!("it has layout {}, this version reads {FORMAT}", stored.version);
            return Err(CredentialsError::Unreadable { path, why });
        }
        Ok(Some(Credentials::new(stored.access_key, stored.secret_key)))
    }

    /// Makes a new pair and stores it in place of the old one, which ends at once.
    pub fn rotate(data_folder: &Path) -> Result<Credentials, CredentialsError> {
        let made = Credentials::generate()?;
        made.store(data_folder)?;
        Ok(made)
    }

    fn generate() -> Result<Credentials, CredentialsError> {
        let access = random_text(ACCESS_KEY_CHARS - ACCESS_KEY_PREFIX.len(), UPPER)?;
        let secret_key = random_text(SECRET_KEY_CHARS, MIXED)?;
        Ok(Credentials { access_key: format!("{ACCESS_KEY_PREFIX}{access}"), secret_key })
    }

    fn store(&self, data_folder: &Path) -> Result<(), CredentialsError> {
        let path = data_folder.join(CREDENTIALS_FILE);
        let failed = |source| CredentialsError::Io { attempted: "write", path: path.clone(), source };
        let stored = StoredCredentials {
            version: FORMAT,
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
        };
        let mut text = serde_json::to_vec_pretty(&stored).map_err(|error| failed(io::Error::other(error)))?;
        text.push(b'\n');
        // Born with mode 0600: there is no moment in which others could read it.
        let mut file = tempfile::Builder::new()
            .prefix(".credentials-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(data_folder)
            .map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        File::open(data_folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key", &self.access_key).field("secret_key", &"***").finish()
    }
}

fn random_text<const N: usize>(length: usize, alphabet: &[u8; N]) -> Result<String, CredentialsError> {
    const { assert!(N.is_power_of_two() && N <= 256, "a remainder would favour some letters") };
    let mut bytes = vec![0_u8; length];
    getrandom::fill(&mut bytes).map_err(CredentialsError::Random)?;
    Ok(bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % N])).collect())
}

/// The pair that a running endpoint accepts; shared with whoever may rotate it.
#[derive(Clone, Debug)]
pub struct Keyring(Arc<RwLock<Credentials>>);

impl Keyring {
    /// A keyring that accepts this pair.
    pub fn new(credentials: Credentials) -> Keyring {
        Keyring(Arc::new(RwLock::new(credentials)))
    }

    /// From now on only this pair is accepted.
    pub fn replace(&self, credentials: Credentials) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// The secret that belongs to this access key, if it is the accepted one.
    pub fn secret_of(&self, access_key: &str) -> Option<String> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (current.access_key == access_key).then(|| current.secret_key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_made_once_with_mode_0600_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let (made, origin) = Credentials::load_or_create(folder.path()).unwrap();
        assert_eq!(origin, Origin::Created);
        assert_eq!((made.access_key().len(), made.secret_key().len()), (20, 40));
        let mode = fs::metadata(folder.path().join(CREDENTIALS_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(Credentials::load_or_create(folder.path()).unwrap(), (made, Origin::Loaded));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        Credentials::load_or_create(folder.path()).unwrap();
        let path = folder.path().join(CREDENTIALS_FILE);
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Credentials::load(folder.path()).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn the_secret_shows_in_no_debug_and_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let (made, _) = Credentials::load_or_create(folder.path()).unwrap();
        assert!(!format!("{made:?} {:?}", Keyring::new(made.clone())).contains(made.secret_key()));
        let path = folder.path().join(CREDENTIALS_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("secret_key", "secret_kex")).unwrap();
        let error = Credentials::load(folder.path()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(made.secret_key()));
    }

    #[test]
    fn rotation_ends_the_old_pair_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (old, _) = Credentials::load_or_create(folder.path()).unwrap();
        let keyring = Keyring::new(old.clone());
        let new = Credentials::rotate(folder.path()).unwrap();
        keyring.replace(new.clone());
        assert_ne!(old, new);
        assert_eq!(keyring.secret_of(old.access_key()), None);
        assert_eq!(keyring.secret_of(new.access_key()).as_deref(), Some(new.secret_key()));
        assert_eq!(Credentials::load(folder.path()).unwrap(), Some(new));
    }

    #[test]
    fn a_file_of_a_newer_program_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Credentials::load_or_create(folder.path()).unwrap();
        let path = folder.path().join(CREDENTIALS_FILE);
        let text = fs::read_to_string(&path).unwrap().replace("\"version\": 1", "\"version\": 2");
        fs::write(&path, text).unwrap();
        assert!(Credentials::load(folder.path()).unwrap_err().to_string().contains("layout 2"));
    }
}
