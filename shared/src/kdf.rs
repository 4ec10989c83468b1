//! Key derivation from a shared secret: what becomes of `Z` after ECDH.

use zeroize::Zeroizing;

use crate::algorithm::HashAlgorithm;

/// ANSI X9.63 (SEC 1, 3.6.1): `length` bytes from `z`, with `shared_info` last.
pub fn x963(hash: HashAlgorithm, z: &[u8], shared_info: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    counted(hash, length, |counter| Zeroizing::new([z, &counter, shared_info].concat()))
}

/// The one-step derivation of SP 800-56A (5.8.2.1), with the counter first: `length` bytes from `z`.
pub fn concat(hash: HashAlgorithm, z: &[u8], other_info: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    counted(hash, length, |counter| Zeroizing::new([&counter, z, other_info].concat()))
}

fn counted(hash: HashAlgorithm, length: usize, input: impl Fn([u8; 4]) -> Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    let mut derived = Zeroizing::new(Vec::with_capacity(length.next_multiple_of(hash.digest_length())));
    let mut counter: u32 = 0;
    while derived.len() < length {
        counter += 1;
        derived.extend_from_slice(&Zeroizing::new(hash.digest(&input(counter.to_be_bytes()))));
    }
    derived.truncate(length);
    derived
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `openssl kdf -keylen 48 -kdfopt digest:SHA256 -kdfopt hexsecret:00..1f -kdfopt hexinfo:6162 X963KDF`
    /// and the same with `SSKDF`.
    #[test]
    fn both_derivations_are_those_of_openssl() {
        let z: Vec<u8> = (0..32).collect();
        let hex = |text| crate::hex::decode(text).unwrap();
        assert_eq!(
            *x963(HashAlgorithm::Sha256, &z, b"ab", 48),
            hex("7513568ced409d205c7c8c8fd274883ecd4f91ced68b35f27c8e89ad356647e9cecb3696ad5fcef3709a1afd50693859")
        );
        assert_eq!(
            *concat(HashAlgorithm::Sha256, &z, b"ab", 48),
            hex("e2676d96374e2952d59621c2350d87babbb849e97d8e725948a42f836922dff2c4d5f336f1c7d962859cb02ae1c71765")
        );
    }
}
