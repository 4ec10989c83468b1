//! Reads swtpm's log (level 20), which holds every byte that went to the TPM and came back.

/// A command and its response, as they were on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The command's bytes.
    pub command: Vec<u8>,
    /// The response's bytes; empty when none was sent.
    pub response: Vec<u8>,
}

impl Exchange {
    /// The command's name in TPM 2.0 Part 3, without the `TPM2_`.
    pub fn name(&self) -> String {
        let code = u32_at(&self.command, 6);
        match COMMANDS.iter().find(|(known, _)| *known == code) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("0x{code:03x}"),
        }
    }

    /// The response code; 0 is success.
    pub fn code(&self) -> u32 {
        u32_at(&self.response, 6)
    }
}

/// The code of a command by its name.
pub(crate) fn command_code(name: &str) -> u32 {
    let known = COMMANDS.iter().find(|(_, known)| *known == name);
    known.unwrap_or_else(|| panic!("no command is called {name}")).0
}

/// Every exchange in a log of swtpm, in their order.
pub fn exchanges(log: &str) -> Vec<Exchange> {
    let mut found: Vec<Exchange> = Vec::new();
    // What is being read, and how many bytes of it are still to come.
    let mut reading = None;
    for line in log.lines().map(str::trim) {
        if let Some((direction, length)) = header(line) {
            if direction == Direction::ToTpm {
                found.push(Exchange::default());
            }
            reading = Some((direction, length));
            continue;
        }
        let (Some((direction, missing)), Some(bytes), Some(last)) = (&mut reading, hex(line), found.last_mut()) else {
            continue;
        };
        let bytes = &bytes[..bytes.len().min(*missing)];
        *missing -= bytes.len();
        match direction {
            Direction::ToTpm => last.command.extend_from_slice(bytes),
            Direction::FromTpm => last.response.extend_from_slice(bytes),
            Direction::Control => {}
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToTpm,
    FromTpm,
    /// The control channel: power, locality; nothing that the TPM sees as a command.
    Control,
}

fn header(line: &str) -> Option<(Direction, usize)> {
    let (title, length) = line.split_once(": length ")?;
    let direction = match title {
        "SWTPM_IO_Read" => Direction::ToTpm,
        "SWTPM_IO_Write" => Direction::FromTpm,
        _ => Direction::Control,
    };
    Some((direction, length.parse().ok()?))
}

fn hex(line: &str) -> Option<Vec<u8>> {
    line.split(' ').map(|byte| if byte.len() == 2 { u8::from_str_radix(byte, 16).ok() } else { None }).collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..at + 4).unwrap_or_else(|| panic!("TPM traffic cut short: {bytes:02x?}"));
    u32::from_be_bytes([field[0], field[1], field[2], field[3]])
}

/// TPM 2.0 Part 2, 6.5.2: the commands that may come up here.
const COMMANDS: &[(u32, &str)] = &[
    (0x11f, "NV_UndefineSpaceSpecial"),
    (0x120, "EvictControl"),
    (0x121, "HierarchyControl"),
    (0x122, "NV_UndefineSpace"),
    (0x126, "Clear"),
    (0x127, "ClearControl"),
    (0x129, "HierarchyChangeAuth"),
    (0x12a, "NV_DefineSpace"),
    (0x12e, "CreatePolicyTicket"),
    (0x131, "CreatePrimary"),
    (0x137, "NV_Write"),
    (0x139, "DictionaryAttackLockReset"),
    (0x13a, "DictionaryAttackParameters"),
    (0x13d, "PCR_Reset"),
    (0x13e, "SequenceComplete"),
    (0x142, "IncrementalSelfTest"),
    (0x143, "SelfTest"),
    (0x144, "Startup"),
    (0x145, "Shutdown"),
    (0x146, "StirRandom"),
    (0x147, "ActivateCredential"),
    (0x148, "Certify"),
    (0x14a, "CertifyCreation"),
    (0x14e, "NV_Read"),
    (0x150, "ObjectChangeAuth"),
    (0x151, "PolicySecret"),
    (0x153, "Create"),
    (0x154, "ECDH_ZGen"),
    (0x155, "HMAC"),
    (0x156, "Import"),
    (0x157, "Load"),
    (0x158, "Quote"),
    (0x159, "RSA_Decrypt"),
    (0x15b, "HMAC_Start"),
    (0x15c, "SequenceUpdate"),
    (0x15d, "Sign"),
    (0x15e, "Unseal"),
    (0x161, "ContextLoad"),
    (0x162, "ContextSave"),
    (0x163, "ECDH_KeyGen"),
    (0x164, "EncryptDecrypt"),
    (0x165, "FlushContext"),
    (0x167, "LoadExternal"),
    (0x168, "MakeCredential"),
    (0x169, "NV_ReadPublic"),
    (0x16b, "PolicyAuthValue"),
    (0x16c, "PolicyCommandCode"),
    (0x173, "ReadPublic"),
    (0x174, "RSA_Encrypt"),
    (0x176, "StartAuthSession"),
    (0x177, "VerifySignature"),
    (0x178, "ECC_Parameters"),
    (0x17a, "GetCapability"),
    (0x17b, "GetRandom"),
    (0x17c, "GetTestResult"),
    (0x17d, "Hash"),
    (0x17e, "PCR_Read"),
    (0x17f, "PolicyPCR"),
    (0x180, "PolicyRestart"),
    (0x181, "ReadClock"),
    (0x182, "PCR_Extend"),
    (0x186, "HashSequenceStart"),
    (0x189, "PolicyGetDigest"),
    (0x18a, "TestParms"),
    (0x18c, "PolicyPassword"),
    (0x191, "CreateLoaded"),
    (0x193, "EncryptDecrypt2"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
Data client disconnected
 Ctrl Cmd: length 4
 00 00 00 01 
 Ctrl Rsp: length 4
 00 00 00 00 
 SWTPM_IO_Read: length 22
 80 01 00 00 00 16 00 00 01 7A 00 00 00 06 00 00 
 01 00 00 00 00 7F 
 SWTPM_IO_Write: length 10
 80 01 00 00 00 0A 00 00 01 01 
Data client disconnected
 SWTPM_IO_Read: length 12
 80 01 00 00 00 0C 00 00 01 7B 00 08 
";

    #[test]
    fn commands_and_responses_are_paired_and_the_control_channel_is_left_out() {
        let found = exchanges(LOG);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name().as_str(), found[0].code()), ("GetCapability", 0x101));
        assert_eq!(found[0].command.len(), 22);
        assert_eq!(found[1].name(), "GetRandom");
        assert!(found[1].response.is_empty());
    }

    #[test]
    fn the_table_is_in_the_order_of_its_codes_and_names_each_once() {
        assert!(COMMANDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
