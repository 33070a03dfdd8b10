//! The operator's own secrets: made at the first start, kept in a Secret for ever. Without the
//! master key no drive would accept an engine that this operator starts.

use super::errors::{Doing, Error};
use super::labels::PART_OF;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::collections::BTreeMap;
use weft_control::tls::Identity;
use weft_spec::keys::Key;

/// Name of the Secret, in the drives' namespace.
pub const SECRET: &str = "weft-operator-keys";

/// The operator's own secrets.
#[derive(Clone)]
pub struct Keys {
    /// All drive and attach keys come from it.
    pub master: Key,
    /// How the operator shows itself to pods.
    pub operator: Identity,
}

impl Keys {
    /// Reads the Secret, or makes it when there is none.
    pub async fn load(client: &Client, namespace: &str) -> Result<Self, Error> {
        if let Some(keys) = Self::read_from(client, namespace).await? {
            return Ok(keys);
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let reading = || format!("read Secret {namespace}/{SECRET}");
        let keys = Self {
            master: Key::random(),
            operator: Identity::generate("weft-operator")
                .doing(|| "make the operator's certificate".to_owned())?,
        };
        match secrets.create(&PostParams::default(), &keys.secret()).await {
            Ok(_) => Ok(keys),
            // Another operator was faster: its keys are the cluster's.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                Self::read(&secrets.get(SECRET).await.doing(reading)?)
            }
            Err(error) => Err(error).doing(|| format!("create Secret {namespace}/{SECRET}")),
        }
    }

    /// Reads the Secret, if there is one.
    pub async fn read_from(client: &Client, namespace: &str) -> Result<Option<Self>, Error> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = secrets.get_opt(SECRET).await;
        let found = found.doing(|| format!("read Secret {namespace}/{SECRET}"))?;
        found.map(|secret| Self::read(&secret)).transpose()
    }

    fn secret(&self) -> Secret {
        let data = [
            ("master", self.master.to_hex()),
            ("tls.crt", self.operator.certificate.clone()),
            ("tls.key", self.operator.key.clone()),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                labels: Some(BTreeMap::from([(
                    PART_OF.0.to_owned(),
                    PART_OF.1.to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(
                data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes())))
                    .into(),
            ),
            ..Secret::default()
        }
    }

    fn read(secret: &Secret) -> Result<Self, Error> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()).ok_or_else(|| {
                Error::unusable(secret, format!("key {key} is missing or no text: restore the Secret from a backup; never delete it while drives exist"))
            })
        };
        let master = Key::from_hex(text("master")?.trim()).ok_or_else(|| {
            Error::unusable(
                secret,
                "key master is not 64 hexadecimal digits: restore the Secret from a backup",
            )
        })?;
        let operator = Identity {
            certificate: text("tls.crt")?,
            key: text("tls.key")?,
        };
        Ok(Self { master, operator })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_secret_and_a_damaged_one_is_named() {
        let keys = Keys {
            master: Key::random(),
            operator: Identity::generate("x").unwrap(),
        };
        let mut secret = keys.secret();
        let read = Keys::read(&secret).unwrap();
        assert!(read.master == keys.master && read.operator == keys.operator);
        secret.data.as_mut().unwrap().remove("tls.key");
        let Err(error) = Keys::read(&secret) else {
            panic!("read without a key")
        };
        assert!(error.to_string().contains("tls.key"), "{error}");
    }
}
