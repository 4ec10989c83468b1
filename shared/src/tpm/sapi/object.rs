//! Objects (TPM 2.0 Part 3, chapters 12, 13, 24 and 28).

use std::mem::zeroed;
use std::ptr::{null, null_mut};

use tss_esapi::constants::tss::*;
use tss_esapi::structures::Public;
use tss_esapi::tss2_esys::*;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Auth, Created, Sapi, Sensitive, bounded, check, fill, marshal_public, sized, unmarshal_public};
use crate::error::{Error, Result};

impl Sapi {
    /// Makes an object under `parent`: from the template, with `auth_value`; `sealed` is its data, empty for a key.
    pub(crate) fn create(
        &mut self,
        parent: (u32, &[u8]),
        auth: &mut Auth<'_>,
        template: &Public,
        auth_value: &[u8],
        sealed: &[u8],
    ) -> Result<Created> {
        let template = TPM2B_PUBLIC::try_from(template.clone()).map_err(|error| Error::malformed("template", error))?;
        let sensitive = Sensitive::new(auth_value, sealed);
        // SAFETY: plain data, zero is empty.
        let (outside, pcrs): (TPM2B_DATA, TPML_PCR_SELECTION) = unsafe { (zeroed(), zeroed()) };
        self.command(
            "Create",
            &[parent.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_Create_Prepare(context, parent.0, &*sensitive.0, &template, &outside, &pcrs) },
            // SAFETY: plain data, filled by the call; null for what is not wanted.
            |context| unsafe {
                let (mut private, mut public): (TPM2B_PRIVATE, TPM2B_PUBLIC) = zeroed();
                let mut data: TPM2B_CREATION_DATA = zeroed();
                check(Tss2_Sys_Create_Complete(context, &mut private, &mut public, &mut data, null_mut(), null_mut()))?;
                let parent = &data.creationData.parentName;
                Ok(Created {
                    public: marshal_public(&public)?,
                    private: sized(&private.buffer, private.size),
                    parent_name: bounded(&parent.name, parent.size).to_vec(),
                })
            },
        )
    }

    /// Loads an object under `parent`; returns its handle.
    pub(crate) fn load(
        &mut self,
        parent: (u32, &[u8]),
        auth: &mut Auth<'_>,
        public: &[u8],
        private: &[u8],
    ) -> Result<u32> {
        let public = unmarshal_public(public)?;
        // SAFETY: plain data, zero is empty.
        let mut blob: TPM2B_PRIVATE = unsafe { zeroed() };
        let content = private.get(2..).unwrap_or_default();
        if content.len() > blob.buffer.len() {
            return Err(Error::malformed("TPM key", "its private part is too long"));
        }
        blob.size = fill(&mut blob.buffer, content);
        self.command(
            "Load",
            &[parent.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_Load_Prepare(context, parent.0, &blob, &public) },
            |context| {
                let mut handle = 0;
                // SAFETY: plain data, filled by the call.
                check(unsafe { Tss2_Sys_Load_Complete(context, &mut handle, &mut zeroed()) })?;
                Ok(handle)
            },
        )
    }

    /// The marshalled `TPM2B_PUBLIC` of a loaded or persistent object.
    pub(crate) fn read_public(&mut self, handle: u32) -> Result<Vec<u8>> {
        self.command(
            "ReadPublic",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_ReadPublic_Prepare(context, handle) },
            // SAFETY: plain data, filled by the call; null for what is not wanted.
            |context| unsafe {
                let mut public: TPM2B_PUBLIC = zeroed();
                check(Tss2_Sys_ReadPublic_Complete(context, &mut public, null_mut(), null_mut()))?;
                marshal_public(&public)
            },
        )
    }

    /// The data sealed in the object at `item`.
    pub(crate) fn unseal(&mut self, item: (u32, &[u8]), auth: &mut Auth<'_>) -> Result<Zeroizing<Vec<u8>>> {
        self.command(
            "Unseal",
            &[item.1],
            auth,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_Unseal_Prepare(context, item.0) },
            |context| {
                // SAFETY: plain data, filled by the call.
                let mut data: TPM2B_SENSITIVE_DATA = unsafe { zeroed() };
                // SAFETY: as above.
                let code = unsafe { Tss2_Sys_Unseal_Complete(context, &mut data) };
                let value = Zeroizing::new(bounded(&data.buffer, data.size).to_vec());
                data.buffer.zeroize();
                check(code).map(|()| value)
            },
        )
    }

    /// Gives the object at `object`, under `parent`, a new authValue; returns its new `TPM2B_PRIVATE`.
    pub(crate) fn object_change_auth(
        &mut self,
        object: (u32, &[u8]),
        parent: (u32, &[u8]),
        auth: &mut Auth<'_>,
        new_auth: &[u8],
    ) -> Result<Vec<u8>> {
        let new_auth = Sensitive::new(new_auth, &[]);
        self.command(
            "ObjectChangeAuth",
            &[object.1, parent.1],
            auth,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe {
                Tss2_Sys_ObjectChangeAuth_Prepare(context, object.0, parent.0, &new_auth.0.sensitive.userAuth)
            },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let mut private: TPM2B_PRIVATE = zeroed();
                check(Tss2_Sys_ObjectChangeAuth_Complete(context, &mut private))?;
                Ok(sized(&private.buffer, private.size))
            },
        )
    }

    /// Makes a primary key of a hierarchy; returns its handle and public area.
    pub(crate) fn create_primary(
        &mut self,
        hierarchy: u32,
        auth: &mut Auth<'_>,
        template: &Public,
    ) -> Result<(u32, Vec<u8>)> {
        let template = TPM2B_PUBLIC::try_from(template.clone()).map_err(|error| Error::malformed("template", error))?;
        let sensitive = Sensitive::new(&[], &[]);
        // SAFETY: plain data, zero is empty.
        let (outside, pcrs): (TPM2B_DATA, TPML_PCR_SELECTION) = unsafe { (zeroed(), zeroed()) };
        self.command(
            "CreatePrimary",
            // A hierarchy's Name is its handle (Part 1, 16).
            &[&hierarchy.to_be_bytes()],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe {
                Tss2_Sys_CreatePrimary_Prepare(context, hierarchy, &*sensitive.0, &template, &outside, &pcrs)
            },
            // SAFETY: plain data, filled by the call; null for what is not wanted.
            |context| unsafe {
                let (mut handle, mut public): (u32, TPM2B_PUBLIC) = (0, zeroed());
                check(Tss2_Sys_CreatePrimary_Complete(
                    context,
                    &mut handle,
                    &mut public,
                    null_mut(),
                    null_mut(),
                    null_mut(),
                    null_mut(),
                ))?;
                Ok((handle, marshal_public(&public)?))
            },
        )
    }

    /// Makes an object, given with its Name, persistent at `persistent`; or removes it from there, if that is where it is. By the
    /// owner.
    pub(crate) fn evict_control(
        &mut self,
        (object, name): (u32, &[u8]),
        auth: &mut Auth<'_>,
        persistent: u32,
    ) -> Result<()> {
        self.command(
            "EvictControl",
            // A hierarchy's Name is its handle (Part 1, 16).
            &[&TPM2_RH_OWNER.to_be_bytes(), name],
            auth,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_EvictControl_Prepare(context, TPM2_RH_OWNER, object, persistent) },
            // SAFETY: as above.
            |context| check(unsafe { Tss2_Sys_EvictControl_Complete(context) }),
        )
    }

    /// Flushes what `result` comes from; a failure of that hides none of the use.
    pub(crate) fn flush_after<T>(&mut self, handle: u32, result: Result<T>) -> Result<T> {
        let flushed = self.flush_context(handle);
        result.and_then(|value| flushed.map(|()| value))
    }

    /// Flushes a transient object or a session.
    pub(crate) fn flush_context(&mut self, handle: u32) -> Result<()> {
        self.command(
            "FlushContext",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_FlushContext_Prepare(context, handle) },
            // SAFETY: as above.
            |context| check(unsafe { Tss2_Sys_FlushContext_Complete(context) }),
        )
    }

    /// Takes an object wrapped outside to `parent`: returns its `TPM2B_PRIVATE`. `seed` is the wrapping's secret,
    /// encrypted to the parent; there is no inner wrapping.
    pub(crate) fn import(
        &mut self,
        parent: (u32, &[u8]),
        auth: &mut Auth<'_>,
        public: &[u8],
        duplicate: &[u8],
        seed: &[u8],
    ) -> Result<Vec<u8>> {
        let public = unmarshal_public(public)?;
        // SAFETY: plain data, zero is empty.
        let (key, mut blob, mut secret, mut symmetric): (
            TPM2B_DATA,
            TPM2B_PRIVATE,
            TPM2B_ENCRYPTED_SECRET,
            TPMT_SYM_DEF_OBJECT,
        ) = unsafe { zeroed() };
        if duplicate.len() > blob.buffer.len() || seed.len() > secret.secret.len() {
            return Err(Error::malformed("TPM key", "it is too long to be imported"));
        }
        blob.size = fill(&mut blob.buffer, duplicate);
        secret.size = fill(&mut secret.secret, seed);
        symmetric.algorithm = TPM2_ALG_NULL;
        self.command(
            "Import",
            &[parent.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_Import_Prepare(context, parent.0, &key, &public, &blob, &secret, &symmetric) },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let mut private: TPM2B_PRIVATE = zeroed();
                check(Tss2_Sys_Import_Complete(context, &mut private))?;
                Ok(sized(&private.buffer, private.size))
            },
        )
    }

    /// Loads a public key, a marshalled `TPM2B_PUBLIC`, for a hierarchy's tickets; returns its handle.
    pub(crate) fn load_external(&mut self, public: &[u8], hierarchy: u32) -> Result<u32> {
        let public = unmarshal_public(public)?;
        self.command(
            "LoadExternal",
            &[],
            &mut Auth::None,
            // SAFETY: the structure lives through the call; libtss2 copies; null for no private part.
            |context| unsafe { Tss2_Sys_LoadExternal_Prepare(context, null(), &public, hierarchy) },
            |context| {
                let mut handle = 0;
                // SAFETY: plain data, filled by the call.
                check(unsafe { Tss2_Sys_LoadExternal_Complete(context, &mut handle, &mut zeroed()) })?;
                Ok(handle)
            },
        )
    }

    /// Loads what `TPM2_ContextSave` saved: a marshalled `TPMS_CONTEXT`.
    pub(crate) fn context_load(&mut self, saved: &[u8]) -> Result<u32> {
        // SAFETY: plain data; the buffer has the length told.
        let saved = unsafe {
            let mut context: TPMS_CONTEXT = zeroed();
            check(Tss2_MU_TPMS_CONTEXT_Unmarshal(saved.as_ptr(), saved.len() as _, &mut 0, &mut context))
                .map_err(|code| Error::malformed("saved TPM object", format_args!("libtss2 says 0x{code:x}")))?;
            context
        };
        self.command(
            "ContextLoad",
            &[],
            &mut Auth::None,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_ContextLoad_Prepare(context, &saved) },
            |context| {
                let mut handle = 0;
                // SAFETY: plain data, filled by the call.
                check(unsafe { Tss2_Sys_ContextLoad_Complete(context, &mut handle) })?;
                Ok(handle)
            },
        )
    }
}
