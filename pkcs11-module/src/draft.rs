//! An object that a template is being written to, before there is one.

use cryptoki_sys::*;
use keyrivet_core::algorithm::Curve;
use keyrivet_core::import::PrivateKey;
use keyrivet_core::object::Attributes;
use keyrivet_core::policy::{PcrPolicy, PcrSelection};
use keyrivet_core::public_key::PublicKey;
use zeroize::Zeroizing;

use crate::asn1::{self, CertificateFields};
use crate::attribute::{self, Kinds, Uses};
use crate::error::{Error, Result};
use crate::mechanism::LONGEST_SECRET;
use crate::template::{Template, number, text};

/// What a template says of an object of one kind.
pub(crate) struct Draft {
    pub(crate) of: Kinds,
    pub(crate) attributes: Attributes,
    pub(crate) token_object: bool,
    pub(crate) modulus_bits: Option<CK_ULONG>,
    pub(crate) curve: Option<Curve>,
    /// `CKA_VALUE_LEN`.
    pub(crate) value_length: Option<usize>,
    /// `CKA_VALUE`, or the private exponent of an RSA key.
    pub(crate) value: Option<Zeroizing<Vec<u8>>>,
    prime: Option<Zeroizing<Vec<u8>>>,
    modulus: Option<Vec<u8>>,
    exponent: Option<Vec<u8>>,
    point: Option<Vec<u8>>,
    /// [`attribute::CKA_KEYRIVET_PERSISTENT`].
    pub(crate) persistent: bool,
    pcrs: Option<PcrSelection>,
    policy: Option<Vec<u8>>,
}

const INVALID: Error = Error(CKR_ATTRIBUTE_VALUE_INVALID);

impl Draft {
    /// One that starts with these attributes.
    pub(crate) fn new(of: Kinds, attributes: Attributes) -> Self {
        Self {
            of,
            attributes,
            token_object: false,
            modulus_bits: None,
            curve: None,
            value_length: None,
            value: None,
            prime: None,
            modulus: None,
            exponent: None,
            point: None,
            persistent: false,
            pcrs: None,
            policy: None,
        }
    }

    /// Writes a whole template for a new object, and checks that nothing is missing in it.
    pub(crate) fn write(&mut self, template: &Template<'_>, uses: Uses) -> Result<()> {
        for (kind, value) in template.iter() {
            attribute::write(self, kind, value, uses)?;
        }
        // libp11 asks each new pair to wrap. No mechanism here does so with EC keys, so these say that they do not.
        if self.of & (attribute::PUBLIC_EC | attribute::PRIVATE_EC) != 0 {
            self.attributes.unwrap = false;
        }
        match attribute::needed(self.of, uses).find(|kind| template.get(*kind).is_none()) {
            None => Ok(()),
            Some(missing) => {
                let incomplete = Error(CKR_TEMPLATE_INCOMPLETE);
                attribute::tell(missing, incomplete);
                Err(incomplete)
            }
        }
    }

    /// `CKA_VALUE`.
    pub(crate) fn set_value(&mut self, value: &[u8]) -> Result<()> {
        let fits = match self.of {
            attribute::CERTIFICATE => CertificateFields::read(value).is_ok(),
            attribute::SECRET => (1..=LONGEST_SECRET).contains(&value.len()),
            _ => true,
        };
        self.value = Some(Zeroizing::new(value.to_vec()));
        if fits { Ok(()) } else { Err(INVALID) }
    }

    /// `CKA_VALUE_LEN`.
    pub(crate) fn set_value_length(&mut self, value: &[u8]) -> Result<()> {
        let length = usize::try_from(number(value)?).ok().filter(|length| (1..=LONGEST_SECRET).contains(length));
        self.value_length = Some(length.ok_or(INVALID)?);
        Ok(())
    }

    /// `CKA_PRIME_1`.
    pub(crate) fn set_prime(&mut self, value: &[u8]) -> Result<()> {
        self.prime = Some(Zeroizing::new(value.to_vec()));
        Ok(())
    }

    /// `CKA_MODULUS`.
    pub(crate) fn set_modulus(&mut self, value: &[u8]) -> Result<()> {
        self.modulus = Some(value.to_vec());
        Ok(())
    }

    /// `CKA_PUBLIC_EXPONENT`.
    pub(crate) fn set_exponent(&mut self, value: &[u8]) -> Result<()> {
        self.exponent = Some(value.to_vec());
        Ok(())
    }

    /// `CKA_EC_PARAMS`.
    pub(crate) fn set_curve(&mut self, value: &[u8]) -> Result<()> {
        let known = Curve::all().find(|curve| attribute::curve_parameters(*curve).is_ok_and(|oid| oid == value));
        self.curve = Some(known.ok_or(Error(CKR_CURVE_NOT_SUPPORTED))?);
        Ok(())
    }

    /// `CKA_EC_POINT`: an OCTET STRING; without its header, as some give it, a point is understood too.
    pub(crate) fn set_point(&mut self, value: &[u8]) -> Result<()> {
        // A point is 04 and two coordinates of the curve, the header of an OCTET STRING 04 and its length: only the length tells
        // which it is, whatever x begins with.
        let bare = Curve::all().any(|curve| value.len() == 1 + 2 * curve.coordinate_length());
        let content = if bare { value } else { asn1::octet_string_content(value).unwrap_or(value) };
        self.point = Some(content.to_vec());
        Ok(())
    }

    /// [`attribute::CKA_KEYRIVET_PCRS`].
    pub(crate) fn set_pcrs(&mut self, value: &[u8]) -> Result<()> {
        self.pcrs = Some(text(value)?.parse().map_err(|_| INVALID)?);
        Ok(())
    }

    /// [`attribute::CKA_KEYRIVET_POLICY`].
    pub(crate) fn set_policy(&mut self, value: &[u8]) -> Result<()> {
        self.policy = Some(value.to_vec());
        if value.len() == 32 { Ok(()) } else { Err(INVALID) }
    }

    /// The exponent that was asked for, if any was.
    pub(crate) fn exponent(&self) -> Option<&[u8]> {
        self.exponent.as_deref()
    }

    /// The policy that was asked for. A digest without PCRs could never be satisfied: nobody would know how.
    pub(crate) fn policy(&self) -> Result<Option<PcrPolicy>> {
        match (&self.pcrs, &self.policy) {
            (Some(pcrs), digest) => Ok(Some(PcrPolicy { pcrs: pcrs.clone(), digest: digest.clone() })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(Error(CKR_TEMPLATE_INCOMPLETE)),
        }
    }

    /// The public key that a template describes.
    pub(crate) fn public_key(&self) -> Result<PublicKey> {
        let incomplete = Error(CKR_TEMPLATE_INCOMPLETE);
        if self.of == attribute::PUBLIC_RSA {
            let (modulus, exponent) = self.modulus.as_ref().zip(self.exponent.as_ref()).ok_or(incomplete)?;
            return Ok(PublicKey::rsa(modulus, exponent)?);
        }
        let (curve, point) = self.curve.zip(self.point.as_ref()).ok_or(incomplete)?;
        Ok(PublicKey::ec(curve, point)?)
    }

    /// The private key that a template describes, in the clear.
    pub(crate) fn private_key(&self) -> Result<PrivateKey> {
        let incomplete = Error(CKR_TEMPLATE_INCOMPLETE);
        let secret = self.value.as_ref().ok_or(incomplete)?;
        // What no TPM takes is a value that it does not take.
        let refused = |error| match error {
            keyrivet_core::Error::Unsupported(_) => INVALID,
            other => Error::from(other),
        };
        if self.of == attribute::PRIVATE_EC {
            let key = PrivateKey::ec(self.curve.ok_or(incomplete)?, secret)?;
            let PublicKey::Ec { point, .. } = key.public_key() else { return Err(INVALID) };
            let same = self.point.as_ref().is_none_or(|given| given == point);
            return if same { Ok(key) } else { Err(Error(CKR_TEMPLATE_INCONSISTENT)) };
        }
        let (modulus, exponent) = self.modulus.as_ref().zip(self.exponent.as_ref()).ok_or(incomplete)?;
        match &self.prime {
            Some(prime) => PrivateKey::rsa(modulus, exponent, prime),
            None => PrivateKey::rsa_from_exponents(modulus, exponent, secret),
        }
        .map_err(refused)
    }
}
