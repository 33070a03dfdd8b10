//! A pod's Secret: the one document under [`KEY`], and what can be read back from it.

use super::context::Context;
use super::errors::Error;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use weft_control::tls::Identity;
use weft_spec::control::ControlLink;

/// Key of the document in the Secret, and its file name in the pod.
pub const KEY: &str = "document.json";
/// Where the Secret is mounted in the pod.
pub const MOUNT: &str = "/etc/weft";

/// What a Secret is called and belongs to.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Name, that of the pod.
    pub name: String,
    /// The pod's.
    pub namespace: String,
    /// See [`super::labels::labels`].
    pub labels: BTreeMap<String, String>,
    /// See [`super::labels::owner_annotation`].
    pub annotations: BTreeMap<String, String>,
    /// Controller of the pod and the Secret, if any.
    pub owner: Option<OwnerReference>,
}

impl Place {
    /// Metadata of what stands at this place.
    pub fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels.clone()),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }
}

/// The Secret with the document, and with `more` keys beside it.
pub fn secret<D: Serialize>(
    place: &Place,
    document: &D,
    more: &[(&str, &str)],
) -> Result<Secret, Error> {
    let json = serde_json::to_vec(document).map_err(|error| Error::Unusable {
        object: format!("document for {}", place.name),
        problem: format!("cannot be written as JSON: {error}"),
    })?;
    let mut data = BTreeMap::from([(KEY.to_owned(), ByteString(json))]);
    data.extend(
        more.iter()
            .map(|(key, text)| ((*key).to_owned(), ByteString((*text).into()))),
    );
    Ok(Secret {
        metadata: place.metadata(),
        data: Some(data),
        ..Secret::default()
    })
}

/// The document in a Secret; `None` when there is none or it cannot be read.
pub fn read<D: DeserializeOwned>(secret: &Secret) -> Option<D> {
    serde_json::from_slice(&secret.data.as_ref()?.get(KEY)?.0).ok()
}

/// The control link for a pod that shows `identity`.
pub fn control_link(context: &Context, identity: &Identity) -> ControlLink {
    ControlLink {
        port: context.fabric.ports.control,
        certificate: identity.certificate.clone(),
        key: identity.key.clone(),
        operator_certificate: context.keys.operator.certificate.clone(),
        operator: context.settings.push_address.clone(),
    }
}

/// The identity that a document gives its pod.
pub fn identity(link: &ControlLink) -> Identity {
    Identity {
        certificate: link.certificate.clone(),
        key: link.key.clone(),
    }
}
