//! Printing the CRDs, and the check at start that they are there.

use anyhow::{Context as _, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, ResourceExt};
use std::path::Path;

/// Prints all CRDs, or writes one file a kind into a directory.
pub fn print(into: Option<&Path>) -> anyhow::Result<()> {
    for crd in weft_crds::all() {
        let text = serde_yaml::to_string(&crd).context("a CRD cannot be written as YAML")?;
        match into {
            None => print!("---\n{text}"),
            Some(directory) => {
                let kind = crd.spec.names.kind.to_lowercase();
                let file = directory.join(format!("{kind}.yaml"));
                std::fs::write(&file, text)
                    .with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
    }
    Ok(())
}

/// Fails with the command to run when a CRD is missing.
pub async fn check(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in weft_crds::all() {
        let name = crd.name_any();
        let found = api.get_opt(&name).await.with_context(|| format!("cannot read CRD {name}; is the API server reachable, and may this identity read CRDs?"))?;
        if found.is_none() {
            bail!(
                "CRD {name} is missing; run: weft-operator crds | kubectl apply --server-side -f -"
            );
        }
    }
    Ok(())
}
