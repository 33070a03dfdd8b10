//! Slices: asked of a drive, watched, and freed when nobody can use them any more.
//!
//! Watches its own kind, the drives that hold slices, the volumes that are made of them, and what
//! drives say.

pub mod apply;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use crate::shared::context::Context;
use crate::shared::controller;
use crate::shared::errors::{self, Doing, Error};
use crate::shared::news::News;
use crate::shared::quantity;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Config;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use weft_crds::{Drive, Phase, Slice, Volume};
use weft_spec::drive::DriveStatus;
use weft_spec::ids::DriveUid;

/// Reconciles Slices until the process ends.
pub async fn run(context: Arc<Context>) {
    let client = &context.client;
    let main = Controller::new(Api::<Slice>::all(client.clone()), Config::default());
    let (of_drive, of_volume, said_of) = (main.store(), main.store(), main.store());
    let drive_news = News::default();
    let of_links = context.clone();
    let said = context
        .links
        .drives()
        .subscribe()
        .flat_map(move |drive| stream::iter(changed(&said_of, &of_links, &drive)));
    let results = main
        .with_config(controller::config())
        .watches(
            Api::<Drive>::all(client.clone()),
            Config::default(),
            move |drive: Drive| {
                let phase = drive.status.as_ref().map(|s| s.phase.to_string());
                let news = drive_news.of(&drive, &(phase, &drive.spec.uid));
                let name = drive.name_any();
                if news {
                    select(&of_drive, |s| s.spec.drive == name)
                } else {
                    Vec::new()
                }
            },
        )
        .watches(
            Api::<Volume>::all(client.clone()),
            Config::default(),
            move |volume: Volume| {
                // Only a slice that waits to be freed hangs on its volume.
                let name = volume.name_any();
                select(&of_volume, |s| {
                    s.spec.volume == name && s.metadata.deletion_timestamp.is_some()
                })
            },
        )
        .reconcile_on(said)
        .run(reconcile, errors::policy, context.clone());
    controller::run("Slice", results, context).await;
}

async fn reconcile(slice: Arc<Slice>, context: Arc<Context>) -> Result<Action, Error> {
    pass(&slice.name_any(), &context).await
}

/// One pass over the slice of that name.
pub(crate) async fn pass(name: &str, context: &Context) -> Result<Action, Error> {
    let Some(observed) = observe(context, name).await? else {
        return Ok(Action::await_change());
    };
    let plan = plan::plan(&observed);
    apply::perform(context, &observed, plan).await
}

async fn observe(context: &Context, name: &str) -> Result<Option<plan::Observed>, Error> {
    let client = &context.client;
    let slices: Api<Slice> = Api::all(client.clone());
    let Some(slice) = slices
        .get_opt(name)
        .await
        .doing(|| format!("read Slice {name}"))?
    else {
        return Ok(None);
    };
    let (drives, volumes): (Api<Drive>, Api<Volume>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let (drive, volume) = (&slice.spec.drive, &slice.spec.volume);
    let drive = drives
        .get_opt(drive)
        .await
        .doing(|| format!("read Drive {drive}"))?;
    let volume = volumes
        .get_opt(volume)
        .await
        .doing(|| format!("read Volume {volume}"))?;
    let uid = slice.spec.drive_uid.parse::<DriveUid>().ok();
    let report = uid
        .and_then(|uid| context.links.drive(uid))
        .map(Arc::unwrap_or_clone);
    Ok(Some(plan::Observed {
        slice,
        drive,
        volume,
        report,
        now: Timestamp::now(),
    }))
}

fn select(store: &Store<Slice>, wanted: impl Fn(&Slice) -> bool) -> Vec<ObjectRef<Slice>> {
    let slices = store.state();
    slices
        .iter()
        .filter(|s| wanted(s))
        .map(|s| ObjectRef::from_obj(s.as_ref()))
        .collect()
}

/// Slices of a drive that has said something new, less those it says nothing new of.
fn changed(store: &Store<Slice>, context: &Context, drive: &str) -> Vec<ObjectRef<Slice>> {
    let said = |slice: &Slice| {
        let uid = slice.spec.drive_uid.parse::<DriveUid>().ok()?;
        context.links.drive(uid)
    };
    select(store, |s| {
        s.spec.drive == drive && said(s).is_none_or(|said| differs(s, &said))
    })
}

fn differs(slice: &Slice, said: &DriveStatus) -> bool {
    let seen = said
        .slices
        .iter()
        .find(|seen| seen.slice.to_string() == slice.spec.uid);
    let (Some(seen), Some(status)) = (seen, &slice.status) else {
        return true;
    };
    let fence = status.fence.map(|f| (f.term, f.boot));
    let heard = (
        i64::try_from(seen.fence.term.0).ok(),
        i64::try_from(seen.fence.boot.0).ok(),
    );
    let size = quantity::bytes(&slice.spec.size);
    status.phase != Phase::Ready
        || status.size != Some(quantity::quantity(seen.size))
        || size.is_some_and(|size| seen.size < size)
        || status.used != Some(quantity::rounded(seen.allocated))
        || fence.map(|(term, boot)| (Some(term), Some(boot))) != Some(heard)
}
