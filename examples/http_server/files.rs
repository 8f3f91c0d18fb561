//! From the path of a request to a file of the served directory, and never to one outside it.
//!
//! Files are read and directories listed on the worker itself: until that comes from the disk, no other
//! coroutine runs. Small files are therefore kept in memory, and looked at again once they are a second old.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::answer::{Refusal, Status};
use super::listing;

/// Files up to this size are sent from memory; larger ones are streamed.
const SMALL_LIMIT: u64 = 64 * 1024;
/// The most bytes the kept files and their names take; when it is reached all of them are let go.
const CACHE_LIMIT: usize = 16 * 1024 * 1024;
/// How long a kept file is believed to be unchanged.
const CACHE_FRESH: Duration = Duration::from_secs(1);

/// The page served where there is no directory to serve.
const BUILT_IN: &str = include_str!("../../docs/index.html");

/// One version of a file: its bytes, and what identifies them.
pub struct Entity {
    /// A strong validator: another version has another one.
    pub etag: String,
    pub modified: SystemTime,
    /// `modified` as HTTP writes it.
    pub modified_text: String,
    /// The media type.
    pub kind: String,
    pub len: u64,
    pub bytes: Bytes,
}

/// Where the bytes of an entity are.
pub enum Bytes {
    Memory(Box<[u8]>),
    File(File),
}

/// What a path leads to.
pub enum Found {
    Entity(Arc<Entity>),
    /// A page made on the spot: the listing of a directory.
    Page(String),
    /// A directory that was named without its slash, and the target that names it right.
    Moved(String),
}

/// What is served.
pub struct Site {
    /// The directory, with all links in its path followed; without one there is only the built-in page.
    root: Option<PathBuf>,
    cache: Mutex<Cache>,
}

impl Site {
    /// The files under `root`, or the built-in page.
    pub fn open(root: Option<&Path>) -> io::Result<Site> {
        let root = root.map(fs::canonicalize).transpose()?;
        if let Some(root) = &root {
            fs::read_dir(root)?;
        }
        Ok(Site { root, cache: Mutex::default() })
    }

    /// Looks up the still percent-encoded `path` of a request.
    pub fn find(&self, path: &str, query: Option<&str>) -> Result<Found, Refusal> {
        let known = match super::lock(&self.cache).get(path) {
            Some((entity, true)) => return Ok(Found::Entity(entity)),
            Some((entity, false)) => Some(entity),
            None => None,
        };
        let name = Name::decode(path)?;
        let Some(root) = &self.root else {
            return if name.segments.is_empty() {
                let entity = known.unwrap_or_else(|| Arc::new(built_in()));
                super::lock(&self.cache).keep(path, &entity);
                Ok(Found::Entity(entity))
            } else {
                Err(NOT_FOUND)
            };
        };
        let mut asked = root.clone();
        asked.extend(&name.segments);
        let (mut real, mut metadata) = beneath(root, &asked)?;
        if metadata.is_dir() {
            if !name.is_directory {
                return Ok(Found::Moved(name.as_directory(query)));
            }
            asked.push("index.html");
            (real, metadata) = match beneath(root, &asked) {
                Ok((real, metadata)) if metadata.is_file() => (real, metadata),
                Ok(_) | Err(Refusal { status: Status::NOT_FOUND, .. }) => {
                    return listing::page(&real, &name.segments).map(Found::Page).map_err(refusal_of);
                }
                Err(refusal) => return Err(refusal),
            };
        } else if name.is_directory {
            return Err(NOT_FOUND);
        }
        if !metadata.is_file() {
            return Err(Refusal::new(Status::FORBIDDEN, "this is not a file"));
        }
        let file = File::open(&real).map_err(refusal_of)?;
        stayed_beneath(root, &file)?;
        let entity = load(file, &asked, known).map_err(refusal_of)?;
        if matches!(entity.bytes, Bytes::Memory(_)) {
            super::lock(&self.cache).keep(path, &entity);
        }
        Ok(Found::Entity(entity))
    }
}

const NOT_FOUND: Refusal = Refusal { status: Status::NOT_FOUND, reason: "there is no such file" };
const OUTSIDE: Refusal = Refusal { status: Status::FORBIDDEN, reason: "the path leads out of the served directory" };

/// A decoded path: the names in it, one a directory level.
struct Name {
    segments: Vec<OsString>,
    /// Whether the path ended in a slash.
    is_directory: bool,
}

impl Name {
    fn decode(path: &str) -> Result<Name, Refusal> {
        let mut segments = Vec::new();
        let mut is_directory = true;
        for encoded in path.split('/') {
            let segment = listing::percent_decode(encoded)
                .ok_or(Refusal::new(Status::BAD_REQUEST, "the path has a % that is not followed by two hex digits"))?;
            is_directory = matches!(&segment[..], b"" | b".");
            if segment.contains(&0) {
                return Err(Refusal::new(Status::BAD_REQUEST, "the path has a zero byte"));
            }
            if segment == b".." || segment.contains(&b'/') {
                return Err(OUTSIDE);
            }
            if !is_directory {
                segments.push(OsString::from_vec(segment));
            }
        }
        Ok(Name { segments, is_directory })
    }

    /// The target of the same name with a slash behind it. It begins with exactly one slash: two would name a host.
    fn as_directory(&self, query: Option<&str>) -> String {
        let mut target = listing::target_of(&self.segments);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        target
    }
}

/// Follows all links of `path`, which must not lead out of `root`.
fn beneath(root: &Path, path: &Path) -> Result<(PathBuf, Metadata), Refusal> {
    let real = fs::canonicalize(path).map_err(refusal_of)?;
    if !real.starts_with(root) {
        return Err(OUTSIDE);
    }
    let metadata = fs::metadata(&real).map_err(refusal_of)?;
    Ok((real, metadata))
}

/// Asks the kernel where the file that was opened lies: a link may have been put into its path after [`beneath`].
fn stayed_beneath(root: &Path, file: &File) -> Result<(), Refusal> {
    match fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) {
        Ok(path) if !path.starts_with(root) => Err(OUTSIDE),
        // Where /proc is not mounted, the check of the path has to do.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Reads the entity of an open file, or finds that it is still the one that is `known`.
fn load(file: File, name: &Path, known: Option<Arc<Entity>>) -> io::Result<Arc<Entity>> {
    let metadata = file.metadata()?;
    // A file may be dated before 1970 or after 9999, which HTTP cannot write.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let modified = metadata.modified()?.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST);
    // Inode and both times: a file replaced by another of the same size and date has another inode, one changed in
    // place and dated back has another time of change.
    let etag = format!(
        "\"{:x}-{:x}-{:x}.{:x}-{:x}.{:x}\"",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    );
    if let Some(known) = known.filter(|known| known.etag == etag) {
        return Ok(known);
    }
    let mut len = metadata.len();
    let bytes = if len <= SMALL_LIMIT {
        let mut bytes = Vec::with_capacity(len as usize);
        (&file).take(SMALL_LIMIT).read_to_end(&mut bytes)?;
        // It may have changed size since.
        len = bytes.len() as u64;
        Bytes::Memory(bytes.into_boxed_slice())
    } else {
        Bytes::File(file)
    };
    let modified_text = httpdate::fmt_http_date(modified);
    Ok(Arc::new(Entity { etag, modified, modified_text, kind: kind_of(name), len, bytes }))
}

/// The media type that the name of a file suggests; text is taken to be UTF-8.
fn kind_of(name: &Path) -> String {
    let guess = mime_guess::from_path(name).first_or_octet_stream();
    match guess.type_().as_str() {
        "text" => format!("{guess}; charset=utf-8"),
        _ => guess.to_string(),
    }
}

fn built_in() -> Entity {
    let mut hasher = DefaultHasher::new();
    BUILT_IN.hash(&mut hasher);
    let modified = SystemTime::now();
    Entity {
        etag: format!("\"{:x}\"", hasher.finish()),
        modified,
        modified_text: httpdate::fmt_http_date(modified),
        kind: "text/html; charset=utf-8".into(),
        len: BUILT_IN.len() as u64,
        bytes: Bytes::Memory(BUILT_IN.as_bytes().into()),
    }
}

/// What a failed look at the file system means to the client.
fn refusal_of(error: io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => NOT_FOUND,
        ErrorKind::PermissionDenied => Refusal::new(Status::FORBIDDEN, "the server may not read this file"),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => NOT_FOUND,
        _ if super::is_out_of_descriptors(&error) => {
            Refusal::new(Status::UNAVAILABLE, "the server has no free file descriptor; ask again later")
        }
        _ => Refusal::new(Status::INTERNAL_ERROR, "the file cannot be read"),
    }
}

/// Small files by the path they were asked for.
#[derive(Default)]
struct Cache {
    entries: HashMap<String, (Arc<Entity>, Instant)>,
    bytes: usize,
}

impl Cache {
    /// The kept file, and whether it was looked at lately.
    fn get(&self, path: &str) -> Option<(Arc<Entity>, bool)> {
        let (entity, seen) = self.entries.get(path)?;
        Some((Arc::clone(entity), seen.elapsed() < CACHE_FRESH))
    }

    fn keep(&mut self, path: &str, entity: &Arc<Entity>) {
        // The fields of an entity, its place in the table and two small allocations.
        const OVERHEAD: usize = 512;
        let cost = |path: &str, entity: &Entity| path.len() + entity.len as usize + OVERHEAD;
        if let Some((old, _)) = self.entries.remove(path) {
            self.bytes -= cost(path, &old);
        }
        let more = cost(path, entity);
        if self.bytes + more > CACHE_LIMIT {
            self.entries.clear();
            self.bytes = 0;
        }
        self.bytes += more;
        self.entries.insert(path.to_owned(), (Arc::clone(entity), Instant::now()));
    }
}
