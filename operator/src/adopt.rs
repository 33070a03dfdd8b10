//! `weft-operator adopt`: builds Volumes and Slices again from the drives, and says what it found.
//! Runs beside the operator, which makes the drives' pods and then starts the engines.

use crate::args::{AdoptOptions, Options};
use crate::fault::ExitAfterWrites;
use crate::{crds, run};
use anyhow::{Context as _, bail};
use kube::{Api, Client, ResourceExt};
use weft_controllers::adopt::{self, plan::Plan, plan::Wish};
use weft_controllers::fabric;
use weft_controllers::shared::context::Context;
use weft_controllers::shared::errors::Backoffs;
use weft_controllers::shared::events::Events;
use weft_controllers::shared::keys::{self, Keys};
use weft_controllers::shared::links::Links;
use weft_crds::Fabric;

/// Adopts once, and prints a line for each volume.
pub async fn adopt(options: Box<AdoptOptions>) -> anyhow::Result<()> {
    let client = run::client(&ExitAfterWrites::default()).await?;
    crds::check(&client).await?;
    let context = context(&options.common, client).await?;
    let names = options.names;
    let wish = Wish {
        all_drives: options.all_drives,
        names: names.into_iter().map(|n| (n.uid, n.name)).collect(),
    };
    let plan = adopt::run(&context, wish, options.dry_run).await?;
    print!("{}", told(&plan, options.dry_run));
    Ok(())
}

/// Of what is there: an identity or keys that were made now would open no drive.
async fn context(options: &Options, client: Client) -> anyhow::Result<Context> {
    let fabrics: Api<Fabric> = Api::all(client.clone());
    let fabric = fabrics.get_opt(fabric::NAME).await;
    let Some(fabric) = fabric.context("cannot read the Fabric")? else {
        bail!(
            "there is no Fabric {}: apply it with the spec.uid that is on the drives, then start the operator",
            fabric::NAME
        );
    };
    let namespace = &options.drives_namespace;
    let Some(keys) = Keys::read_from(&client, namespace).await? else {
        bail!(
            "there is no Secret {namespace}/{}: start the operator, which makes it and the drives' pods",
            keys::SECRET
        );
    };
    Ok(Context {
        settings: options.settings(String::new()),
        fabric: fabric::status::facts(&fabric)?,
        links: Links::new(keys.operator.clone()),
        events: Events::new(client.clone(), "weft-operator-adopt"),
        backoffs: Backoffs::default(),
        client,
        keys,
    })
}

fn told(plan: &Plan, dry: bool) -> String {
    let mut lines = Vec::new();
    for adoption in &plan.adoptions {
        let (volume, status) = (&adoption.volume, adoption.volume.status.as_ref());
        let name = volume.name_any();
        lines.push(match &adoption.held {
            Some(held) => format!("Volume {name} is held: {}: {}", held.reason, held.message),
            None => format!(
                "Volume {name} is adopted: {} slices, above term {}",
                status.map_or(0, |s| s.members.len()),
                status.map_or(0, |s| s.term)
            ),
        });
    }
    lines.extend(plan.remarks.iter().cloned());
    if plan.adoptions.is_empty() {
        lines.push("nothing to adopt".to_owned());
    }
    if dry {
        lines.push("nothing was written (--dry-run)".to_owned());
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_findings_says_so() {
        let plan = Plan {
            adoptions: vec![],
            remarks: vec!["Drive d0 was not heard: the pod has no address yet".into()],
        };
        assert_eq!(
            told(&plan, true),
            "Drive d0 was not heard: the pod has no address yet\nnothing to adopt\nnothing was written (--dry-run)\n"
        );
    }
}
