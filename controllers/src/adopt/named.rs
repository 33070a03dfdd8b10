//! A name that a person gives to a volume: `<uid>=<name>`.

use std::str::FromStr;
use weft_spec::ids::VolumeUid;

/// A volume and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Which volume.
    pub uid: VolumeUid,
    /// What its object is to be called.
    pub name: String,
}

/// Why a text names no volume.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} names no volume: give its uid and a name, such as 5b0f7c1e-96a4-4f0b-a1ef-0d3f0a6b3c11=db-0"
)]
pub struct NamedError(String);

impl FromStr for Named {
    type Err = NamedError;

    fn from_str(text: &str) -> Result<Self, NamedError> {
        let parts = text.split_once('=').filter(|(_, name)| !name.is_empty());
        let parts = parts.and_then(|(uid, name)| Some((uid.parse().ok()?, name)));
        let (uid, name) = parts.ok_or_else(|| NamedError(text.to_owned()))?;
        let name = name.to_owned();
        Ok(Self { uid, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_named_by_its_uid() {
        let uid = "5b0f7c1e-96a4-4f0b-a1ef-0d3f0a6b3c11";
        let named: Named = format!("{uid}=db-0").parse().unwrap();
        assert_eq!(
            (named.uid.to_string().as_str(), &named.name[..]),
            (uid, "db-0")
        );
        for wrong in ["db-0", "db-0=x", &format!("{uid}=")] {
            let error = wrong.parse::<Named>().unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("=db-0"), "{error}");
        }
    }
}
