//! Fixed-size text fields.

/// ASCII padded with spaces (Base section 1.8), cut to fit.
pub(crate) fn space_padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    field
}

/// UTF-8 ended by NUL (Base section 4.5, names), cut so that a NUL remains.
pub(crate) fn nul_padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *to = from;
    }
    field
}

/// Reads a NUL-ended field; `None` without a NUL or if it is not UTF-8.
pub(crate) fn read_nul_padded(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(field.get(..end)?).ok()
}

/// Reads a space-padded field of ASCII; NULs count as padding, since some write them.
pub(crate) fn read_space_padded(field: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(field).ok()?;
    Some(text.trim_end_matches([' ', '\0']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_full_length_keeps_its_nul() {
        let field: [u8; 4] = nul_padded("abcdef");
        assert_eq!(read_nul_padded(&field), Some("abc"));
        assert_eq!(read_nul_padded(b"abcd"), None);
        assert_eq!(space_padded::<4>("ab"), *b"ab  ");
        assert_eq!(read_space_padded(b"ab  "), Some("ab"));
    }
}
