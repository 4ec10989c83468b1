//! The directory of one token: its file, its objects, their index.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::index::{self, Index, Lines};
use super::{TEMPORARY, TokenFile, WriteLock, failed, file, lock, plain, sweep, sync, unreadable};
use crate::error::{Error, Result};
use crate::object::{Object, ObjectId, Query};

const TOKEN_FILE: &str = "token.toml";
const OBJECT_SUFFIX: &str = ".pem";

/// The directory of one token.
pub(crate) struct TokenDirectory {
    path: PathBuf,
    patience: Duration,
}

/// What tells two versions of a file apart: its inode, its length, and when it was written and put there.
///
/// Compared for equality only, so clocks may go back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(u64, u64, [(i64, i64); 2]);

impl TokenDirectory {
    pub(super) fn new(path: PathBuf, patience: Duration) -> Self {
        Self { path, patience }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn lock(&self) -> Result<WriteLock> {
        lock(&self.path, self.patience).map_err(|error| match error {
            Error::Store { source, .. } if source.kind() == ErrorKind::NotFound => self.gone(),
            other => other,
        })
    }

    fn gone(&self) -> Error {
        Error::TokenNotFound(format!("token {}", self.path.display()))
    }

    /// The error of a reader of `path`, which a token always has.
    fn gone_or_unreadable(&self, path: &Path) -> impl Fn(std::io::Error) -> Error {
        move |error| match error.kind() {
            ErrorKind::NotFound => self.gone(),
            _ => unreadable(path)(error),
        }
    }

    pub(crate) fn read_token(&self) -> Result<TokenFile> {
        let path = self.path.join(TOKEN_FILE);
        let text = plain::read(&path).map_err(self.gone_or_unreadable(&path))?;
        TokenFile::parse(&text).map_err(|reason| Error::ObjectCorrupt { path, reason })
    }

    pub(crate) fn write_token(&self, token: &TokenFile) -> Result<()> {
        let text =
            token.to_text().map_err(|reason| Error::ObjectCorrupt { path: self.path.join(TOKEN_FILE), reason })?;
        self.changing(|| self.replace(TOKEN_FILE, text.as_bytes()), |_| ())
    }

    pub(crate) fn object_path(&self, id: ObjectId) -> PathBuf {
        self.path.join(format!("{id}{OBJECT_SUFFIX}"))
    }

    /// The version of an object's file that is there now.
    pub(crate) fn stamp(&self, id: ObjectId) -> Result<Stamp> {
        let path = self.object_path(id);
        match fs::symlink_metadata(&path) {
            Ok(data) => {
                let times = [(data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec())];
                Ok(Stamp(data.ino(), data.size(), times))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::NotFound(format!("object {id}"))),
            Err(error) => Err(unreadable(&path)(error)),
        }
    }

    pub(crate) fn read(&self, id: ObjectId) -> Result<Object> {
        let path = self.object_path(id);
        let text = plain::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::NotFound(format!("object {id}")),
            _ => unreadable(&path)(error),
        })?;
        file::parse(id, &text).map_err(|error| Error::ObjectCorrupt { path, reason: error.to_string() })
    }

    /// The objects that may match: those the index names, or without an index all there are.
    pub(crate) fn candidates(&self, query: &Query) -> Result<Vec<ObjectId>> {
        match Index::open(&self.path).and_then(|index| index.select(query)) {
            Some(found) => Ok(found),
            None => self.ids(),
        }
    }

    fn ids(&self) -> Result<Vec<ObjectId>> {
        let entries = fs::read_dir(&self.path).map_err(self.gone_or_unreadable(&self.path))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<ObjectId> = names.filter_map(|name| name.strip_suffix(OBJECT_SUFFIX)?.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// Writes an object, new or changed. The caller holds the lock.
    pub(crate) fn write(&self, object: &Object) -> Result<()> {
        let path = self.object_path(object.id);
        let text = file::to_text(object)?;
        if text.len() as u64 > plain::LONGEST {
            return Err(failed(&path)(ErrorKind::FileTooLarge.into()));
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.changing(|| self.replace(name, text.as_bytes()), |lines| lines.put(object))
    }

    /// Removes an object. The caller holds the lock.
    pub(crate) fn remove(&self, id: ObjectId) -> Result<()> {
        let path = self.object_path(id);
        let remove = || fs::remove_file(&path).map_err(failed(&path)).and_then(|()| sync(&self.path));
        self.changing(remove, |lines| lines.drop(id))
    }

    /// Removes every object. The caller holds the lock.
    pub(crate) fn clear(&self) -> Result<()> {
        index::unlink(&self.path)?;
        for id in self.ids()? {
            let path = self.object_path(id);
            fs::remove_file(&path).map_err(failed(&path))?;
        }
        sync(&self.path)
    }

    /// A change with the index out of the way: it is unlinked first and written last, so it is never wrong. A change that
    /// failed may be half done, and leaves none: readers scan, and the next writer makes it anew.
    fn changing(&self, change: impl FnOnce() -> Result<()>, update: impl FnOnce(&mut Lines)) -> Result<()> {
        let index = Index::open(&self.path).and_then(|index| index.lines()).or_else(|| self.rebuild_index());
        index::unlink(&self.path)?;
        change()?;
        if let Some(mut lines) = index {
            update(&mut lines);
            // That it cannot be written is no reason to fail.
            let _ = self.replace_unsynced(index::FILE, &lines.into_bytes());
        }
        Ok(())
    }

    /// The index as the files tell it; sweeps what killed writers left.
    ///
    /// `None` while one of them cannot be read: it would be in no index, and hidden for good when it is mended.
    fn rebuild_index(&self) -> Option<Lines> {
        sweep(&self.path);
        let objects: Vec<_> = self.ids().and_then(|ids| ids.into_iter().map(|id| self.read(id)).collect()).ok()?;
        let mut lines = Lines::default();
        lines.extend(objects.into_iter());
        Some(lines)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = self.temporary(name)?;
        let path = self.path.join(name);
        file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(failed(&path))?;
        file.persist(&path).map_err(|error| failed(&path)(error.error))?;
        sync(&self.path)
    }

    /// For what can be made again.
    fn replace_unsynced(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut file = self.temporary(name)?;
        let path = self.path.join(name);
        file.write_all(content).map_err(failed(&path))?;
        file.persist(&path).map_err(|error| failed(&path)(error.error))?;
        Ok(())
    }

    fn temporary(&self, name: &str) -> Result<tempfile::NamedTempFile> {
        let path = self.path.join(name);
        let directory = fs::metadata(&self.path).map_err(failed(&path))?.mode();
        let file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.path).map_err(failed(&path))?;
        let mode = directory & 0o040 | 0o600;
        file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed(&path))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::LOCK_FILE;
    use super::*;
    use crate::object::{Attributes, Body, Part};

    fn directory() -> (tempfile::TempDir, TokenDirectory) {
        let folder = tempfile::tempdir().unwrap();
        let directory = TokenDirectory { path: folder.path().to_owned(), patience: Duration::ZERO };
        (folder, directory)
    }

    fn object(label: &str, id: u8) -> Object {
        let attributes = Attributes { label: label.into(), id: vec![id], ..Attributes::default() };
        Object { id: ObjectId::random().unwrap(), body: Body::Data { value: vec![1], attributes } }
    }

    fn labelled(label: &str) -> Query {
        Query { label: Some(label.into()), ..Query::default() }
    }

    const TOKEN: &str = "serial = '0011223344556677'\nlabel = 'x'\nslot = 0\nmanufacturer = ''\nmodel = ''\n\
        hardware_version = [1, 38]\nfirmware_version = [1, 0]\nrsa_bits = []\ncurves = []\nhashes = []\nsrk = ''\nsalt = ''\n\
        security_officer = { public = '', private = '' }\nuser = { pin = 'empty' }\n";

    #[test]
    fn the_lock_ends_with_its_writer_though_a_child_has_its_file() {
        let (_folder, directory) = directory();
        let lock = directory.lock().unwrap();
        let _childs = lock.0.try_clone().unwrap();
        drop(lock);
        assert!(directory.lock().is_ok());
    }

    #[test]
    fn look_ups_are_the_same_with_and_without_the_index() {
        let (_folder, directory) = directory();
        let (one, two) = (object("one", 1), object("two", 2));
        directory.write(&one).unwrap();
        directory.write(&two).unwrap();
        assert_eq!(directory.candidates(&labelled("two")).unwrap(), [two.id]);
        let by_id = Query { id: Some(vec![1]), part: Some(Part::Data), ..Query::default() };
        assert_eq!(directory.candidates(&by_id).unwrap(), [one.id]);
        assert!(directory.candidates(&Query { part: Some(Part::PrivateKey), ..by_id }).unwrap().is_empty());
        index::unlink(&directory.path).unwrap();
        // Without the index all are candidates; the caller compares.
        assert_eq!(directory.candidates(&labelled("two")).unwrap().len(), 2);
        directory.remove(one.id).unwrap();
        assert_eq!(directory.candidates(&labelled("two")).unwrap(), [two.id]);
        assert!(directory.candidates(&labelled("one")).unwrap().is_empty());
    }

    #[test]
    fn objects_keep_the_order_in_which_they_were_added() {
        let (_folder, directory) = directory();
        let mut objects: Vec<_> = (0..20).map(|number| object("same", number)).collect();
        objects.iter().for_each(|object| directory.write(object).unwrap());
        objects[3].attributes_mut(Part::Data).unwrap().id = vec![99];
        directory.write(&objects[3]).unwrap();
        let ids: Vec<_> = objects.iter().map(|object| object.id).collect();
        assert_eq!(directory.candidates(&Query::default()).unwrap(), ids);
        assert_eq!(directory.candidates(&labelled("same")).unwrap(), ids);
    }

    #[test]
    fn a_damaged_index_is_as_good_as_none() {
        let (_folder, directory) = directory();
        let (one, two) = (object("one", 1), object("two", 2));
        directory.write(&one).unwrap();
        directory.write(&two).unwrap();
        let path = directory.path.join(index::FILE);
        let whole = fs::read(&path).unwrap();
        let line = whole.len() / 5;
        let cut = [&whole[1..], &whole[..whole.len() - 1], &whole[line..], &whole[..whole.len() - line], &[]];
        for damaged in cut.into_iter().chain([&vec![b'x'; whole.len()][..]]) {
            fs::write(&path, damaged).unwrap();
            assert_eq!(directory.candidates(&labelled("one")).unwrap().len(), 2);
        }
        directory.write(&one).unwrap();
        assert_eq!(directory.candidates(&labelled("one")).unwrap(), [one.id]);
    }

    #[test]
    fn a_changed_label_is_found_and_the_old_one_is_not() {
        let (_folder, directory) = directory();
        let mut object = object("old", 1);
        directory.write(&object).unwrap();
        object.attributes_mut(Part::Data).unwrap().label = "new".into();
        directory.write(&object).unwrap();
        assert!(directory.candidates(&labelled("old")).unwrap().is_empty());
        assert_eq!(directory.candidates(&labelled("new")).unwrap(), [object.id]);
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_never_seen() {
        let (folder, directory) = directory();
        let object = object("x", 1);
        directory.write(&object).unwrap();
        // Killed between unlinking the index and renaming its file.
        index::unlink(&directory.path).unwrap();
        let leftover = folder.path().join(".new-half");
        fs::write(&leftover, "half a fi").unwrap();
        assert_eq!(directory.candidates(&Query::default()).unwrap(), [object.id]);
        directory.write(&object).unwrap();
        assert!(!leftover.exists());
    }

    #[test]
    fn a_damaged_object_is_an_error_of_its_own() {
        let (_folder, directory) = directory();
        let (good, bad) = (object("good", 1), object("bad", 2));
        directory.write(&good).unwrap();
        directory.write(&bad).unwrap();
        fs::write(directory.object_path(bad.id), b"\xff\xfe").unwrap();
        assert!(matches!(directory.read(bad.id), Err(Error::ObjectCorrupt { .. })));
        fs::write(directory.object_path(bad.id), "label = 1").unwrap();
        assert!(matches!(directory.read(bad.id), Err(Error::ObjectCorrupt { .. })));
        assert!(directory.read(good.id).is_ok());
    }

    #[test]
    fn a_damaged_object_is_found_again_when_it_is_mended() {
        let (_folder, directory) = directory();
        let (good, bad) = (object("good", 1), object("bad", 2));
        directory.write(&good).unwrap();
        directory.write(&bad).unwrap();
        let whole = fs::read(directory.object_path(bad.id)).unwrap();
        fs::write(directory.object_path(bad.id), "").unwrap();
        index::unlink(&directory.path).unwrap();
        directory.write(&object("other", 3)).unwrap();
        fs::write(directory.object_path(bad.id), whole).unwrap();
        assert!(directory.candidates(&labelled("bad")).unwrap().contains(&bad.id));
        directory.write(&object("another", 4)).unwrap();
        assert_eq!(directory.candidates(&labelled("bad")).unwrap(), [bad.id]);
    }

    #[test]
    fn a_writer_that_fails_leaves_no_index_that_is_wrong() {
        let (_folder, directory) = directory();
        let (small, large) = (object("small", 1), object("large", 2));
        directory.write(&small).unwrap();
        // In its place nothing can be renamed to.
        fs::create_dir(directory.object_path(large.id)).unwrap();
        assert!(matches!(directory.write(&large), Err(Error::Store { .. })));
        assert!(directory.candidates(&labelled("small")).unwrap().contains(&small.id));
        directory.write(&small).unwrap();
        let value = vec![0; usize::try_from(plain::LONGEST).unwrap()];
        let body = Body::Data { value, attributes: Attributes::default() };
        assert!(matches!(directory.write(&Object { body, ..large }), Err(Error::Store { .. })));
    }

    #[test]
    fn an_index_that_is_not_its_directorys_last_change_is_none() {
        let (_folder, directory) = directory();
        let (first, second) = (object("first", 1), object("second", 2));
        directory.write(&first).unwrap();
        let old = fs::read(directory.path.join(index::FILE)).unwrap();
        directory.write(&second).unwrap();
        // As `cp -a` of an older copy does it, which leaves the directory with the time it had.
        fs::write(directory.path.join(index::FILE), old).unwrap();
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        File::open(&directory.path).unwrap().set_modified(hour_ago).unwrap();
        assert!(directory.candidates(&labelled("second")).unwrap().contains(&second.id));
        directory.write(&first).unwrap();
        assert_eq!(directory.candidates(&labelled("second")).unwrap(), [second.id]);
        // As somebody puts one file back.
        let path = directory.object_path(second.id);
        let text = fs::read(&path).unwrap();
        directory.remove(second.id).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        fs::write(path, text).unwrap();
        assert!(directory.candidates(&labelled("second")).unwrap().contains(&second.id));
    }

    #[test]
    fn a_new_pin_leaves_the_index_in_use() {
        let (_folder, directory) = directory();
        let (one, two) = (object("one", 1), object("two", 2));
        directory.write(&one).unwrap();
        directory.write(&two).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        directory.write_token(&TokenFile::parse(TOKEN).unwrap()).unwrap();
        assert_eq!(directory.candidates(&labelled("two")).unwrap(), [two.id]);
    }

    #[test]
    fn a_change_that_was_made_and_failed_then_hides_nothing() {
        let (_folder, directory) = directory();
        let (first, second) = (object("first", 1), object("second", 2));
        directory.write(&first).unwrap();
        let text = file::to_text(&second).unwrap();
        let made_and_not_synced = || {
            fs::write(directory.object_path(second.id), text).unwrap();
            Err(failed(&directory.path)(ErrorKind::Other.into()))
        };
        directory.changing(made_and_not_synced, |lines| lines.put(&second)).unwrap_err();
        assert!(directory.candidates(&labelled("second")).unwrap().contains(&second.id));
        directory.write(&object("third", 3)).unwrap();
        assert_eq!(directory.candidates(&labelled("second")).unwrap(), [second.id]);
    }

    #[test]
    fn what_is_no_file_is_no_index() {
        let (_folder, directory) = directory();
        let object = object("x", 1);
        fs::create_dir(directory.path.join(index::FILE)).unwrap();
        directory.write(&object).unwrap();
        assert_eq!(directory.candidates(&labelled("x")).unwrap(), [object.id]);
        fs::remove_dir(directory.path.join(index::FILE)).unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path.join(index::FILE)).unwrap();
        assert_eq!(directory.candidates(&labelled("x")).unwrap(), [object.id]);
        directory.write(&object).unwrap();
        assert!(directory.path.join(index::FILE).symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn whoever_waits_too_long_for_a_lock_is_told_who_holds_it() {
        let (_folder, directory) = directory();
        let _held = directory.lock().unwrap();
        let error = directory.lock().err().unwrap().to_string();
        assert!(error.contains(&format!("stays locked by process {}", std::process::id())), "{error}");
    }

    #[test]
    fn a_lock_is_for_the_directorys_group_and_leads_nowhere_else() {
        let (folder, directory) = directory();
        let place = directory.path.join(LOCK_FILE);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o770)).unwrap();
        drop(directory.lock().unwrap());
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o660);
        fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &place).unwrap();
        assert!(directory.lock().is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }

    #[test]
    fn files_are_for_their_owner_alone_or_readable_by_the_directorys_group() {
        let (folder, directory) = directory();
        let mode = |object: &Object| fs::metadata(directory.object_path(object.id)).unwrap().mode() & 0o777;
        let object = object("x", 1);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        directory.write(&object).unwrap();
        assert_eq!(mode(&object), 0o600);
        fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
        directory.write(&object).unwrap();
        assert_eq!(mode(&object), 0o640);
    }
}
