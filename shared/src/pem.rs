//! PEM blocks as all kinds of tools write them (RFC 7468).

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// What every line of base64 has where `der` reads it.
const WIDTH: usize = 64;

/// The label and the bytes of a block, given from its BEGIN line on; what comes after its END line is not looked at. Lines
/// may be of any length: "Parsers MAY handle other line sizes" (RFC 7468, 2). A URI in it may have a PIN: what is
/// copied of it here is wiped.
pub fn decode(block: &str) -> Result<(String, Vec<u8>)> {
    let malformed = |reason: &dyn std::fmt::Display| Error::malformed("PEM block", reason);
    let lines: Vec<_> = block.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().position(|line| line.starts_with("-----END ")).unwrap_or_default();
    let Some([begin, body @ .., end]) = lines.get(..=last) else { return Err(malformed(&"it has no end")) };
    let body = Zeroizing::new(body.concat());
    if !body.is_ascii() {
        return Err(malformed(&"it is not base64"));
    }
    // Of ASCII, so it can be cut anywhere.
    let lines = (0..body.len()).step_by(WIDTH).map(|at| &body[at..body.len().min(at + WIDTH)]);
    let text = [*begin].into_iter().chain(lines).chain([*end, ""]);
    let text = Zeroizing::new(text.collect::<Vec<_>>().join("\n"));
    let (label, content) = der::pem::decode_vec(text.as_bytes()).map_err(|error| malformed(&error))?;
    Ok((label.to_owned(), content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_have_any_length() {
        let content: Vec<u8> = (0..=255).collect();
        let whole = der::pem::encode_string("X", der::pem::LineEnding::LF, &content).unwrap();
        let body: String = whole.lines().filter(|line| !line.starts_with('-')).collect();
        for width in [1, 60, 64, 76, 1000] {
            let lines = body.as_bytes().chunks(width).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\r\n");
            let block = format!("-----BEGIN X-----\r\n{lines} \n\n-----END X-----\n");
            assert_eq!(decode(&block).unwrap(), ("X".into(), content.clone()), "{width}");
        }
        for wrong in [
            "",
            "-----BEGIN X-----",
            "-----BEGIN X-----\n*\n-----END X-----",
            "-----BEGIN X-----\nAA=\u{e9}\n-----END X-----",
        ] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
        assert!(decode("-----BEGIN X-----\nAAAA\n-----END Y-----").is_err());
    }
}
