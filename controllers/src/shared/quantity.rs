//! Quantities as bytes and back.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 6] = ["k", "M", "G", "T", "P", "E"];

/// Bytes that a quantity stands for; `None` when it is no whole, non-negative number that fits.
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+')));
    let (number, suffix) = text.split_at(digits.unwrap_or(text.len()));
    scaled(number, factor(suffix)?)
}

/// Bytes as a quantity, in the form that API servers write.
pub fn quantity(bytes: u64) -> Quantity {
    for (power, suffix) in BINARY.iter().enumerate().rev() {
        let unit = 1u64 << (10 * (power + 1));
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return Quantity(format!("{}{suffix}", bytes / unit));
        }
    }
    Quantity(bytes.to_string())
}

/// Bytes rounded down to whole MiB: for what is told to people.
pub fn rounded(bytes: u64) -> Quantity {
    quantity(bytes & !((1 << 20) - 1))
}

/// Bytes for a sentence: one decimal at most, in the largest unit that fits.
pub fn human(bytes: u64) -> String {
    for (power, suffix) in BINARY.iter().enumerate().rev() {
        let unit = 1u64 << (10 * (power + 1));
        if bytes >= unit {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return match tenths % 10 {
                0 => format!("{}{suffix}", tenths / 10),
                tenth => format!("{}.{tenth}{suffix}", tenths / 10),
            };
        }
    }
    format!("{bytes} bytes")
}

fn factor(suffix: &str) -> Option<u128> {
    if suffix.is_empty() {
        return Some(1);
    }
    let power = |units: &[&str]| {
        units
            .iter()
            .position(|unit| *unit == suffix)
            .map(|at| at as u32 + 1)
    };
    if let Some(power) = power(&BINARY) {
        return Some(1024u128.pow(power));
    }
    if let Some(power) = power(&DECIMAL) {
        return Some(1000u128.pow(power));
    }
    let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    10u128.checked_pow(exponent)
}

fn scaled(number: &str, factor: u128) -> Option<u64> {
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(factor)?;
    (product.is_multiple_of(divisor)).then(|| u64::try_from(product / divisor).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, wanted) in [
            ("20Gi", Some(20 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("1G", Some(1_000_000_000)),
            ("1e3", Some(1000)),
            ("4096", Some(4096)),
            ("0", Some(0)),
            ("-1", None),
            ("500m", None),
            ("", None),
            ("Gi", None),
            ("99999999999Ei", None),
            ("1.0.0", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), wanted, "{text}");
        }
    }

    #[test]
    fn bytes_are_written_canonically_and_read_well() {
        assert_eq!(quantity(1 << 30).0, "1Gi");
        assert_eq!(quantity(1536 << 20).0, "1536Mi");
        assert_eq!(quantity(1000).0, "1000");
        assert_eq!(rounded((936 << 20) + 5).0, "936Mi");
        assert_eq!(rounded(5).0, "0");
        assert_eq!(human(1536 << 20), "1.5Gi");
        assert_eq!(human(1 << 30), "1Gi");
        assert_eq!(human(12), "12 bytes");
    }
}
