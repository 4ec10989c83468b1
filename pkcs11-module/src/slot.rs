//! A slot, its token, and what the sessions with it share: login, session objects, object handles.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use cryptoki_sys::*;
use keyrivet_core::algorithm::{Digest, HashAlgorithm};
use keyrivet_core::mutex::{Mutex, MutexGuard};
use keyrivet_core::object::{Object, ObjectId, Part};
use keyrivet_core::sweep;
use keyrivet_core::token::{Token, TokenInfo, User};

use crate::built_in::BuiltIn;
use crate::error::{Error, Result};
use crate::module::new_handle;
use crate::object::View;
use crate::operation::Operation;

/// A slot. There is a token in each but the last, where the next one can be made.
pub(crate) struct Slot {
    id: CK_SLOT_ID,
    token: Option<Arc<Token>>,
    /// Held while who is logged in, and which sessions that allows, is looked at and changed. Never taken to sign.
    login: Mutex<()>,
    shared: Mutex<Shared>,
}

/// What all sessions with the token see.
#[derive(Default)]
struct Shared {
    /// Open sessions; whether they may write.
    sessions: BTreeMap<CK_SESSION_HANDLE, bool>,
    /// Session objects and the sessions that made them.
    objects: HashMap<ObjectId, (CK_SESSION_HANDLE, Arc<Object>)>,
    handles: HashMap<CK_OBJECT_HANDLE, Handle>,
    handle_of: HashMap<(ObjectId, Part), CK_OBJECT_HANDLE>,
    /// Digests that C_GetOperationState saved, by their names; the oldest go when there are too many.
    saved: VecDeque<(ObjectId, SavedDigest)>,
}

/// A digest as it was: it may have got no data yet.
pub(crate) type SavedDigest = Operation<(HashAlgorithm, Digest)>;

/// How many saved digests are kept: the hashes here cannot be turned into bytes, so they stay in memory.
const MOST_SAVED: usize = 1024;

/// What an object handle stands for.
#[derive(Clone, Copy)]
struct Handle {
    id: ObjectId,
    part: Part,
    private: bool,
    built_in: Option<BuiltIn>,
}

impl Shared {
    fn handle(&mut self, entry: Handle) -> CK_OBJECT_HANDLE {
        let Self { handles, handle_of, .. } = self;
        *handle_of.entry((entry.id, entry.part)).or_insert_with(|| {
            let handle = new_handle();
            handles.insert(handle, entry);
            handle
        })
    }

    /// Forgets the handles of objects that are gone, when there are many.
    fn sweep(&mut self, token: &Token) {
        let Self { objects, handles, handle_of, .. } = self;
        let is_there = |it: &Handle| it.built_in.is_some() || objects.contains_key(&it.id) || token.holds(it.id);
        if sweep::before_growth(handles, |_, it| is_there(it)) {
            handle_of.retain(|_, handle| handles.contains_key(handle));
        }
    }

    fn forget_handle(&mut self, id: ObjectId, part: Part) {
        if let Some(handle) = self.handle_of.remove(&(id, part)) {
            self.handles.remove(&handle);
        }
    }

    /// Destroys one part of a session object.
    fn destroy(&mut self, id: ObjectId, part: Part) {
        if let Some((owner, object)) = self.objects.remove(&id) {
            if let Some(rest) = Object::clone(&object).without(part) {
                self.objects.insert(id, (owner, Arc::new(rest)));
            }
        }
        self.forget_handle(id, part);
    }

    /// Destroys session objects.
    fn drop_objects(&mut self, keep: impl Fn(CK_SESSION_HANDLE, &Object) -> bool) {
        let mut gone = Vec::new();
        self.objects.retain(|_, (owner, object)| {
            let kept = keep(*owner, object);
            if !kept {
                gone.push(object.clone());
            }
            kept
        });
        for object in gone {
            for part in object.parts() {
                self.forget_handle(object.id, part);
            }
        }
    }
}

/// The parts of an object for which one has to log in.
fn private_parts(object: &Object) -> impl Iterator<Item = Part> + '_ {
    object.parts().filter(|part| object.attributes(*part).is_some_and(|attributes| attributes.private))
}

/// How many sessions are open.
pub(crate) struct SessionCount {
    pub(crate) all: usize,
    pub(crate) read_write: usize,
}

impl Slot {
    /// The slot of a token.
    pub(crate) fn with_token(token: Arc<Token>) -> Self {
        Self { id: token.info().slot.into(), token: Some(token), login: Mutex::default(), shared: Mutex::default() }
    }

    /// A slot whose token is still to be made.
    pub(crate) fn free(id: CK_SLOT_ID) -> Self {
        Self { id, token: None, login: Mutex::default(), shared: Mutex::default() }
    }

    /// Its number.
    pub(crate) fn id(&self) -> CK_SLOT_ID {
        self.id
    }

    /// Whether this very token is in it.
    pub(crate) fn holds(&self, token: &Arc<Token>) -> bool {
        self.token.as_ref().is_some_and(|held| Arc::ptr_eq(held, token)) && self.id == token.info().slot.into()
    }

    /// Its token, if one was made.
    pub(crate) fn token(&self) -> Result<&Arc<Token>> {
        self.token.as_ref().ok_or(Error(CKR_TOKEN_NOT_RECOGNIZED))
    }

    /// What the token tells about itself; `None` for the free slot.
    pub(crate) fn token_info(&self) -> Option<Arc<TokenInfo>> {
        self.token.as_ref().map(|token| token.info())
    }

    /// How many sessions this process has with it.
    pub(crate) fn session_count(&self) -> SessionCount {
        let shared = self.shared.lock();
        SessionCount {
            all: shared.sessions.len(),
            read_write: shared.sessions.values().filter(|write| **write).count(),
        }
    }

    /// Makes the token anew; its objects are gone then.
    pub(crate) fn reinitialise(&self, so_pin: &[u8], label: &str) -> Result<()> {
        let _login = self.login.lock();
        if self.session_count().all > 0 {
            return Err(Error(CKR_SESSION_EXISTS));
        }
        self.token()?.reinitialise(so_pin, label)?;
        *self.shared.lock() = Shared::default();
        Ok(())
    }

    /// Takes note of a new session (PKCS#11 3.2, C_OpenSession).
    pub(crate) fn open_session(&self, read_write: bool) -> Result<CK_SESSION_HANDLE> {
        let _login = self.login.lock();
        let token = self.token()?;
        if !read_write && token.logged_in() == Some(User::SecurityOfficer) {
            return Err(Error(CKR_SESSION_READ_WRITE_SO_EXISTS));
        }
        let handle = new_handle();
        self.shared.lock().sessions.insert(handle, read_write);
        Ok(handle)
    }

    /// Forgets a session and the objects it made; the last one logs out.
    pub(crate) fn close_session(&self, session: CK_SESSION_HANDLE) {
        let _login = self.login.lock();
        let mut shared = self.shared.lock();
        shared.sessions.remove(&session);
        shared.drop_objects(|owner, _| owner != session);
        if shared.sessions.is_empty() {
            drop(shared);
            self.forget_login();
        }
    }

    /// Whether this session is open.
    pub(crate) fn has_session(&self, session: CK_SESSION_HANDLE) -> bool {
        self.shared.lock().sessions.contains_key(&session)
    }

    /// Forgets every session with it, and who was logged in.
    pub(crate) fn forget_sessions(&self) {
        let _login = self.login.lock();
        let mut shared = self.shared.lock();
        shared.sessions.clear();
        shared.drop_objects(|_, _| false);
        drop(shared);
        self.forget_login();
    }

    /// Logs a user in (PKCS#11 3.2, C_Login). Without a session nobody is.
    pub(crate) fn login(&self, session: CK_SESSION_HANDLE, user: User, pin: &[u8]) -> Result<()> {
        let _login = self.hold_login(session)?;
        let token = self.token()?;
        match token.logged_in() {
            Some(present) if present == user => return Err(Error(CKR_USER_ALREADY_LOGGED_IN)),
            Some(_) => return Err(Error(CKR_USER_ANOTHER_ALREADY_LOGGED_IN)),
            None => {}
        }
        if user == User::SecurityOfficer {
            let count = self.session_count();
            if count.all > count.read_write {
                return Err(Error(CKR_SESSION_READ_ONLY_EXISTS));
            }
        }
        Ok(token.login(user, pin)?)
    }

    /// Logs out (PKCS#11 3.2, C_Logout).
    pub(crate) fn logout(&self, session: CK_SESSION_HANDLE) -> Result<()> {
        let _login = self.hold_login(session)?;
        if self.token()?.logged_in().is_none() {
            return Err(Error(CKR_USER_NOT_LOGGED_IN));
        }
        self.forget_login();
        Ok(())
    }

    /// "Any of the application's handles to private objects become invalid, and all private session objects are
    /// destroyed" (C_Logout), unless nobody needs to log in here.
    fn forget_login(&self) {
        let Some(token) = &self.token else { return };
        token.logout();
        if token.is_open() {
            return;
        }
        let mut shared = self.shared.lock();
        let private: Vec<_> = shared
            .objects
            .values()
            .flat_map(|(_, object)| private_parts(object).map(|part| (object.id, part)))
            .collect();
        // Of a pair the public half stays.
        private.into_iter().for_each(|(id, part)| shared.destroy(id, part));
        let Shared { handles, handle_of, .. } = &mut *shared;
        handles.retain(|_, handle| !handle.private);
        handle_of.retain(|_, handle| handles.contains_key(handle));
    }

    /// Whether private objects may be seen and used.
    pub(crate) fn is_open(&self) -> bool {
        self.token.as_ref().is_some_and(|t| t.is_open() && t.logged_in() != Some(User::SecurityOfficer))
    }

    /// The handle of an object's part; always the same one.
    pub(crate) fn handle(&self, object: &Object, part: Part) -> CK_OBJECT_HANDLE {
        let private = object.attributes(part).is_some_and(|attributes| attributes.private);
        let mut shared = self.shared.lock();
        if let Some(token) = &self.token {
            shared.sweep(token);
        }
        shared.handle(Handle { id: object.id, part, private, built_in: None })
    }

    /// The handle of something of the token itself.
    pub(crate) fn handle_of_built_in(&self, built_in: BuiltIn, id: ObjectId) -> CK_OBJECT_HANDLE {
        self.shared.lock().handle(Handle { id, part: Part::Data, private: false, built_in: Some(built_in) })
    }

    /// Something of the token itself as an object.
    pub(crate) fn built_in(&self, token: &Arc<Token>, built_in: BuiltIn) -> View {
        let object = Arc::new(built_in.object());
        View { token: token.clone(), object, part: Part::Data, session_object: false, built_in: Some(built_in) }
    }

    /// The object behind a handle, as it is now, if it can be seen.
    pub(crate) fn view(&self, handle: CK_OBJECT_HANDLE) -> Result<View> {
        let invalid = Error(CKR_OBJECT_HANDLE_INVALID);
        let shared = self.shared.lock();
        let Handle { id, part, built_in, .. } = *shared.handles.get(&handle).ok_or(invalid)?;
        if let Some(built_in) = built_in {
            return Ok(self.built_in(self.token()?, built_in));
        }
        let of_session = shared.objects.get(&id).map(|(_, object)| object.clone());
        drop(shared);
        let token = self.token()?;
        let session_object = of_session.is_some();
        let object = match of_session {
            Some(object) => object,
            None => token.object(id)?,
        };
        let view = View { token: token.clone(), object, part, session_object, built_in: None };
        let private = view.object.attributes(part).ok_or(invalid)?.private;
        if private && !self.is_open() { Err(invalid) } else { Ok(view) }
    }

    /// Every session object.
    pub(crate) fn session_objects(&self) -> Vec<Arc<Object>> {
        self.shared.lock().objects.values().map(|(_, object)| object.clone()).collect()
    }

    /// Keeps a new session object, if its session and the login are still there.
    pub(crate) fn keep_session_object(&self, owner: CK_SESSION_HANDLE, object: Object) -> Result<()> {
        let mut shared = self.shared.lock();
        if !shared.sessions.contains_key(&owner) {
            return Err(Error(CKR_SESSION_HANDLE_INVALID));
        }
        if private_parts(&object).next().is_some() && !self.is_open() {
            return Err(Error(CKR_USER_NOT_LOGGED_IN));
        }
        shared.objects.insert(object.id, (owner, Arc::new(object)));
        Ok(())
    }

    /// Changes a session object, all or nothing, unless it is gone.
    pub(crate) fn change_session_object(
        &self,
        id: ObjectId,
        change: impl FnOnce(Object) -> Result<Object>,
    ) -> Result<()> {
        let mut shared = self.shared.lock();
        let (_, object) = shared.objects.get_mut(&id).ok_or(Error(CKR_OBJECT_HANDLE_INVALID))?;
        *object = Arc::new(change(Object::clone(object))?);
        Ok(())
    }

    /// Destroys one part of a session object.
    pub(crate) fn destroy_session_object(&self, id: ObjectId, part: Part) {
        self.shared.lock().destroy(id, part);
    }

    /// Forgets the handle of a part that was destroyed.
    pub(crate) fn forget_handle(&self, id: ObjectId, part: Part) {
        self.shared.lock().forget_handle(id, part);
    }

    /// Keeps a digest under way; returns its name.
    pub(crate) fn save_digest(&self, digest: SavedDigest) -> Result<Vec<u8>> {
        let name = ObjectId::random()?;
        let mut shared = self.shared.lock();
        if shared.saved.len() == MOST_SAVED {
            shared.saved.pop_front();
        }
        shared.saved.push_back((name, digest));
        Ok(name.as_bytes().to_vec())
    }

    /// A digest that was kept. The name may be used again.
    pub(crate) fn saved_digest(&self, name: &[u8]) -> Result<SavedDigest> {
        let shared = self.shared.lock();
        let found = shared.saved.iter().find(|(known, _)| known.as_bytes() == name);
        found.map(|(_, digest)| digest.clone()).ok_or(Error(CKR_SAVED_STATE_INVALID))
    }

    /// Keeps others from changing who is logged in, or PINs; for a session that may have been closed while it waits.
    pub(crate) fn hold_login(&self, session: CK_SESSION_HANDLE) -> Result<MutexGuard<'_, ()>> {
        let login = self.login.lock();
        if self.has_session(session) { Ok(login) } else { Err(Error(CKR_SESSION_HANDLE_INVALID)) }
    }
}
