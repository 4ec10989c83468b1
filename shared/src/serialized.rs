//! What tpm2-tools write of an object: libtss2's serialised handle (`-o` of tpm2_evictcontrol), and saved contexts
//! (`-c` of tpm2_load and others).

use crate::error::{Error, Result};

/// An object that a file of tpm2-tools stands for.
pub(crate) enum Serialized {
    /// A persistent object, with its marshalled `TPM2B_PUBLIC`.
    Handle(u32, Vec<u8>),
    /// A saved transient object: a marshalled `TPMS_CONTEXT`, with the `TPM2B_PUBLIC`.
    Context(Vec<u8>, Vec<u8>),
}

/// What a saved context's file begins with (tpm2-tools, lib/files.c).
const CONTEXT_MAGIC: u32 = 0xbadc_c0de;
const CONTEXT_VERSION: u32 = 1;
/// The type of a resource that is a key (tss2-esys, esys_types.h).
const KEY_RESOURCE: u32 = 1;

impl Serialized {
    pub(crate) fn parse(file: &[u8]) -> Result<Self> {
        let mut reader = Reader(file);
        match reader.u32()? {
            CONTEXT_MAGIC => Self::context(&mut reader),
            handle if handle >> 24 == 0x81 => Ok(Self::Handle(handle, reader.resource()?)),
            _ => Err(wrong("it is neither a persistent handle nor a saved context")),
        }
    }

    fn context(reader: &mut Reader<'_>) -> Result<Self> {
        if reader.u32()? != CONTEXT_VERSION {
            return Err(wrong("a saved context of a version unknown"));
        }
        let hierarchy = reader.take(4)?;
        let handle = reader.take(4)?;
        let sequence = reader.take(8)?;
        // libtss2 puts the TPM's blob and what it knows of the object itself into one.
        let mut blob = Reader(reader.sized()?);
        blob.take(4)?;
        let context = blob.sized()?;
        // The size of what follows, which libtss2 leaves at zero, and the handle it had.
        blob.take(2 + 4)?;
        let size = (context.len() as u16).to_be_bytes();
        Ok(Self::Context([sequence, handle, hierarchy, &size, context].concat(), blob.resource()?))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length).ok_or_else(|| wrong("it ends too early"))?;
        self.0 = tail;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn sized(&mut self) -> Result<&'a [u8]> {
        let size = self.take(2)?;
        self.take(u16::from_be_bytes([size[0], size[1]]).into())
    }

    /// The rest of an `IESYS_RESOURCE` after its handle: the public area of a key.
    fn resource(&mut self) -> Result<Vec<u8>> {
        let _name = self.sized()?;
        if self.u32()? != KEY_RESOURCE {
            return Err(wrong("it is not a key"));
        }
        let area = self.sized()?;
        Ok([&(area.len() as u16).to_be_bytes(), area].concat())
    }
}

fn wrong(reason: &str) -> Error {
    Error::malformed("object of tpm2-tools", reason)
}
