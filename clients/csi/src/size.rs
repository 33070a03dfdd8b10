//! Sizes: from a CSI capacity range and from and to Kubernetes quantities. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use tonic::Status;
use weft_csi_proto::CapacityRange;

const MIB: u64 = 1 << 20;
/// What a volume gets when nobody says how much.
const DEFAULT: u64 = 1 << 30;

/// Bytes of a new volume: what is required, rounded up to whole MiB, within the limit.
pub fn choose(range: Option<&CapacityRange>) -> Result<u64, Status> {
    let (required, limit) = bounds(range)?;
    let wanted = match (required, limit) {
        (0, 0) => DEFAULT,
        (0, limit) => DEFAULT.min(limit / MIB * MIB),
        (required, _) => required.checked_next_multiple_of(MIB).unwrap_or(u64::MAX),
    };
    if wanted == 0 || i64::try_from(wanted).is_err() || (limit != 0 && wanted > limit) {
        return Err(Status::out_of_range(format!(
            "no size between {required} and {limit} bytes can be had: sizes are whole MiB, from 1 MiB"
        )));
    }
    Ok(wanted)
}

/// Bytes that an expansion has to lead to, in whole MiB.
pub fn required(range: Option<&CapacityRange>) -> Result<u64, Status> {
    let (required, _) = bounds(range)?;
    if required == 0 {
        return Err(Status::invalid_argument(
            "required_bytes of capacity_range is missing: say how large the volume is to be",
        ));
    }
    required
        .checked_next_multiple_of(MIB)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| Status::out_of_range(format!("no volume can have {required} bytes")))
}

/// Bytes that a volume of `present` bytes is to have after an expansion: it never shrinks.
pub fn expanded(range: Option<&CapacityRange>, present: u64) -> Result<u64, Status> {
    let wanted = required(range)?.max(present);
    let (_, limit) = bounds(range)?;
    if limit != 0 && wanted > limit {
        return Err(Status::out_of_range(format!(
            "limit_bytes {limit} cannot be kept: the volume has {present} bytes and never shrinks, and sizes \
             are whole MiB"
        )));
    }
    Ok(wanted)
}

/// Whether a volume of this size is what a range asks for.
pub fn fits(size: u64, range: Option<&CapacityRange>) -> Result<bool, Status> {
    let (required, limit) = bounds(range)?;
    let fits = match (required, limit) {
        (0, 0) => true,
        (0, limit) => size <= limit,
        // An exact match, so that a second call for the same name with less is told apart.
        (required, _) => Some(size) == required.checked_next_multiple_of(MIB),
    };
    Ok(fits)
}

fn bounds(range: Option<&CapacityRange>) -> Result<(u64, u64), Status> {
    let Some(range) = range else {
        return Ok((0, 0));
    };
    let refuse = |_| Status::invalid_argument("a size in capacity_range is negative");
    let required = u64::try_from(range.required_bytes).map_err(refuse)?;
    let limit = u64::try_from(range.limit_bytes).map_err(refuse)?;
    if limit != 0 && required > limit {
        return Err(Status::out_of_range(format!(
            "required_bytes {required} is more than limit_bytes {limit}"
        )));
    }
    Ok((required, limit))
}

/// Bytes as a quantity, in the largest unit that leaves no rest.
pub fn quantity(bytes: u64) -> Quantity {
    let units = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let whole = units
        .iter()
        .find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift));
    Quantity(match whole {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    })
}

/// The bytes of a quantity, if it is a whole number of them.
pub fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => exponent(unit)?,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: u64 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = u128::from(digits) * u128::from(factor);
    let rest = scaled % u128::from(scale);
    (rest == 0)
        .then_some(scaled / u128::from(scale))
        .and_then(|bytes| u64::try_from(bytes).ok())
}

fn exponent(unit: &str) -> Option<u64> {
    let power = unit.strip_prefix(['e', 'E'])?;
    10u64.checked_pow(power.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn range(required_bytes: i64, limit_bytes: i64) -> Option<CapacityRange> {
        Some(CapacityRange {
            required_bytes,
            limit_bytes,
        })
    }

    #[test]
    fn a_size_is_rounded_up_to_mebibytes_within_the_limit() {
        let mib = 1 << 20;
        let table: [(Option<CapacityRange>, Result<u64, Code>); 10] = [
            (None, Ok(DEFAULT)),
            (range(0, 0), Ok(DEFAULT)),
            (range(1, 0), Ok(MIB)),
            (range(mib, mib), Ok(MIB)),
            (range(mib + 1, 0), Ok(2 * MIB)),
            (range(mib + 1, mib + 2), Err(Code::OutOfRange)),
            (range(0, 5 * mib + 1), Ok(5 * MIB)),
            (range(0, 1), Err(Code::OutOfRange)),
            (range(2, 1), Err(Code::OutOfRange)),
            (range(-1, 0), Err(Code::InvalidArgument)),
        ];
        for (range, expected) in table {
            assert_eq!(
                choose(range.as_ref()).map_err(|s| s.code()),
                expected,
                "{range:?}"
            );
        }
        assert_eq!(
            choose(range(i64::MAX, 0).as_ref()).unwrap_err().code(),
            Code::OutOfRange
        );
    }

    #[test]
    fn an_expansion_leads_to_whole_mebibytes_and_never_back() {
        let mib = MIB as i64;
        let table: [(Option<CapacityRange>, Result<u64, Code>); 9] = [
            (range(5 * mib, 0), Ok(5 * MIB)),
            (range(4 * mib + 1, 0), Ok(5 * MIB)),
            (range(2 * mib, 0), Ok(3 * MIB)),
            (range(2 * mib, 3 * mib), Ok(3 * MIB)),
            (range(2 * mib, 2 * mib), Err(Code::OutOfRange)),
            (range(4 * mib + 1, 4 * mib + 2), Err(Code::OutOfRange)),
            (range(i64::MAX, 0), Err(Code::OutOfRange)),
            (range(0, 0), Err(Code::InvalidArgument)),
            (None, Err(Code::InvalidArgument)),
        ];
        for (range, expected) in table {
            let found = expanded(range.as_ref(), 3 * MIB).map_err(|s| s.code());
            assert_eq!(found, expected, "{range:?}");
        }
    }

    #[test]
    fn a_second_call_must_ask_for_the_same_size() {
        assert!(fits(2 * MIB, range(MIB as i64 + 1, 0).as_ref()).unwrap());
        assert!(!fits(2 * MIB, range(MIB as i64, 0).as_ref()).unwrap());
        assert!(fits(DEFAULT, None).unwrap());
        assert!(!fits(2 * MIB, range(0, MIB as i64).as_ref()).unwrap());
    }

    #[test]
    fn quantities_go_both_ways() {
        let table = [
            ("20Gi", Some(20 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("4096", Some(4096)),
            ("1e6", Some(1_000_000)),
            ("2M", Some(2_000_000)),
            ("0.3", None),
            ("100m", None),
            ("x", None),
            ("", None),
            ("99999999999999999999Pi", None),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(&Quantity(text.to_owned())), expected, "{text}");
        }
        for size in [1, 4096, 3 << 20, 20 << 30, 5 << 40] {
            assert_eq!(bytes(&quantity(size)), Some(size));
        }
        assert_eq!(quantity(20 << 30).0, "20Gi");
    }
}
