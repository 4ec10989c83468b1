//! What keys do (TPM 2.0 Part 3, chapters 14, 15 and 20).

use std::mem::zeroed;
use std::ptr::null_mut;

use tss_esapi::constants::tss::*;
use tss_esapi::tss2_esys::*;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Auth, MALFORMED_RESPONSE, Sapi, bounded, check, fill, tpm_hash};
use crate::algorithm::{CipherMode, Direction, HashAlgorithm, SignatureScheme};
use crate::error::{Error, Result};
use crate::public_key::padded;

/// The most that one command takes of a cipher's or a MAC's data: what the specification asks of every TPM
/// (`TPM_PT_INPUT_BUFFER`, Part 2, 6.13).
pub(crate) const MAX_BUFFER: usize = 1024;

impl Sapi {
    /// Signs a digest. ECDSA signatures are `r || s`, each `coordinate` bytes long.
    pub(crate) fn sign(
        &mut self,
        key: (u32, &[u8]),
        auth: &mut Auth<'_>,
        (scheme, hash): (SignatureScheme, HashAlgorithm),
        digest: &[u8],
        coordinate: usize,
    ) -> Result<Vec<u8>> {
        // SAFETY: plain data, zero is empty.
        let (mut input, mut tpm_scheme, mut ticket): (TPM2B_DIGEST, TPMT_SIG_SCHEME, TPMT_TK_HASHCHECK) =
            unsafe { zeroed() };
        if digest.len() > input.buffer.len() {
            return Err(Error::DataInvalid("longer than any digest".into()));
        }
        input.size = fill(&mut input.buffer, digest);
        tpm_scheme.scheme = match scheme {
            SignatureScheme::RsaPkcs1(_) => TPM2_ALG_RSASSA,
            SignatureScheme::RsaPss { .. } => TPM2_ALG_RSAPSS,
            SignatureScheme::Ecdsa => TPM2_ALG_ECDSA,
            SignatureScheme::RsaPkcs1Data | SignatureScheme::RsaRaw => {
                return Err(Error::Unsupported("this signature scheme by TPM2_Sign".into()));
            }
        };
        tpm_scheme.details.any.hashAlg = tpm_hash(hash);
        ticket.tag = TPM2_ST_HASHCHECK;
        ticket.hierarchy = TPM2_RH_NULL;
        self.command(
            "Sign",
            &[key.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_Sign_Prepare(context, key.0, &input, &tpm_scheme, &ticket) },
            // SAFETY: plain data, filled by the call; `sigAlg` tells which member of the union that was.
            |context| unsafe {
                let mut signature: TPMT_SIGNATURE = zeroed();
                check(Tss2_Sys_Sign_Complete(context, &mut signature))?;
                match signature.sigAlg {
                    TPM2_ALG_RSASSA | TPM2_ALG_RSAPSS => {
                        let rsa = signature.signature.rsassa.sig;
                        Ok(bounded(&rsa.buffer, rsa.size).to_vec())
                    }
                    TPM2_ALG_ECDSA => {
                        let ecdsa = signature.signature.ecdsa;
                        let r = bounded(&ecdsa.signatureR.buffer, ecdsa.signatureR.size);
                        let s = bounded(&ecdsa.signatureS.buffer, ecdsa.signatureS.size);
                        Ok([padded(r, coordinate), padded(s, coordinate)].concat())
                    }
                    _ => Err(MALFORMED_RESPONSE),
                }
            },
        )
    }

    /// The ticket for a marshalled `TPMT_SIGNATURE` over a digest by a loaded key.
    pub(crate) fn verify_signature(
        &mut self,
        key: (u32, &[u8]),
        digest: &[u8],
        signature: &[u8],
    ) -> Result<TPMT_TK_VERIFIED> {
        // SAFETY: plain data; the buffer has the length told.
        let (input, signature) = unsafe {
            let (mut input, mut parsed): (TPM2B_DIGEST, TPMT_SIGNATURE) = zeroed();
            input.size = fill(&mut input.buffer, digest);
            let (start, length) = (signature.as_ptr(), signature.len() as _);
            check(Tss2_MU_TPMT_SIGNATURE_Unmarshal(start, length, &mut 0, &mut parsed))
                .map_err(|code| Error::malformed("signature of a policy", format_args!("libtss2 says 0x{code:x}")))?;
            (input, parsed)
        };
        self.command(
            "VerifySignature",
            &[key.1],
            &mut Auth::None,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_VerifySignature_Prepare(context, key.0, &input, &signature) },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let mut ticket: TPMT_TK_VERIFIED = zeroed();
                check(Tss2_Sys_VerifySignature_Complete(context, &mut ticket))?;
                Ok(ticket)
            },
        )
    }

    /// The bare RSA operation with the private key, on a block as long as the modulus.
    pub(crate) fn rsa_decrypt(
        &mut self,
        key: (u32, &[u8]),
        auth: &mut Auth<'_>,
        block: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        // SAFETY: plain data, zero is empty.
        let (mut input, mut scheme, label): (TPM2B_PUBLIC_KEY_RSA, TPMT_RSA_DECRYPT, TPM2B_DATA) = unsafe { zeroed() };
        if block.len() > input.buffer.len() {
            return Err(Error::DataInvalid("longer than the key's modulus".into()));
        }
        input.size = fill(&mut input.buffer, block);
        scheme.scheme = TPM2_ALG_NULL;
        self.command(
            "RSA_Decrypt",
            &[key.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_RSA_Decrypt_Prepare(context, key.0, &input, &scheme, &label) },
            |context| {
                // SAFETY: plain data, filled by the call.
                let (code, mut message) = unsafe {
                    let mut message: TPM2B_PUBLIC_KEY_RSA = zeroed();
                    (Tss2_Sys_RSA_Decrypt_Complete(context, &mut message), message)
                };
                let value = Zeroizing::new(padded(bounded(&message.buffer, message.size), block.len()));
                message.buffer.zeroize();
                check(code).map(|()| value)
            },
        )
    }

    /// ECDH with the point of another (`x`, `y`): the shared point's x, `x.len()` bytes long.
    pub(crate) fn ecdh_z_gen(
        &mut self,
        key: (u32, &[u8]),
        auth: &mut Auth<'_>,
        (x, y): (&[u8], &[u8]),
    ) -> Result<Zeroizing<Vec<u8>>> {
        // SAFETY: plain data, zero is empty.
        let mut point: TPM2B_ECC_POINT = unsafe { zeroed() };
        point.point.x.size = fill(&mut point.point.x.buffer, x);
        point.point.y.size = fill(&mut point.point.y.buffer, y);
        self.command(
            "ECDH_ZGen",
            &[key.1],
            auth,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_ECDH_ZGen_Prepare(context, key.0, &point) },
            |context| {
                // SAFETY: plain data, filled by the call.
                let (code, mut shared) = unsafe {
                    let mut shared: TPM2B_ECC_POINT = zeroed();
                    (Tss2_Sys_ECDH_ZGen_Complete(context, &mut shared), shared)
                };
                let shared_x = &mut shared.point.x;
                let value = Zeroizing::new(padded(bounded(&shared_x.buffer, shared_x.size), x.len()));
                shared_x.buffer.zeroize();
                check(code).map(|()| value)
            },
        )
    }

    /// One stretch of at most [`MAX_BUFFER`] bytes through an AES key; `iv` becomes the one that goes on from there.
    pub(crate) fn encrypt_decrypt(
        &mut self,
        key: (u32, &[u8]),
        auth: &mut Auth<'_>,
        (mode, direction): (CipherMode, Direction),
        iv: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        // SAFETY: plain data, zero is empty.
        let (mut input, mut iv_in): (TPM2B_MAX_BUFFER, TPM2B_IV) = unsafe { zeroed() };
        input.size = fill(&mut input.buffer, data);
        iv_in.size = fill(&mut iv_in.buffer, iv);
        let decrypt = TPMI_YES_NO::from(direction == Direction::Decrypt);
        let (output, next) = self.command(
            "EncryptDecrypt2",
            &[key.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe {
                Tss2_Sys_EncryptDecrypt2_Prepare(context, key.0, &input, decrypt, mode.tpm_algorithm(), &iv_in)
            },
            |context| {
                // SAFETY: plain data, filled by the call.
                let (code, mut output, next) = unsafe {
                    let (mut output, mut next): (TPM2B_MAX_BUFFER, TPM2B_IV) = zeroed();
                    (Tss2_Sys_EncryptDecrypt2_Complete(context, &mut output, &mut next), output, next)
                };
                let value = Zeroizing::new(bounded(&output.buffer, output.size).to_vec());
                output.buffer.zeroize();
                check(code)?;
                let next = bounded(&next.buffer, next.size).to_vec();
                let fits = value.len() == data.len() && next.len() == iv.len();
                fits.then_some((value, next)).ok_or(MALFORMED_RESPONSE)
            },
        )?;
        input.buffer.zeroize();
        *iv = next;
        Ok(output)
    }

    /// The HMAC of at most [`MAX_BUFFER`] bytes.
    pub(crate) fn hmac(
        &mut self,
        key: (u32, &[u8]),
        auth: &mut Auth<'_>,
        hash: HashAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>> {
        // SAFETY: plain data, zero is empty.
        let mut input: TPM2B_MAX_BUFFER = unsafe { zeroed() };
        input.size = fill(&mut input.buffer, data);
        self.command(
            "HMAC",
            &[key.1],
            auth,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_HMAC_Prepare(context, key.0, &input, tpm_hash(hash)) },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let mut digest: TPM2B_DIGEST = zeroed();
                check(Tss2_Sys_HMAC_Complete(context, &mut digest))?;
                mac(&digest, hash)
            },
        )
    }

    /// Starts an HMAC of more data; returns the handle of the sequence, whose authValue is `secret`.
    pub(crate) fn hmac_start(
        &mut self,
        key: (u32, &[u8]),
        auth: &mut Auth<'_>,
        hash: HashAlgorithm,
        secret: &[u8],
    ) -> Result<u32> {
        // SAFETY: plain data, zero is empty.
        let mut of_sequence: TPM2B_AUTH = unsafe { zeroed() };
        of_sequence.size = fill(&mut of_sequence.buffer, secret);
        let started = self.command(
            "HMAC_Start",
            &[key.1],
            auth,
            // SAFETY: the structures live through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_HMAC_Start_Prepare(context, key.0, &of_sequence, tpm_hash(hash)) },
            |context| {
                let mut handle = 0;
                // SAFETY: plain data, filled by the call.
                check(unsafe { Tss2_Sys_HMAC_Start_Complete(context, &mut handle) })?;
                Ok(handle)
            },
        );
        of_sequence.buffer.zeroize();
        started
    }

    /// Adds at most [`MAX_BUFFER`] bytes to a sequence.
    pub(crate) fn sequence_update(&mut self, sequence: u32, auth: &mut Auth<'_>, data: &[u8]) -> Result<()> {
        // SAFETY: plain data, zero is empty.
        let mut input: TPM2B_MAX_BUFFER = unsafe { zeroed() };
        input.size = fill(&mut input.buffer, data);
        self.command(
            "SequenceUpdate",
            &[],
            auth,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_SequenceUpdate_Prepare(context, sequence, &input) },
            // SAFETY: no pointers besides the context.
            |context| check(unsafe { Tss2_Sys_SequenceUpdate_Complete(context) }),
        )
    }

    /// Ends a sequence, which is flushed with it.
    pub(crate) fn sequence_complete(
        &mut self,
        sequence: u32,
        auth: &mut Auth<'_>,
        hash: HashAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>> {
        // SAFETY: plain data, zero is empty.
        let mut input: TPM2B_MAX_BUFFER = unsafe { zeroed() };
        input.size = fill(&mut input.buffer, data);
        self.command(
            "SequenceComplete",
            &[],
            auth,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_SequenceComplete_Prepare(context, sequence, &input, TPM2_RH_NULL) },
            // SAFETY: plain data, filled by the call; null for what is not wanted.
            |context| unsafe {
                let mut digest: TPM2B_DIGEST = zeroed();
                check(Tss2_Sys_SequenceComplete_Complete(context, &mut digest, null_mut()))?;
                mac(&digest, hash)
            },
        )
    }
}

/// An HMAC as the TPM gave it, if it is as long as those of this hash are.
fn mac(digest: &TPM2B_DIGEST, hash: HashAlgorithm) -> Result<Vec<u8>, TSS2_RC> {
    let mac = bounded(&digest.buffer, digest.size);
    if mac.len() == hash.digest_length() { Ok(mac.to_vec()) } else { Err(MALFORMED_RESPONSE) }
}
