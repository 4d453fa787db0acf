//! The lake's files on a disk: what was put is durable before anybody is told that it is there.
//!
//! The object store that Delta comes with writes and renames, and syncs nothing: after a power failure a commit may be an
//! empty file, or name data that is not there, while the ledger behind it has been let go. [`DiskStore`] writes under
//! another name, syncs the file, gives it its name, syncs the folder, and answers then. Delta writes data files before
//! the commit that names them, so a commit that can be read names only files that can be read.
//!
//! [`install`] puts it in the place of Delta's own for `file:` locations; paths on disk are the same.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use deltalake::Path;
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use deltalake::logstore::{ObjectStoreFactory, ObjectStoreRef, StorageConfig, object_store_factories};
use futures::stream::{self, BoxStream, StreamExt};
use radarflow_proto::disk::{Appender, Disk, Found};
use tokio::sync::oneshot;

/// How files that are being written end; a start removes what a crash left of them.
const UNFINISHED: &str = ".unfinished";

/// An object store on a [`Disk`].
#[derive(Clone)]
pub(super) struct DiskStore {
    disk: Arc<dyn Disk>,
    /// Tells which file a location is, as Delta's own store does.
    names: Arc<LocalFileSystem>,
    /// Folders that are there after a power failure.
    made: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// Numbers files that are being written.
    writing: Arc<AtomicU64>,
}

/// Folders that are remembered to be there.
const MADE: usize = 65_536;

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskStore")
    }
}

impl fmt::Display for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskStore")
    }
}

fn failed(path: &FilePath, source: io::Error) -> Error {
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        _ => Error::Generic { store: "lake", source: format!("{path}: {source}").into() },
    }
}

/// Does it on a thread that may wait for the disk.
async fn waiting<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

impl DiskStore {
    /// The store of a disk; locations are absolute paths.
    pub(super) fn new(disk: Arc<dyn Disk>) -> DiskStore {
        DiskStore { disk, names: Arc::new(LocalFileSystem::new()), made: Arc::default(), writing: Arc::default() }
    }

    fn file(&self, location: &Path) -> Result<PathBuf> {
        self.names.path_to_filesystem(location)
    }

    /// A name of its own for a file while it is written, in a folder that is made if it is missing.
    fn begin(&self, path: &FilePath) -> Result<PathBuf> {
        if let Some(dir) = path.parent() {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if !made.contains(dir) {
                self.disk.make_dir(dir).map_err(|e| failed(dir, e))?;
                if made.len() >= MADE {
                    made.clear();
                }
                made.insert(dir.to_owned());
            }
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}{UNFINISHED}", self.writing.fetch_add(1, Ordering::Relaxed)));
        Ok(path.with_file_name(name))
    }

    /// Gives a whole, synced file its name.
    fn finish(&self, unfinished: &FilePath, path: &FilePath, create: bool) -> Result<()> {
        let named = if create {
            let linked = self.disk.link(unfinished, path);
            // Whatever came of it, one name is enough.
            let _ = self.disk.remove(unfinished);
            linked
        } else {
            self.disk.rename(unfinished, path)
        };
        named.map_err(|e| failed(path, e))?;
        path.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir).map_err(|e| failed(dir, e)))
    }

    fn put(&self, path: &FilePath, payload: &PutPayload, create: bool) -> Result<()> {
        let unfinished = self.begin(path)?;
        let write = || {
            let mut file = self.disk.create(&unfinished)?;
            payload.iter().try_for_each(|bytes| file.append(bytes))?;
            file.sync()
        };
        if let Err(error) = write() {
            let _ = self.disk.remove(&unfinished);
            return Err(failed(path, error));
        }
        self.finish(&unfinished, path, create)
    }

    fn meta(location: Path, found: &Found) -> ObjectMeta {
        let last_modified = DateTime::from_timestamp_millis(found.stat.modified_ms).unwrap_or_default();
        let e_tag = Some(format!("{:x}-{:x}", found.stat.modified_ms, found.stat.len));
        ObjectMeta { location, last_modified, size: found.stat.len, e_tag, version: None }
    }

    /// Files in a folder and those below it.
    fn walk(&self, dir: &FilePath, into: &mut Vec<ObjectMeta>) -> Result<()> {
        for found in self.disk.list(dir).map_err(|e| failed(dir, e))? {
            if found.stat.is_dir {
                self.walk(&found.path, into)?;
            } else {
                into.push(Self::meta(Path::from_absolute_path(&found.path)?, &found));
            }
        }
        Ok(())
    }

    fn read(&self, path: &FilePath, range: &Range<u64>) -> Result<Bytes> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let bytes = self.disk.read(path, range.start, len).map_err(|e| failed(path, e))?;
        if bytes.len() < len {
            let short = format!("{}: {range:?} is beyond its end", path.display());
            return Err(Error::Generic { store: "lake", source: short.into() });
        }
        Ok(bytes)
    }

    /// Removes what a crash left of files that were being written, in one folder.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn tidy(&self, dir: &FilePath) -> io::Result<()> {
        let left = self.disk.list(dir)?;
        let mut left = left.iter().filter(|f| f.path.to_string_lossy().ends_with(UNFINISHED));
        left.try_for_each(|found| self.disk.remove(&found.path))
    }
}

#[async_trait]
impl ObjectStore for DiskStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => {
                let (operation, implementer) = ("a conditional update".to_owned(), self.to_string());
                return Err(Error::NotImplemented { operation, implementer });
            }
        };
        let (store, path) = (self.clone(), self.file(location)?);
        waiting(move || store.put(&path, &payload, create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let (store, path) = (self.clone(), self.file(location)?);
        let (unfinished, file) = waiting({
            let (store, path) = (store.clone(), path.clone());
            move || {
                let unfinished = store.begin(&path)?;
                let file = store.disk.create(&unfinished).map_err(|e| failed(&unfinished, e))?;
                Ok((unfinished, file))
            }
        })
        .await?;
        Ok(Box::new(Upload { store, path, unfinished, file: Arc::new(Mutex::new(file)), before: None }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (store, location, path) = (self.clone(), location.clone(), self.file(location)?);
        waiting(move || {
            let stat = store.disk.stat(&path).map_err(|e| failed(&path, e))?;
            if stat.is_dir {
                return Err(failed(&path, io::ErrorKind::NotFound.into()));
            }
            let meta = Self::meta(location, &Found { path: path.clone(), stat });
            options.check_preconditions(&meta)?;
            let range = match options.range {
                Some(range) => range
                    .as_range(meta.size)
                    .map_err(|source| Error::Generic { store: "lake", source: source.into() })?,
                None => 0..meta.size,
            };
            let bytes = if options.head { Bytes::new() } else { store.read(&path, &range)? };
            let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
            Ok(GetResult { payload, meta, range, attributes: Default::default() })
        })
        .await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (store, path, ranges) = (self.clone(), self.file(location)?, ranges.to_vec());
        waiting(move || ranges.iter().map(|range| store.read(&path, range)).collect()).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            waiting(move || {
                let location = location?;
                let path = store.file(&location)?;
                store.disk.remove(&path).map_err(|e| failed(&path, e))?;
                Ok(location)
            })
        };
        locations.map(delete).buffered(8).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let found = waiting(move || {
            let mut found = Vec::new();
            store.walk(&store.file(&prefix)?, &mut found)?;
            Ok(found)
        });
        let found = async move {
            match found.await {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        };
        stream::once(found).flat_map(stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (store, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        waiting(move || {
            let dir = store.file(&prefix)?;
            let mut result = ListResult { common_prefixes: Vec::new(), objects: Vec::new() };
            for found in store.disk.list(&dir).map_err(|e| failed(&dir, e))? {
                let location = Path::from_absolute_path(&found.path)?;
                if found.stat.is_dir {
                    result.common_prefixes.push(location);
                } else {
                    result.objects.push(Self::meta(location, &found));
                }
            }
            Ok(result)
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (store, from, to) = (self.clone(), self.file(from)?, self.file(to)?);
        waiting(move || {
            let bytes = store.disk.read_all(&from).map_err(|e| failed(&from, e))?;
            store.put(&to, &bytes.into(), options.mode == CopyMode::Create)
        })
        .await
    }
}

/// A file that is written in parts, in their order.
struct Upload {
    store: DiskStore,
    path: PathBuf,
    unfinished: PathBuf,
    file: Arc<Mutex<Box<dyn Appender>>>,
    /// The part before has been written.
    before: Option<oneshot::Receiver<()>>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({})", self.path.display())
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (written, wait) = oneshot::channel();
        let before = self.before.replace(wait);
        let (file, path) = (self.file.clone(), self.path.clone());
        Box::pin(async move {
            if let Some(before) = before
                && before.await.is_err()
            {
                return Err(failed(&path, io::Error::other("the part before was not written")));
            }
            waiting(move || {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                data.iter().try_for_each(|bytes| file.append(bytes)).map_err(|e| failed(&path, e))
            })
            .await?;
            let _ = written.send(());
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (store, file) = (self.store.clone(), self.file.clone());
        let (path, unfinished) = (self.path.clone(), self.unfinished.clone());
        waiting(move || {
            file.lock().unwrap_or_else(PoisonError::into_inner).sync().map_err(|e| failed(&path, e))?;
            store.finish(&unfinished, &path, false)
        })
        .await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        let (store, unfinished) = (self.store.clone(), self.unfinished.clone());
        waiting(move || store.disk.remove(&unfinished).map_err(|e| failed(&unfinished, e))).await
    }
}

struct Factory(DiskStore);

impl ObjectStoreFactory for Factory {
    fn parse_url_opts(&self, url: &url::Url, _: &StorageConfig) -> deltalake::DeltaResult<(ObjectStoreRef, Path)> {
        Ok((Arc::new(self.0.clone()), Path::from_url_path(url.path())?))
    }
}

/// Delta tables of `file:` locations are on this disk from now on, in this process.
pub(super) fn install(disk: Arc<dyn Disk>) {
    let scheme = url::Url::parse("file://").expect("this is a URL");
    object_store_factories().insert(scheme, Arc::new(Factory(DiskStore::new(disk))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::os;
    use deltalake::logstore::object_store::{ObjectStoreExt, WriteMultipart};

    /// Counts what was synced.
    #[derive(Default)]
    struct Watched {
        said: Arc<Mutex<Vec<String>>>,
    }

    struct WatchedFile(Box<dyn Appender>, String, Arc<Mutex<Vec<String>>>);

    fn short(path: &FilePath) -> String {
        path.file_name().unwrap_or_default().to_string_lossy().split('.').next().unwrap_or_default().to_owned()
    }

    impl Appender for WatchedFile {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.append(bytes)
        }
        fn sync(&mut self) -> io::Result<()> {
            self.2.lock().unwrap().push(format!("sync {}", self.1));
            self.0.sync()
        }
        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.0.truncate(len)
        }
    }

    impl Disk for Watched {
        fn create(&self, path: &FilePath) -> io::Result<Box<dyn Appender>> {
            Ok(Box::new(WatchedFile(os().create(path)?, short(path), self.said.clone())))
        }
        fn open(&self, path: &FilePath) -> io::Result<Box<dyn Appender>> {
            os().open(path)
        }
        fn read(&self, path: &FilePath, offset: u64, len: usize) -> io::Result<Bytes> {
            os().read(path, offset, len)
        }
        fn stat(&self, path: &FilePath) -> io::Result<radarflow_proto::disk::Stat> {
            os().stat(path)
        }
        fn list(&self, dir: &FilePath) -> io::Result<Vec<Found>> {
            os().list(dir)
        }
        fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
            self.said.lock().unwrap().push(format!("name {}", short(to)));
            os().rename(from, to)
        }
        fn link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
            self.said.lock().unwrap().push(format!("name {}", short(to)));
            os().link(from, to)
        }
        fn remove(&self, path: &FilePath) -> io::Result<()> {
            os().remove(path)
        }
        fn make_dir(&self, dir: &FilePath) -> io::Result<()> {
            os().make_dir(dir)
        }
        fn sync_dir(&self, dir: &FilePath) -> io::Result<()> {
            self.said.lock().unwrap().push(format!("sync folder {}", short(dir)));
            os().sync_dir(dir)
        }
        fn room(&self, path: &FilePath) -> Option<u64> {
            os().room(path)
        }
    }

    #[tokio::test]
    async fn what_is_put_is_synced_before_it_has_its_name_and_its_folder_after() {
        let root = tempfile::tempdir().unwrap();
        let disk = Watched::default();
        let said = disk.said.clone();
        let store = DiskStore::new(Arc::new(disk));
        let at = |name: &str| Path::from_absolute_path(root.path().join("t/day").join(name)).unwrap();
        store.put_opts(&at("a"), "one".into(), PutMode::Overwrite.into()).await.unwrap();
        store.put_opts(&at("b"), "two".into(), PutMode::Create.into()).await.unwrap();
        let mut parts = WriteMultipart::new_with_chunk_size(store.put_multipart(&at("c")).await.unwrap(), 5);
        (0..100u8).for_each(|n| parts.write(&[n; 3]));
        parts.finish().await.unwrap();
        let expected: Vec<String> = ["a", "b", "c"]
            .iter()
            .flat_map(|name| [format!("sync {name}"), format!("name {name}"), "sync folder day".to_owned()])
            .collect();
        assert_eq!(*said.lock().unwrap(), expected);
        let again = store.put_opts(&at("b"), "three".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        assert_eq!(store.get(&at("b")).await.unwrap().bytes().await.unwrap(), "two");
        let written: Vec<u8> = (0..100u8).flat_map(|n| [n; 3]).collect();
        assert_eq!(store.get_range(&at("c"), 10..300).await.unwrap(), written[10..]);
        let prefix = Path::from_absolute_path(root.path()).unwrap();
        let mut listed: Vec<Path> =
            store.list(Some(&prefix)).map(|meta| meta.unwrap().location).collect::<Vec<_>>().await;
        listed.sort();
        assert_eq!(listed, [at("a"), at("b"), at("c")], "and nothing is left of what was being written");
        let missing = store.get(&at("d")).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })));
        store.delete(&at("a")).await.unwrap();
        assert!(store.head(&at("a")).await.is_err() && store.head(&at("c")).await.unwrap().size == 300);
    }

    #[test]
    fn names_on_disk_are_those_of_deltas_own_store() {
        let (ours, theirs) = (DiskStore::new(os()), LocalFileSystem::new());
        for name in ["/a/tenant_id=x y/date=2024-01-01/p.parquet", "/a/tenant_id=%C3%A4/p", "/ä/ü", "/a/t=a%20b/p"] {
            let path = Path::from_absolute_path(name).unwrap();
            assert_eq!(ours.file(&path).unwrap(), theirs.path_to_filesystem(&path).unwrap());
            assert_eq!(ours.file(&path).unwrap(), PathBuf::from(name));
        }
    }
}
