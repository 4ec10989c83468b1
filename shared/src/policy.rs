//! Policies: the PCR values that a key is bound to, and the steps that satisfy a key's policy.

use std::fmt;
use std::str::FromStr;

use crate::algorithm::HashAlgorithm;
use crate::error::{Error, Result};

/// Command codes of policy commands (TPM 2.0 Part 2, 6.5.2).
pub mod policy_command {
    /// `TPM_CC_PolicyAuthorize`.
    pub const AUTHORIZE: u32 = 0x0000_016a;
    /// `TPM_CC_PolicyAuthValue`.
    pub const AUTH_VALUE: u32 = 0x0000_016b;
    /// `TPM_CC_PolicyCommandCode`.
    pub const COMMAND_CODE: u32 = 0x0000_016c;
    /// `TPM_CC_PolicyPassword`.
    pub const PASSWORD: u32 = 0x0000_018c;
    /// `TPM_CC_PolicyPCR`.
    pub const PCR: u32 = 0x0000_017f;
}

/// The hash of every policy that we make and run: that of our keys' Names.
const POLICY_HASH: HashAlgorithm = HashAlgorithm::Sha256;
/// PCRs of a PC client TPM.
const PCR_COUNT: u8 = 24;

/// PCRs of one or more banks. As text `sha256:0,7`, banks joined by `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrSelection(Vec<(HashAlgorithm, Vec<u8>)>);

impl PcrSelection {
    /// How many PCRs it names.
    pub fn count(&self) -> usize {
        self.0.iter().map(|(_, pcrs)| pcrs.len()).sum()
    }

    /// The same in selections of one bank and at most so many PCRs each, in order.
    pub fn parts(&self, at_most: usize) -> impl Iterator<Item = Self> {
        self.0.iter().flat_map(move |(hash, pcrs)| pcrs.chunks(at_most).map(|part| Self(vec![(*hash, part.to_vec())])))
    }

    /// `TPML_PCR_SELECTION`, marshalled (TPM 2.0 Part 2, 10.9.7).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u32).to_be_bytes().to_vec();
        for (hash, pcrs) in &self.0 {
            let bitmap = pcrs.iter().fold(0_u32, |map, pcr| map | 1 << pcr);
            bytes.extend_from_slice(&hash.tpm_algorithm().unwrap_or_default().to_be_bytes());
            bytes.push(PCR_COUNT / 8);
            bytes.extend_from_slice(&bitmap.to_le_bytes()[..usize::from(PCR_COUNT / 8)]);
        }
        bytes
    }
}

impl PcrSelection {
    /// Reads a marshalled `TPML_PCR_SELECTION`; `None` where it is no such thing, or names a hash unknown here.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, mut rest) = bytes.split_first_chunk()?;
        let mut banks = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            let ([high, low, size], after) = rest.split_first_chunk()?;
            let (bitmap, after) = after.split_at_checked(usize::from(*size))?;
            let algorithm = u16::from_be_bytes([*high, *low]);
            let hash = HashAlgorithm::all().find(|hash| hash.tpm_algorithm() == Some(algorithm))?;
            let is_set = |pcr: &u8| bitmap.get(usize::from(pcr / 8)).is_some_and(|byte| byte & 1 << (pcr % 8) != 0);
            banks.push((hash, (0..PCR_COUNT).filter(is_set).collect()));
            rest = after;
        }
        rest.is_empty().then_some(Self(banks))
    }
}

impl FromStr for PcrSelection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Config(format!("'{text}' names no PCRs: write them as in sha256:0,7 (numbers below 24)"));
        let mut banks: Vec<(HashAlgorithm, Vec<u8>)> = Vec::new();
        for bank in text.split('+') {
            let (hash, pcrs) = bank.split_once(':').ok_or_else(wrong)?;
            let hash = HashAlgorithm::from_name(hash.trim()).filter(|hash| hash.tpm_algorithm().is_some());
            let hash = hash.filter(|hash| banks.iter().all(|(known, _)| known != hash)).ok_or_else(wrong)?;
            let number = |text: &str| text.trim().parse().ok().filter(|number| *number < PCR_COUNT).ok_or_else(wrong);
            let mut pcrs = pcrs.split(',').map(number).collect::<Result<Vec<u8>>>()?;
            pcrs.sort_unstable();
            pcrs.dedup();
            banks.push((hash, pcrs));
        }
        Ok(Self(banks))
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (hash, pcrs)) in self.0.iter().enumerate() {
            let pcrs: Vec<String> = pcrs.iter().map(u8::to_string).collect();
            let name = hash.name().to_ascii_lowercase().replace("sha2-", "sha");
            write!(f, "{}{name}:{}", if index > 0 { "+" } else { "" }, pcrs.join(","))?;
        }
        Ok(())
    }
}

/// What binds a new key to PCRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrPolicy {
    /// The PCRs.
    pub pcrs: PcrSelection,
    /// The policy digest to bind to, where it is not that of the values the PCRs have now. It includes
    /// `TPM2_PolicyAuthValue` after `TPM2_PolicyPCR` if the key has an authValue.
    pub digest: Option<Vec<u8>>,
}

#[cfg(feature = "device")]
impl PcrPolicy {
    /// The steps of the policy for a new key, and its digest.
    pub(crate) fn steps(
        &self,
        tpm: &mut crate::tpm::Connection,
        with_auth_value: bool,
    ) -> Result<(Vec<PolicyStep>, Vec<u8>)> {
        let values = match self.digest {
            // Nobody knows which values it stands for; the TPM will tell whether they are there.
            Some(_) => Vec::new(),
            None => crate::tpm::read_pcrs(tpm, &self.pcrs)?,
        };
        let mut steps = vec![PolicyStep::pcr(&self.pcrs, &values)];
        if with_auth_value {
            steps.push(PolicyStep::auth_value());
        }
        let digest = match &self.digest {
            Some(digest) if digest.len() == POLICY_HASH.digest_length() => digest.clone(),
            Some(_) => {
                return Err(Error::DataInvalid(
                    "a policy digest is a SHA-256 digest; as hexpolicy: it has 64 digits".into(),
                ));
            }
            None => digest(&steps)?,
        };
        Ok((steps, digest))
    }
}

/// One step of a policy (draft-bottomley-tpm2-keys, 3.1.2): a command and its marshalled parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStep {
    /// `TPM_CC`.
    pub command: u32,
    /// The parameters; for `TPM2_PolicyPCR` the digest of the values (may be empty), then the selection.
    pub parameters: Vec<u8>,
}

impl PolicyStep {
    /// `TPM2_PolicyPCR`; `values` is the digest of the PCRs' values, empty for those they have at the time.
    pub fn pcr(pcrs: &PcrSelection, values: &[u8]) -> Self {
        let mut parameters = (values.len() as u16).to_be_bytes().to_vec();
        parameters.extend_from_slice(values);
        parameters.extend_from_slice(&pcrs.to_bytes());
        Self { command: policy_command::PCR, parameters }
    }

    /// The PCRs of `TPM2_PolicyPCR`; `None` of another command.
    pub fn pcrs(&self) -> Option<PcrSelection> {
        let (_, selection) = self.pcr_parameters().ok().filter(|_| self.command == policy_command::PCR)?;
        PcrSelection::from_bytes(selection)
    }

    /// `TPM2_PolicyAuthValue`.
    pub fn auth_value() -> Self {
        Self { command: policy_command::AUTH_VALUE, parameters: Vec::new() }
    }

    /// Of `TPM2_PolicyPCR`: the digest of the values, and the selection as bytes.
    pub fn pcr_parameters(&self) -> Result<(&[u8], &[u8])> {
        let wrong = || Error::malformed("TPM key file", "its PCR policy is cut short");
        let (size, rest) = self.parameters.split_first_chunk().ok_or_else(wrong)?;
        rest.split_at_checked(u16::from_be_bytes(*size).into()).ok_or_else(wrong)
    }

    /// The digest of a policy that goes on with this step (Part 3, chapter 23).
    fn extend(&self, digest: &[u8]) -> Result<Vec<u8>> {
        let command = self.command.to_be_bytes();
        Ok(POLICY_HASH.digest(&match self.command {
            policy_command::PCR => {
                let (values, selection) = self.pcr_parameters()?;
                [digest, &command, selection, values].concat()
            }
            _ => [digest, &command, &self.parameters].concat(),
        }))
    }
}

/// The digest of a whole policy of PCR, AuthValue and CommandCode steps.
pub fn digest(steps: &[PolicyStep]) -> Result<Vec<u8>> {
    steps.iter().try_fold(vec![0; POLICY_HASH.digest_length()], |digest, step| step.extend(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_read_and_written() {
        let selection: PcrSelection = "sha256:7,0+sha1:23".parse().unwrap();
        assert_eq!(selection.to_string(), "sha256:0,7+sha1:23");
        assert_eq!(selection.count(), 3);
        let bytes = [0, 0, 0, 2, 0, 0x0b, 3, 0x81, 0, 0, 0, 4, 3, 0, 0, 0x80];
        assert_eq!(selection.to_bytes(), bytes);
        assert_eq!(PcrSelection::from_bytes(&bytes), Some(selection));
        assert_eq!(PcrSelection::from_bytes(&bytes[..15]), None);
        for wrong in ["", "sha256", "sha256:", "sha256:24", "md5:1", "sha224:1", "sha1:1+sha1:2"] {
            assert!(wrong.parse::<PcrSelection>().is_err(), "{wrong}");
        }
    }

    /// `tpm2_createpolicy --policy-pcr -l sha256:16` over a PCR of zeros gives this digest.
    #[test]
    fn a_pcr_policys_digest_is_the_one_of_tpm2_tools() {
        let pcrs: PcrSelection = "sha256:16".parse().unwrap();
        let values = HashAlgorithm::Sha256.digest(&[0; 32]);
        let steps = [PolicyStep::pcr(&pcrs, &values)];
        assert_eq!(
            crate::hex::encode(&digest(&steps).unwrap()),
            "bff2d58e9813f97cefc14f72ad8133bc7092d652b7c877959254af140c841f36"
        );
    }
}
