//! Secret keys, in the TPM or in memory: AES and HMAC.

use std::sync::Arc;

use aes::cipher::consts::U16;
use aes::cipher::{
    AsyncStreamCipher as _, BlockCipher, BlockDecrypt, BlockDecryptMut as _, BlockEncrypt, BlockEncryptMut as _,
    BlockSizeUser, KeyInit, KeyIvInit as _, StreamCipher as _,
};
use aes::{Aes128, Aes192, Aes256, Block};
use hmac::{Hmac, Mac};
use zeroize::Zeroizing;

use crate::algorithm::{CipherMode, Direction, HashAlgorithm, with_hash};
use crate::auth::StackWiped;
use crate::error::{Error, Result};
use crate::key::TpmKey;

/// Length of AES's blocks and IVs, in bytes.
pub const AES_BLOCK: usize = 16;

/// A new value for a secret key in memory, by the system's random numbers.
pub fn random_value(length: usize) -> Result<Zeroizing<Vec<u8>>> {
    let mut value = Zeroizing::new(vec![0; length]);
    crate::random::fill(&mut value)?;
    Ok(value)
}

/// A secret key, ready for use. Cheap to clone.
#[derive(Clone)]
pub struct SecretKey(Place);

#[derive(Clone)]
enum Place {
    Tpm(TpmKey),
    Memory(Arc<Zeroizing<Vec<u8>>>),
}

impl SecretKey {
    pub(crate) fn in_tpm(key: TpmKey) -> Self {
        Self(Place::Tpm(key))
    }

    /// One whose value is here.
    pub fn in_memory(value: Zeroizing<Vec<u8>>) -> Self {
        Self(Place::Memory(Arc::new(value)))
    }

    /// Its value, if that is here.
    pub fn value(&self) -> Option<&[u8]> {
        match &self.0 {
            Place::Tpm(_) => None,
            Place::Memory(value) => Some(value),
        }
    }

    /// AES of `data`. `iv` has [`AES_BLOCK`] bytes and becomes the one to go on with; it is empty for ECB.
    ///
    /// ECB and CBC take whole blocks; of the others only the last call's data may end within one.
    /// Errors: [`Error::DataInvalid`] for other lengths, and those of the TPM.
    pub fn cipher(
        &self,
        mode: CipherMode,
        direction: Direction,
        iv: &mut Vec<u8>,
        data: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        if iv.len() != if mode == CipherMode::Ecb { 0 } else { AES_BLOCK } {
            return Err(Error::DataInvalid("an IV is as long as a block".into()));
        }
        if mode.needs_whole_blocks() && data.len() % AES_BLOCK != 0 {
            return Err(Error::DataInvalid("this mode takes whole blocks".into()));
        }
        if data.is_empty() {
            return Ok(Zeroizing::default());
        }
        match &self.0 {
            Place::Tpm(key) => key.cipher((mode, direction), iv, data),
            Place::Memory(key) => {
                // The key schedule is there, too.
                let _wiped = StackWiped;
                match key.len() {
                    16 => software::<Aes128>(key, (mode, direction), iv, data),
                    24 => software::<Aes192>(key, (mode, direction), iv, data),
                    32 => software::<Aes256>(key, (mode, direction), iv, data),
                    _ => Err(unusable()),
                }
            }
        }
    }

    /// The HMAC of `data`.
    pub fn mac(&self, hash: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>> {
        match &self.0 {
            Place::Tpm(key) => key.mac(hash, data),
            Place::Memory(key) => {
                let mut running = RunningMac::new(hash, key)?;
                running.update(data);
                Ok(running.finish())
            }
        }
    }

    /// Starts an HMAC whose data comes in parts. `None` for a key in the TPM, which takes all of it at once: see [`Self::mac`].
    pub fn start_mac(&self, hash: HashAlgorithm) -> Result<Option<RunningMac>> {
        self.value().map(|key| RunningMac::new(hash, key)).transpose()
    }
}

/// An HMAC under way, by a key in memory.
///
/// It holds no copy of the key, but digests of it, and the last block of the data. RustCrypto's hashes of this generation do
/// not wipe those.
pub struct RunningMac(Box<dyn Running>);

/// What is asked of the HMAC with every hash.
trait Running: Send + Sync {
    fn update(&mut self, data: &[u8]);
    fn finish(self: Box<Self>) -> Vec<u8>;
}

impl<M: Mac + Send + Sync> Running for M {
    fn update(&mut self, data: &[u8]) {
        Mac::update(self, data);
    }

    fn finish(self: Box<Self>) -> Vec<u8> {
        self.finalize().into_bytes().to_vec()
    }
}

impl RunningMac {
    fn new(hash: HashAlgorithm, key: &[u8]) -> Result<Self> {
        let _wiped = StackWiped;
        with_hash!(hash, H => {
            let mac = <Hmac<H> as Mac>::new_from_slice(key).map_err(|_| unusable())?;
            Ok(Self(Box::new(mac)))
        })
    }

    /// Adds data.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The HMAC of everything added.
    pub fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

fn unusable() -> Error {
    Error::Unsupported("a secret of this length as a key".into())
}

fn software<C>(
    key: &[u8],
    (mode, direction): (CipherMode, Direction),
    iv: &mut Vec<u8>,
    data: &[u8],
) -> Result<Zeroizing<Vec<u8>>>
where
    C: BlockCipher + BlockEncrypt + BlockDecrypt + BlockSizeUser<BlockSize = U16> + KeyInit,
{
    let mut output = Zeroizing::new(data.to_vec());
    let wrong = |_| unusable();
    match (mode, direction) {
        (CipherMode::Ecb, _) => {
            let cipher = C::new_from_slice(key).map_err(wrong)?;
            for block in output.chunks_exact_mut(AES_BLOCK) {
                match direction {
                    Direction::Encrypt => cipher.encrypt_block(Block::from_mut_slice(block)),
                    Direction::Decrypt => cipher.decrypt_block(Block::from_mut_slice(block)),
                }
            }
        }
        (CipherMode::Cbc, Direction::Encrypt) => {
            let mut cipher = cbc::Encryptor::<C>::new_from_slices(key, iv).map_err(wrong)?;
            output.chunks_exact_mut(AES_BLOCK).for_each(|block| cipher.encrypt_block_mut(Block::from_mut_slice(block)));
        }
        (CipherMode::Cbc, Direction::Decrypt) => {
            let mut cipher = cbc::Decryptor::<C>::new_from_slices(key, iv).map_err(wrong)?;
            output.chunks_exact_mut(AES_BLOCK).for_each(|block| cipher.decrypt_block_mut(Block::from_mut_slice(block)));
        }
        (CipherMode::Cfb, Direction::Encrypt) => {
            cfb_mode::Encryptor::<C>::new_from_slices(key, iv).map_err(wrong)?.encrypt(&mut output);
        }
        (CipherMode::Cfb, Direction::Decrypt) => {
            cfb_mode::Decryptor::<C>::new_from_slices(key, iv).map_err(wrong)?.decrypt(&mut output);
        }
        (CipherMode::Ctr, _) => {
            ctr::Ctr128BE::<C>::new_from_slices(key, iv).map_err(wrong)?.apply_keystream(&mut output);
        }
        (CipherMode::Ofb, _) => {
            ofb::Ofb::<C>::new_from_slices(key, iv).map_err(wrong)?.apply_keystream(&mut output);
        }
    }
    let ciphertext = if direction == Direction::Encrypt { output.as_slice() } else { data };
    *iv = next_iv(mode, iv, ciphertext, (data, &output));
    Ok(output)
}

/// The IV with which the next data goes on, after whole blocks (SP 800-38A, chapter 6).
fn next_iv(mode: CipherMode, iv: &[u8], ciphertext: &[u8], (input, output): (&[u8], &[u8])) -> Vec<u8> {
    let last = |bytes: &[u8]| bytes.rchunks_exact(AES_BLOCK).next().map_or(iv.to_vec(), <[u8]>::to_vec);
    match mode {
        CipherMode::Ecb => Vec::new(),
        CipherMode::Cbc | CipherMode::Cfb => last(ciphertext),
        CipherMode::Ofb => last(input).iter().zip(last(output)).map(|(one, other)| one ^ other).collect(),
        CipherMode::Ctr => {
            let mut counter = [0; AES_BLOCK];
            counter.copy_from_slice(iv);
            let blocks = (input.len() / AES_BLOCK) as u128;
            u128::from_be_bytes(counter).wrapping_add(blocks).to_be_bytes().to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        crate::hex::decode(text).unwrap()
    }

    /// SP 800-38A, appendix F, AES-128: the first two blocks of each mode's example.
    #[test]
    fn every_mode_gives_the_standards_vectors_in_one_call_and_in_two() {
        let key = SecretKey::in_memory(Zeroizing::new(hex("2b7e151628aed2a6abf7158809cf4f3c")));
        let clear = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let iv = "000102030405060708090a0b0c0d0e0f";
        let cases = [
            (CipherMode::Ecb, "", "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"),
            (CipherMode::Cbc, iv, "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"),
            (CipherMode::Cfb, iv, "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b"),
            (CipherMode::Ofb, iv, "3b3fd92eb72dad20333449f8e83cfb4a7789508d16918f03f53c52dac54ed825"),
            (
                CipherMode::Ctr,
                "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
                "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff",
            ),
        ];
        for (mode, iv, cipher) in cases {
            for (direction, from, to) in
                [(Direction::Encrypt, &clear, &hex(cipher)), (Direction::Decrypt, &hex(cipher), &clear)]
            {
                let whole = key.cipher(mode, direction, &mut hex(iv), from).unwrap();
                assert_eq!(*whole, *to, "{mode:?} {direction:?}");
                let mut iv = hex(iv);
                let first = key.cipher(mode, direction, &mut iv, &from[..16]).unwrap();
                let second = key.cipher(mode, direction, &mut iv, &from[16..]).unwrap();
                assert_eq!([&first[..], &second[..]].concat(), *to, "{mode:?} {direction:?} in two");
            }
        }
    }

    /// RFC 4231, case 2.
    #[test]
    fn hmac_gives_the_standards_vector() {
        let key = SecretKey::in_memory(Zeroizing::new(b"Jefe".to_vec()));
        let mac = key.mac(HashAlgorithm::Sha256, b"what do ya want for nothing?").unwrap();
        assert_eq!(mac, hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
    }

    #[test]
    fn part_of_a_block_and_a_wrong_iv_are_refused_where_the_mode_cannot_have_them() {
        let key = SecretKey::in_memory(Zeroizing::new(vec![1; 16]));
        let cipher = |mode, iv: usize, data: usize| {
            key.cipher(mode, Direction::Encrypt, &mut vec![0; iv], &vec![0; data]).map(|output| output.len())
        };
        assert!(cipher(CipherMode::Cbc, 16, 15).is_err());
        assert!(cipher(CipherMode::Cbc, 15, 16).is_err());
        assert!(cipher(CipherMode::Ecb, 16, 16).is_err());
        assert_eq!(cipher(CipherMode::Ctr, 16, 5).unwrap(), 5);
    }
}
