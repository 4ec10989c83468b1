//! What the TPM tells of itself: capabilities, PCRs, NV (TPM 2.0 Part 3, chapters 22, 30 and 31).

use std::mem::zeroed;

use tss_esapi::constants::tss::*;
use tss_esapi::tss2_esys::*;
use zeroize::{Zeroize as _, Zeroizing};

use super::{Auth, MALFORMED_RESPONSE, Sapi, bounded, check};
use crate::error::{Error, Result};

/// Bit of `TPMA_NV` (Part 2, 13.4).
const TPMA_NV_OWNERREAD: u32 = 1 << 17;
const TPMA_NV_AUTHREAD: u32 = 1 << 18;
const TPMA_NV_NO_DA: u32 = 1 << 25;

/// What is known of an NV index.
pub(crate) struct NvPublic {
    /// Bytes in it.
    pub(crate) size: u16,
    /// The owner may read it.
    pub(crate) by_owner: bool,
    /// Its own authValue may read it, and wrong ones do not count.
    pub(crate) by_itself: bool,
}

impl Sapi {
    /// Whether the TPM can make RSA keys of this size.
    pub(crate) fn test_rsa(&mut self, bits: u16) -> Result<()> {
        // SAFETY: plain data; the members set are those of an RSA key.
        let parameters = unsafe {
            let mut parameters: TPMT_PUBLIC_PARMS = zeroed();
            parameters.type_ = TPM2_ALG_RSA;
            parameters.parameters.rsaDetail.symmetric.algorithm = TPM2_ALG_NULL;
            parameters.parameters.rsaDetail.scheme.scheme = TPM2_ALG_NULL;
            parameters.parameters.rsaDetail.keyBits = bits;
            parameters
        };
        self.test_parameters(&parameters)
    }

    fn test_parameters(&mut self, parameters: &TPMT_PUBLIC_PARMS) -> Result<()> {
        self.command(
            "TestParms",
            &[],
            &mut Auth::None,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_TestParms_Prepare(context, parameters) },
            // SAFETY: no pointers besides the context.
            |context| check(unsafe { Tss2_Sys_TestParms_Complete(context) }),
        )
    }

    /// One page of a capability that is a list of numbers, as (number, value) pairs; value is 0 where there is none.
    pub(crate) fn get_capability(&mut self, capability: u32, first: u32, count: u32) -> Result<Vec<(u32, u32)>> {
        self.command(
            "GetCapability",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_GetCapability_Prepare(context, capability, first, count) },
            // SAFETY: plain data, filled by the call; `capability` tells which member of the union that was.
            |context| unsafe {
                let (mut more, mut data): (TPMI_YES_NO, TPMS_CAPABILITY_DATA) = zeroed();
                check(Tss2_Sys_GetCapability_Complete(context, &mut more, &mut data))?;
                let list = &data.data;
                Ok(match data.capability {
                    TPM2_CAP_ALGS => {
                        let list = &list.algorithms;
                        list.algProperties
                            .iter()
                            .take(list.count as _)
                            .map(|a| (a.alg.into(), a.algProperties))
                            .collect()
                    }
                    TPM2_CAP_HANDLES => {
                        list.handles.handle.iter().take(list.handles.count as _).map(|&h| (h, 0)).collect()
                    }
                    TPM2_CAP_TPM_PROPERTIES => {
                        let list = &list.tpmProperties;
                        list.tpmProperty.iter().take(list.count as _).map(|p| (p.property, p.value)).collect()
                    }
                    TPM2_CAP_ECC_CURVES => list
                        .eccCurves
                        .eccCurves
                        .iter()
                        .take(list.eccCurves.count as _)
                        .map(|&c| (c.into(), 0))
                        .collect(),
                    TPM2_CAP_COMMANDS => {
                        let list = &list.command;
                        // The command's number is in the low half of TPMA_CC.
                        list.commandAttributes.iter().take(list.count as _).map(|&a| (a & 0xffff, a)).collect()
                    }
                    _ => return Err(MALFORMED_RESPONSE),
                })
            },
        )
    }

    /// Values of the PCRs of a marshalled `TPML_PCR_SELECTION`: those of the first few, and how many these are.
    pub(crate) fn pcr_read(&mut self, selection: &[u8]) -> Result<Vec<Vec<u8>>> {
        // SAFETY: plain data; the buffer has the length told.
        let pcrs = unsafe {
            let mut pcrs: TPML_PCR_SELECTION = zeroed();
            let (start, length) = (selection.as_ptr(), selection.len() as _);
            check(Tss2_MU_TPML_PCR_SELECTION_Unmarshal(start, length, &mut 0, &mut pcrs))
                .map_err(|code| Error::malformed("PCR selection", format_args!("libtss2 says 0x{code:x}")))?;
            pcrs
        };
        self.command(
            "PCR_Read",
            &[],
            &mut Auth::None,
            // SAFETY: the structure lives through the call; libtss2 copies.
            |context| unsafe { Tss2_Sys_PCR_Read_Prepare(context, &pcrs) },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let (mut counter, mut read, mut values): (u32, TPML_PCR_SELECTION, TPML_DIGEST) = zeroed();
                check(Tss2_Sys_PCR_Read_Complete(context, &mut counter, &mut read, &mut values))?;
                let values = values.digests.iter().take(values.count as _);
                Ok(values.map(|value| bounded(&value.buffer, value.size).to_vec()).collect())
            },
        )
    }

    /// What the public area of an NV index tells.
    pub(crate) fn nv_read_public(&mut self, index: u32) -> Result<NvPublic> {
        self.command(
            "NV_ReadPublic",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_NV_ReadPublic_Prepare(context, index) },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let (mut public, mut name): (TPM2B_NV_PUBLIC, TPM2B_NAME) = zeroed();
                check(Tss2_Sys_NV_ReadPublic_Complete(context, &mut public, &mut name))?;
                let has = |attributes| public.nvPublic.attributes & attributes == attributes;
                let (by_owner, by_itself) = (has(TPMA_NV_OWNERREAD), has(TPMA_NV_AUTHREAD | TPMA_NV_NO_DA));
                Ok(NvPublic { size: public.nvPublic.dataSize, by_owner, by_itself })
            },
        )
    }

    /// `size` bytes of an NV index from `offset`, by `authority`: the index itself or the owner, with an empty authValue.
    pub(crate) fn nv_read(&mut self, authority: u32, index: u32, size: u16, offset: u16) -> Result<Vec<u8>> {
        self.command(
            "NV_Read",
            &[],
            &mut Auth::Empty,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_NV_Read_Prepare(context, authority, index, size, offset) },
            // SAFETY: plain data, filled by the call.
            |context| unsafe {
                let mut data: TPM2B_MAX_NV_BUFFER = zeroed();
                check(Tss2_Sys_NV_Read_Complete(context, &mut data))?;
                Ok(bounded(&data.buffer, data.size).to_vec())
            },
        )
    }

    /// Random bytes, as many of `wanted` as one command gives.
    pub(crate) fn get_random(&mut self, wanted: u16) -> Result<Zeroizing<Vec<u8>>> {
        self.command(
            "GetRandom",
            &[],
            &mut Auth::None,
            // SAFETY: no pointers besides the context.
            |context| unsafe { Tss2_Sys_GetRandom_Prepare(context, wanted) },
            |context| {
                // SAFETY: plain data, filled by the call.
                let (code, mut random) = unsafe {
                    let mut random: TPM2B_DIGEST = zeroed();
                    (Tss2_Sys_GetRandom_Complete(context, &mut random), random)
                };
                let value = Zeroizing::new(bounded(&random.buffer, random.size).to_vec());
                random.buffer.zeroize();
                check(code).map(|()| value)
            },
        )
    }

    /// Whether the TPM has AES keys of this size.
    pub(crate) fn test_aes(&mut self, bits: u16) -> Result<()> {
        // SAFETY: plain data; the members set are those of a symmetric key.
        let parameters = unsafe {
            let mut parameters: TPMT_PUBLIC_PARMS = zeroed();
            parameters.type_ = TPM2_ALG_SYMCIPHER;
            parameters.parameters.symDetail.sym.algorithm = TPM2_ALG_AES;
            parameters.parameters.symDetail.sym.keyBits.aes = bits;
            parameters.parameters.symDetail.sym.mode.aes = TPM2_ALG_NULL;
            parameters
        };
        self.test_parameters(&parameters)
    }
}
