//! Sessions (TPM 2.0 Part 3, chapters 11 and 23).

use std::mem::zeroed;

use tss_esapi::constants::tss::*;
use tss_esapi::tss2_esys::*;

use super::{Auth, Sapi, bounded, check, fill, tpm_hash};
use crate::error::{Error, Result};
use crate::tpm::session::{self, SESSION_HASH, Salt, Session};

/// What a session is started for.
#[derive(Clone, Copy)]
pub(crate) enum SessionKind {
    /// Authorisation by an authValue.
    Hmac,
    /// Authorisation by a policy.
    Policy,
}

impl Sapi {
    /// A session of SHA-256 and AES-128-CFB, unbound, salted to the key whose handle stands with the salt, where
    /// there is one.
    pub(crate) fn start_auth_session(&mut self, kind: SessionKind, salt: Option<(u32, &Salt)>) -> Result<Session> {
        let nonce = session::nonce()?;
        // SAFETY: plain data, zero is empty.
        let (mut caller, mut secret, mut symmetric): (TPM2B_NONCE, TPM2B_ENCRYPTED_SECRET, TPMT_SYM_DEF) =
            unsafe { (zeroed(), zeroed(), zeroed()) };
        caller.size = fill(&mut caller.buffer, &nonce);
        if let Some((_, salt)) = salt {
            secret.size = fill(&mut secret.secret, &salt.encrypted);
        }
        symmetric.algorithm = TPM2_ALG_AES;
        symmetric.keyBits.aes = 128;
        symmetric.mode.aes = TPM2_ALG_CFB;
        let key = salt.map_or(TPM2_RH_NULL, |(handle, _)| handle);
        let (handle, nonce_tpm) = self.command_while(
            "StartAuthSession",
            &[],
            &mut Auth::None,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe {
                Tss2_Sys_StartAuthSession_Prepare(
                    context,
                    key,
                    TPM2_RH_NULL,
                    &caller,
                    &secret,
                    match kind {
                        SessionKind::Hmac => TPM2_SE_HMAC,
                        SessionKind::Policy => TPM2_SE_POLICY,
                    },
                    &symmetric,
                    tpm_hash(SESSION_HASH),
                )
            },
            || {
                let _ = salt.map(|(_, salt)| salt.value());
            },
            |context| {
                let mut handle = 0;
                // SAFETY: plain data, filled by the call.
                let nonce = unsafe {
                    let mut nonce: TPM2B_NONCE = zeroed();
                    check(Tss2_Sys_StartAuthSession_Complete(context, &mut handle, &mut nonce))?;
                    nonce
                };
                Ok((handle, bounded(&nonce.buffer, nonce.size).to_vec()))
            },
        )?;
        Ok(Session::new(handle, nonce, nonce_tpm, salt.map(|(_, salt)| salt)))
    }

    /// Asserts the values of PCRs: `values` is their digest (empty for those they have), `selection` a marshalled
    /// `TPML_PCR_SELECTION`.
    pub(crate) fn policy_pcr(&mut self, session: u32, values: &[u8], selection: &[u8]) -> Result<()> {
        // SAFETY: plain data; the buffer has the length told.
        let (digest, pcrs) = unsafe {
            let (mut digest, mut pcrs): (TPM2B_DIGEST, TPML_PCR_SELECTION) = zeroed();
            digest.size = fill(&mut digest.buffer, values);
            let (start, length) = (selection.as_ptr(), selection.len() as _);
            check(Tss2_MU_TPML_PCR_SELECTION_Unmarshal(start, length, &mut 0, &mut pcrs))
                .map_err(|code| Error::malformed("PCR selection", format_args!("libtss2 says 0x{code:x}")))?;
            (digest, pcrs)
        };
        self.command(
            "PolicyPCR",
            &[],
            &mut Auth::None,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_PolicyPCR_Prepare(context, session, &digest, &pcrs) },
            // SAFETY: no pointers besides the context.
            |context| check(unsafe { Tss2_Sys_PolicyPCR_Complete(context) }),
        )
    }

    /// Asserts that the authValue will be given.
    pub(crate) fn policy_auth_value(&mut self, session: u32) -> Result<()> {
        self.command(
            "PolicyAuthValue",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_PolicyAuthValue_Prepare(context, session) },
            // SAFETY: as above.
            |context| check(unsafe { Tss2_Sys_PolicyAuthValue_Complete(context) }),
        )
    }

    /// Limits the policy to one command.
    pub(crate) fn policy_command_code(&mut self, session: u32, command: u32) -> Result<()> {
        self.command(
            "PolicyCommandCode",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_PolicyCommandCode_Prepare(context, session, command) },
            // SAFETY: as above.
            |context| check(unsafe { Tss2_Sys_PolicyCommandCode_Complete(context) }),
        )
    }

    /// The digest of the policy so far.
    pub(crate) fn policy_get_digest(&mut self, session: u32) -> Result<Vec<u8>> {
        self.command(
            "PolicyGetDigest",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_PolicyGetDigest_Prepare(context, session) },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let mut digest: TPM2B_DIGEST = zeroed();
                check(Tss2_Sys_PolicyGetDigest_Complete(context, &mut digest))?;
                Ok(bounded(&digest.buffer, digest.size).to_vec())
            },
        )
    }

    /// Puts what the policy was made for in place of the policy so far, `approved`, which the key of Name `signer` has
    /// signed, as the ticket tells.
    pub(crate) fn policy_authorize(
        &mut self,
        session: u32,
        approved: &[u8],
        reference: &[u8],
        signer: &[u8],
        ticket: &TPMT_TK_VERIFIED,
    ) -> Result<()> {
        // SAFETY: plain data, zero is empty.
        let (mut digest, mut nonce, mut name): (TPM2B_DIGEST, TPM2B_NONCE, TPM2B_NAME) = unsafe { zeroed() };
        digest.size = fill(&mut digest.buffer, approved);
        nonce.size = fill(&mut nonce.buffer, reference);
        name.size = fill(&mut name.name, signer);
        self.command(
            "PolicyAuthorize",
            &[],
            &mut Auth::None,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_PolicyAuthorize_Prepare(context, session, &digest, &nonce, &name, ticket) },
            // SAFETY: no pointers besides the context.
            |context| check(unsafe { Tss2_Sys_PolicyAuthorize_Complete(context) }),
        )
    }
}
