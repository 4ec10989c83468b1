//! DER written by hand, for files that other programs would write.

/// A field of this type (X.690, 8.1).
pub fn der_field(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).expect("a field for a test is short").to_be_bytes();
    let length = match (high, low) {
        (0, 0..128) => vec![low],
        (0, _) => vec![0x81, low],
        _ => vec![0x82, high, low],
    };
    [&[kind][..], &length, content].concat()
}
