//! RSA paddings (RFC 8017) around the bare private operation, for what a TPM does not pad by itself.
//!
//! What takes padding off a decrypted block does so in constant time: only the final verdict, and where that is what
//! the caller asked for not even that, depends on secret bytes.

use hmac::{Mac as _, SimpleHmac};
use sha2::Sha256;
use subtle::{
    Choice, ConditionallySelectable as _, ConstantTimeEq as _, ConstantTimeGreater as _, ConstantTimeLess as _,
};
use zeroize::Zeroizing;

use crate::algorithm::HashAlgorithm;
use crate::error::{Error, Result};

/// The shortest padding of PKCS#1 v1.5: two marks, eight bytes, a zero (RFC 8017, 7.2.1 and 9.2).
pub(crate) const PKCS1_OVERHEAD: usize = 11;

/// EMSA-PKCS1-v1_5's padding (RFC 8017, 9.2) before `data`, in a block of `length` bytes.
pub(crate) fn pkcs1_signature_block(data: &[u8], length: usize) -> Result<Vec<u8>> {
    let padding = (length.checked_sub(3 + data.len())).filter(|padding| *padding >= PKCS1_OVERHEAD - 3);
    let padding = padding.ok_or_else(|| Error::DataInvalid("longer than the key can sign".into()))?;
    let mut block = vec![0, 1];
    block.resize(2 + padding, 0xff);
    block.push(0);
    block.extend_from_slice(data);
    Ok(block)
}

/// What is signed in a recovered block: takes that padding off. Public, so in no special time.
pub fn pkcs1_signature_data(block: &[u8]) -> Result<&[u8]> {
    let padded = block.strip_prefix(&[0, 1]).ok_or(Error::SignatureInvalid)?;
    let padding = padded.iter().take_while(|byte| **byte == 0xff).count();
    match padded.get(padding) {
        Some(0) if padding >= PKCS1_OVERHEAD - 3 => Ok(&padded[padding + 1..]),
        _ => Err(Error::SignatureInvalid),
    }
}

/// EMSA-PSS (RFC 8017, 9.1.1) of a digest, for a modulus of `bits` bits.
pub(crate) fn pss_block(hash: HashAlgorithm, digest: &[u8], salt: &[u8], bits: usize) -> Result<Vec<u8>> {
    let em_bits = bits - 1;
    let length = em_bits.div_ceil(8);
    let digest_length = hash.digest_length();
    let Some(padding) = length.checked_sub(digest_length + salt.len() + 2) else {
        return Err(Error::DataInvalid("the salt is too long for this key".into()));
    };
    let h = hash.digest(&[&[0; 8], digest, salt].concat());
    let mut block = vec![0; padding];
    block.push(1);
    block.extend_from_slice(salt);
    mask(hash, &h, &mut block);
    block[0] &= 0xff >> (8 * length - em_bits);
    block.extend_from_slice(&h);
    block.push(0xbc);
    // A modulus of 8n + 1 bits has one byte more than the block.
    let mut whole = vec![0; bits.div_ceil(8) - length];
    whole.append(&mut block);
    Ok(whole)
}

/// The length of the salt in a recovered block that is EMSA-PSS of a digest: what follows the zeros and the one before it, if it
/// makes the same block. `None` of any other block.
pub(crate) fn pss_salt_length(block: &[u8], hash: HashAlgorithm, digest: &[u8], bits: usize) -> Option<usize> {
    let em_bits = bits - 1;
    let length = em_bits.div_ceil(8);
    let masked = block.get(bits.div_ceil(8) - length..)?.strip_suffix(&[0xbc])?;
    let (masked, h) = masked.split_at(masked.len().checked_sub(hash.digest_length())?);
    let mut data = masked.to_vec();
    mask(hash, h, &mut data);
    *data.first_mut()? &= 0xff >> (8 * length - em_bits);
    let one = data.iter().position(|byte| *byte != 0)?;
    let salt = &data[one + 1..];
    pss_block(hash, digest, salt, bits).is_ok_and(|expected| expected == block).then_some(salt.len())
}

/// The message in an RSAES-PKCS1-v1_5 block (RFC 8017, 7.2.2).
pub(crate) fn pkcs1_message(block: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let (valid, start) = find_pkcs1_message(block);
    if bool::from(valid) {
        Ok(Zeroizing::new(block[start as usize..].to_vec()))
    } else {
        Err(Error::EncryptedDataInvalid)
    }
}

/// As [`pkcs1_message`]; but a block that is wrong gives a message that depends on `secret` and the ciphertext alone
/// (draft-irtf-cfrg-rsa-guidance, section 7).
pub(crate) fn pkcs1_message_or_another(block: &[u8], secret: &[u8], ciphertext: &[u8]) -> Zeroizing<Vec<u8>> {
    let (valid, start) = find_pkcs1_message(block);
    let key = prf(secret, b"key", &HashAlgorithm::Sha256.digest(ciphertext), 32);
    let other = prf(&key, b"message", &[], block.len());
    let longest = (block.len() - PKCS1_OVERHEAD) as u32;
    let mut other_length = 0;
    for candidate in prf(&key, b"length", &[], 256).chunks_exact(2) {
        let mask = (longest + 1).next_power_of_two() - 1;
        let candidate = u32::from(u16::from_be_bytes([candidate[0], candidate[1]])) & mask;
        other_length.conditional_assign(&candidate, candidate.ct_lt(&(longest + 1)));
    }
    let other_start = block.len() as u32 - other_length;
    let start = u32::conditional_select(&other_start, &start, valid);
    let mut message = Zeroizing::new(vec![0; block.len()]);
    for (place, (real, other)) in message.iter_mut().zip(block.iter().zip(other.iter())) {
        *place = u8::conditional_select(other, real, valid);
    }
    // The length is what the caller gets to know anyway.
    Zeroizing::new(message[start as usize..].to_vec())
}

/// Length of the secret in TLS's RSA key exchange.
pub(crate) const PREMASTER: usize = 48;

/// The secret of TLS's RSA key exchange in its block; `other` where the padding, the length or the version is wrong
/// (RFC 5246, 7.4.7.1).
pub(crate) fn tls_premaster_or_another(
    block: &[u8],
    client: u16,
    negotiated: Option<u16>,
    other: &[u8; PREMASTER],
) -> Result<Zeroizing<Vec<u8>>> {
    let start = (block.len().checked_sub(PREMASTER)).filter(|start| *start >= PKCS1_OVERHEAD);
    let start = start.ok_or_else(|| Error::Unsupported("TLS's RSA key exchange with so small a key".into()))?;
    let (padding, secret) = block.split_at(start);
    let (mut valid, last) = (Choice::from(1), padding.len() - 1);
    for (index, byte) in padding.iter().enumerate() {
        valid &= match index {
            0 => byte.ct_eq(&0),
            1 => byte.ct_eq(&2),
            _ if index == last => byte.ct_eq(&0),
            _ => !byte.ct_eq(&0),
        };
    }
    let version = u16::from_be_bytes([secret[0], secret[1]]);
    valid &= version.ct_eq(&client) | version.ct_eq(&negotiated.unwrap_or(client));
    let chosen = secret.iter().zip(other).map(|(real, other)| u8::conditional_select(other, real, valid));
    Ok(Zeroizing::new(chosen.collect()))
}

/// Whether the padding is right, and where the message begins.
fn find_pkcs1_message(block: &[u8]) -> (Choice, u32) {
    let (mut valid, mut found, mut start) = (Choice::from(1), Choice::from(0), 0);
    for (index, byte) in (0_u32..).zip(block) {
        match index {
            0 => valid &= byte.ct_eq(&0),
            1 => valid &= byte.ct_eq(&2),
            _ => {
                let first_zero = byte.ct_eq(&0) & !found;
                start.conditional_assign(&(index + 1), first_zero);
                found |= first_zero;
            }
        }
    }
    valid &= found & start.ct_gt(&(PKCS1_OVERHEAD as u32 - 1));
    (valid, start)
}

/// EME-OAEP (RFC 8017, 7.1.1, step 2): a block of `length` bytes. `seed` is as long as the hash's digest, and random.
pub(crate) fn oaep_block(
    message: &[u8],
    hash: HashAlgorithm,
    mgf_hash: HashAlgorithm,
    label: &[u8],
    seed: &[u8],
    length: usize,
) -> Result<Zeroizing<Vec<u8>>> {
    let Some(padding) = length.checked_sub(2 * seed.len() + 2 + message.len()) else {
        return Err(Error::DataInvalid("more than this key encrypts at once".into()));
    };
    let mut data = Zeroizing::new([&hash.digest(label)[..], &vec![0; padding], &[1], message].concat());
    mask(mgf_hash, seed, &mut data);
    let mut masked_seed = seed.to_vec();
    mask(mgf_hash, &data, &mut masked_seed);
    Ok(Zeroizing::new([&[0], &masked_seed[..], &data].concat()))
}

/// The message in an RSAES-OAEP block (RFC 8017, 7.1.2, step 3).
pub(crate) fn oaep_message(
    block: &[u8],
    hash: HashAlgorithm,
    mgf_hash: HashAlgorithm,
    label: &[u8],
) -> Result<Zeroizing<Vec<u8>>> {
    let length = hash.digest_length();
    if block.len() < 2 * length + 2 {
        return Err(Error::EncryptedDataInvalid);
    }
    let mut seed = Zeroizing::new(block[1..=length].to_vec());
    let mut data = Zeroizing::new(block[1 + length..].to_vec());
    mask(mgf_hash, &data, &mut seed);
    mask(mgf_hash, &seed, &mut data);
    let mut valid = block[0].ct_eq(&0) & data[..length].ct_eq(&hash.digest(label));
    let (mut found, mut start) = (Choice::from(0), 0_u32);
    for (index, byte) in (0_u32..).zip(data.iter()).skip(length) {
        let first_one = byte.ct_eq(&1) & !found;
        start.conditional_assign(&(index + 1), first_one);
        found |= first_one;
        valid &= found | byte.ct_eq(&0);
    }
    valid &= found;
    if bool::from(valid) {
        Ok(Zeroizing::new(data[start as usize..].to_vec()))
    } else {
        Err(Error::EncryptedDataInvalid)
    }
}

/// Adds MGF1 (RFC 8017, B.2.1) of `seed` to `data`.
fn mask(hash: HashAlgorithm, seed: &[u8], data: &mut [u8]) {
    for (counter, block) in (0_u32..).zip(data.chunks_mut(hash.digest_length())) {
        let input = Zeroizing::new([seed, &counter.to_be_bytes()].concat());
        let pad = Zeroizing::new(hash.digest(&input));
        block.iter_mut().zip(pad.iter()).for_each(|(byte, pad)| *byte ^= pad);
    }
}

/// HMAC-SHA-256 in counter mode.
fn prf(key: &[u8], label: &[u8], context: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut output = Zeroizing::new(Vec::with_capacity(length.next_multiple_of(32)));
    for counter in 0_u16.. {
        if output.len() >= length {
            break;
        }
        // HMAC takes keys of any length.
        let Ok(mut hmac) = SimpleHmac::<Sha256>::new_from_slice(key) else { break };
        [&counter.to_be_bytes(), label, context].iter().for_each(|part| hmac.update(part));
        output.extend_from_slice(&hmac.finalize().into_bytes());
    }
    output.truncate(length);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encryption_block(message: &[u8]) -> Vec<u8> {
        let mut block = vec![0, 2];
        block.resize(128 - message.len() - 1, 0x5a);
        block.push(0);
        block.extend_from_slice(message);
        block
    }

    #[test]
    fn a_message_comes_out_of_its_padding_and_damage_is_noticed() {
        for message in [&b""[..], b"x", &[7; 117]] {
            let block = encryption_block(message);
            assert_eq!(pkcs1_message(&block).unwrap().as_slice(), message);
            assert_eq!(pkcs1_message_or_another(&block, b"secret", b"c").as_slice(), message);
        }
        let good = encryption_block(b"x");
        let wrong_marks = [(0, 1), (1, 1), (9, 0)];
        for (place, value) in wrong_marks {
            let mut block = good.clone();
            block[place] = value;
            assert!(matches!(pkcs1_message(&block), Err(Error::EncryptedDataInvalid)), "{place}");
        }
        assert!(pkcs1_message(&[[0, 2].as_slice(), &[1; 126]].concat()).is_err());
    }

    #[test]
    fn a_wrong_block_gives_a_message_that_only_the_ciphertext_decides() {
        let other = |block: &[u8], ciphertext: &[u8]| pkcs1_message_or_another(block, b"secret", ciphertext).to_vec();
        assert_eq!(other(&[1; 128], b"one"), other(&[9; 128], b"one"));
        assert_ne!(other(&[1; 128], b"one"), other(&[1; 128], b"two"));
        let lengths: Vec<_> = (0..64_u8).map(|number| other(&[1; 128], &[number]).len()).collect();
        assert!(lengths.iter().all(|length| *length <= 117));
        assert!(lengths.iter().any(|length| *length != lengths[0]));
    }

    #[test]
    fn a_premaster_secret_of_another_version_length_or_padding_gives_another() {
        let (mut secret, other) = ([7; PREMASTER], [1; PREMASTER]);
        (secret[0], secret[1]) = (3, 3);
        let unpadded = |block: &[u8], negotiated| tls_premaster_or_another(block, 0x0303, negotiated, &other).unwrap();
        let good = encryption_block(&secret);
        assert_eq!(unpadded(&good, None).as_slice(), secret);
        assert_eq!(tls_premaster_or_another(&good, 0x0302, None, &other).unwrap().as_slice(), other);
        assert_eq!(tls_premaster_or_another(&good, 0x0302, Some(0x0303), &other).unwrap().as_slice(), secret);
        assert_eq!(unpadded(&encryption_block(&secret[1..]), None).as_slice(), other);
        for place in [0, 1, 9, 128 - PREMASTER - 1] {
            let mut block = good.clone();
            block[place] = if block[place] == 0x5a { 0 } else { 3 };
            assert_eq!(unpadded(&block, None).as_slice(), other, "{place}");
        }
        assert!(tls_premaster_or_another(&good[70..], 0x0303, None, &other).is_err());
    }

    #[test]
    fn signature_padding_comes_off_again() {
        let block = pkcs1_signature_block(b"data", 64).unwrap();
        assert_eq!((block.len(), pkcs1_signature_data(&block).unwrap()), (64, &b"data"[..]));
        assert!(pkcs1_signature_block(&[0; 54], 64).is_err());
        assert!(pkcs1_signature_block(&[0; 53], 64).is_ok());
        assert!(pkcs1_signature_data(&block[1..]).is_err());
        assert!(pkcs1_signature_data(&[0, 1, 0xff, 0, 5]).is_err());
    }

    #[test]
    fn a_pss_block_is_one_of_its_digest_salt_length_and_hash_only() {
        let (hash, digest) = (HashAlgorithm::Sha256, [7; 32]);
        for (salt, bits) in [(&[][..], 1024), (&[9; 32], 1024), (&[9; 20], 1025), (&[9; 20], 1031), (&[9; 94], 1024)] {
            let block = pss_block(hash, &digest, salt, bits).unwrap();
            let length_in = |block: &[u8]| pss_salt_length(block, hash, &digest, bits);
            assert_eq!((block.len(), length_in(&block)), (bits.div_ceil(8), Some(salt.len())), "{bits}");
            assert_eq!(length_in(&block[1..]), None);
            assert_eq!(pss_salt_length(&block, hash, &[8; 32], bits), None);
            assert_eq!(pss_salt_length(&block, HashAlgorithm::Sha384, &[7; 48], bits), None);
            for place in 0..block.len() {
                let mut changed = block.clone();
                changed[place] ^= 0x80;
                assert_eq!(length_in(&changed), None, "{place} of {bits}");
            }
        }
        assert!(pss_block(hash, &digest, &[9; 95], 1024).is_err());
        assert_eq!(pss_salt_length(&[0xbc; 16], hash, &digest, 128), None);
    }

    #[test]
    fn a_truncated_or_changed_oaep_block_is_refused() {
        let (hash, mgf) = (HashAlgorithm::Sha256, HashAlgorithm::Sha1);
        for message in [&b""[..], b"message", &[1; 62]] {
            let block = oaep_block(message, hash, mgf, b"label", &[9; 32], 128).unwrap();
            assert_eq!(oaep_message(&block, hash, mgf, b"label").unwrap().as_slice(), message);
            assert!(oaep_message(&block, hash, mgf, b"other").is_err());
            assert!(oaep_message(&block, hash, hash, b"label").is_err());
            for place in [0, 1, 40, 127] {
                let mut changed = block.clone();
                changed[place] ^= 1;
                assert!(oaep_message(&changed, hash, mgf, b"label").is_err());
            }
        }
        assert!(oaep_block(&[1; 63], hash, mgf, b"", &[9; 32], 128).is_err());
        assert!(oaep_message(&[0; 66], HashAlgorithm::Sha256, HashAlgorithm::Sha256, b"").is_err());
        assert!(oaep_message(&[0; 65], HashAlgorithm::Sha256, HashAlgorithm::Sha256, b"").is_err());
        assert!(oaep_message(&[], HashAlgorithm::Sha256, HashAlgorithm::Sha256, b"").is_err());
    }
}
