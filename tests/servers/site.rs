//! What every server is given: a directory of its own, the certificate of this run, the same two files to serve.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::Failure;
use crate::certs::certs;

/// What `GET /small` answers.
pub(crate) const SMALL: &[u8] = b"a small file\n";
/// How long the file behind `GET /big` is, and every upload.
pub(crate) const BIG: usize = 1 << 20;
/// How many different uploads there are: the one numbered `i` is the pattern from byte `i` on.
pub(crate) const UPLOADS: usize = 256;

/// The bytes that are sent to and fro: random, the same in every run.
pub(crate) fn pattern() -> &'static Bytes {
    static PATTERN: OnceLock<Bytes> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut bytes = vec![0; BIG + UPLOADS];
        StdRng::seed_from_u64(9113).fill_bytes(&mut bytes);
        Bytes::from(bytes)
    })
}

/// The file behind `GET /big`.
pub(crate) fn big() -> Bytes {
    pattern().slice(..BIG)
}

/// The body of an upload.
pub(crate) fn upload(number: usize) -> Bytes {
    let start = number % UPLOADS;
    pattern().slice(start..start + BIG)
}

/// The directory of this run. Servers that give up root's rights must be able to read it, hence not in a home directory.
pub(crate) struct Site {
    root: PathBuf,
    keep: bool,
}

impl Site {
    /// Writes the certificate and the files to serve.
    pub(crate) fn create() -> Result<Self, Failure> {
        let temp = std::env::temp_dir();
        remove_left_behind(&temp)?;
        let root = temp.join(format!("{PREFIX}{}", std::process::id()));
        let www = root.join("www");
        fs::create_dir_all(&www)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))?;
        fs::write(www.join("small"), SMALL)?;
        fs::write(www.join("big"), big())?;
        fs::write(root.join("pattern"), pattern())?;
        let leaf = &certs().leaf;
        fs::write(root.join("cert.pem"), &leaf.cert_pem)?;
        fs::write(root.join("key.pem"), &leaf.key_pem)?;
        fs::write(
            root.join("both.pem"),
            format!("{}{}", leaf.cert_pem, leaf.key_pem),
        )?;
        Ok(Self { root, keep: false })
    }

    /// Leaves the directory, with the servers' configuration and logs, for somebody to look at.
    pub(crate) fn keep(&mut self) -> &Path {
        self.keep = true;
        &self.root
    }

    /// A path below the directory, as configuration files have it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }

    /// Makes a directory for one start of a server, which even a server that gave up its rights may write to.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let dir = self.root.join(name);
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
        Ok(dir)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !self.keep {
            // A leftover is removed by the next run.
            drop(fs::remove_dir_all(&self.root));
        }
    }
}

const PREFIX: &str = "h2pool-servers-";

/// Removes what runs left that were killed or failed; those still under way are spared.
fn remove_left_behind(temp: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(temp)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        if !Path::new("/proc").join(id).exists() {
            // Another user's directory stays.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

/// Where built servers and Envoy are: `servers` in the target directory.
pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("servers")
}
