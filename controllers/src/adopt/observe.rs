//! What `weft-operator adopt` reads: all objects of the kinds that it cares for, and every drive.

use super::plan::{Observed, SeenDrive, Wish};
use crate::drives;
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use weft_crds::Drive;
use weft_spec::drive::RecordedSlice;
use weft_spec::ids::DriveUid;

/// Drives asked at a time: bounds the burst of handshakes.
const ASKED_AT_ONCE: usize = 16;

/// Reads everything. A drive that does not answer is a finding, not an error.
pub async fn observe(context: &Context, wish: Wish) -> Result<Observed, Error> {
    let (no_twins, _) = reflector::store::<Drive>();
    let drives = all::<Drive>(context).await?;
    let hearing = drives
        .into_iter()
        .map(|drive| hear(context, &no_twins, drive));
    let drives = stream::iter(hearing)
        .buffered(ASKED_AT_ONCE)
        .collect()
        .await;
    Ok(Observed {
        drives,
        volumes: all(context).await?,
        slices: all(context).await?,
        pools: all(context).await?,
        wish,
        now: Timestamp::now(),
    })
}

async fn all<K>(context: &Context) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(context.client.clone());
    let listed = api.list(&ListParams::default()).await;
    let listed = listed.doing(|| format!("list {}", K::plural(&())))?;
    Ok(listed.items)
}

async fn hear(context: &Context, no_twins: &Store<Drive>, drive: Drive) -> SeenDrive {
    let drive = Arc::new(drive);
    let answer = ask(context, no_twins, drive.clone()).await;
    SeenDrive {
        drive: Arc::unwrap_or_clone(drive),
        answer,
    }
}

/// Through the Secret and the pod that the operator has made for it.
async fn ask(
    context: &Context,
    no_twins: &Store<Drive>,
    drive: Arc<Drive>,
) -> Result<Vec<RecordedSlice>, String> {
    let uid = drive.spec.uid.as_deref();
    let uid: DriveUid = uid
        .and_then(|uid| uid.parse().ok())
        .ok_or("it has no spec.uid: set the one that is on its medium, with adoption Adopt")?;
    let linked = drives::observe::observe(context, no_twins, drive).await;
    linked.map_err(|error| error.to_string())?;
    let answer = context.links.recorded_slices(uid).await;
    answer.map_err(|error| error.to_string())
}
