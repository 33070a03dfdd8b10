//! Parameters of a StorageClass. Pure.

use std::collections::HashMap;
use tonic::Status;
use weft_crds::attachment::InitiatorChoice;

/// Key of the attach choice in parameters, volume context and, with the group, annotations.
pub const ATTACH: &str = "attach";
/// What the provisioner adds by itself: names of the claim and the PersistentVolume.
const RESERVED: &str = "csi.storage.k8s.io/";

/// What a StorageClass says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// The pool to take space from.
    pub pool: String,
    /// How many drives hold each byte.
    pub replicas: i32,
    /// Which initiator nodes are to use.
    pub attach: InitiatorChoice,
}

impl Parameters {
    /// Reads them; a key that nobody knows is refused, since a typing error would else be
    /// a setting that is silently left out.
    pub fn parse(given: &HashMap<String, String>) -> Result<Self, Status> {
        let refuse = |text: String| Err(Status::invalid_argument(text));
        let mut pool = None;
        let mut replicas = 1;
        let mut attach = InitiatorChoice::Auto;
        for (key, value) in given {
            match key.as_str() {
                "pool" => pool = Some(value.clone()),
                "replicas" => match value.parse() {
                    Ok(number @ 1..=3) => replicas = number,
                    _ => {
                        return refuse(format!(
                            "parameter replicas is {value:?}: it must be 1, 2 or 3"
                        ));
                    }
                },
                ATTACH => match parse_attach(value) {
                    Some(choice) => attach = choice,
                    None => {
                        return refuse(format!(
                            "parameter attach is {value:?}: use Auto, Kernel or UserSpace"
                        ));
                    }
                },
                other if other.starts_with(RESERVED) => {}
                other => {
                    return refuse(format!(
                        "parameter {other:?} is not known: pool, replicas and attach are"
                    ));
                }
            }
        }
        match pool.filter(|pool| !pool.is_empty()) {
            Some(pool) => Ok(Self { pool, replicas, attach }),
            None => refuse("parameter pool is missing: name a Pool (kubectl get pools.weft.storage) in the StorageClass".to_owned()),
        }
    }
}

/// From a word; the same words that the Attachment uses.
pub fn parse_attach(word: &str) -> Option<InitiatorChoice> {
    match word {
        "Auto" => Some(InitiatorChoice::Auto),
        "Kernel" => Some(InitiatorChoice::Kernel),
        "UserSpace" => Some(InitiatorChoice::UserSpace),
        _ => None,
    }
}

/// As a word.
pub fn attach_word(choice: InitiatorChoice) -> &'static str {
    match choice {
        InitiatorChoice::Auto => "Auto",
        InitiatorChoice::Kernel => "Kernel",
        InitiatorChoice::UserSpace => "UserSpace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Parameters, Status> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        Parameters::parse(&pairs.iter().map(own).collect())
    }

    #[test]
    fn parameters_have_defaults_except_the_pool() {
        let all = parse(&[("pool", "fast"), ("replicas", "2"), ("attach", "Kernel")]).unwrap();
        let expected = Parameters {
            pool: "fast".into(),
            replicas: 2,
            attach: InitiatorChoice::Kernel,
        };
        assert_eq!(all, expected);
        let few = parse(&[("pool", "fast"), ("csi.storage.k8s.io/pvc/name", "x")]).unwrap();
        assert_eq!((few.replicas, few.attach), (1, InitiatorChoice::Auto));
    }

    #[test]
    fn a_mistake_is_told_by_its_name() {
        let table: [(&[(&str, &str)], &str); 7] = [
            (&[], "pool is missing"),
            (&[("pool", "")], "pool is missing"),
            (
                &[("pool", "a"), ("replica", "2")],
                "\"replica\" is not known",
            ),
            (&[("pool", "a"), ("replicas", "0")], "replicas"),
            (&[("pool", "a"), ("replicas", "4")], "1, 2 or 3"),
            (&[("pool", "a"), ("replicas", "two")], "replicas"),
            (
                &[("pool", "a"), ("attach", "kernel")],
                "Auto, Kernel or UserSpace",
            ),
        ];
        for (pairs, part) in table {
            let error = parse(pairs).unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument);
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn attach_words_go_both_ways() {
        for word in ["Auto", "Kernel", "UserSpace"] {
            assert_eq!(parse_attach(word).map(attach_word), Some(word));
        }
    }
}
