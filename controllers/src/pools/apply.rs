//! Writes a Pool's status.

use super::status;
use crate::shared::apply;
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::core::Selector;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use weft_crds::{Drive, Pool};

/// One pass over one Pool.
pub async fn reconcile(context: &Context, pool: &Pool) -> Result<Action, Error> {
    let selector = Selector::try_from(pool.spec.selector.clone()).map_err(|error| {
        Error::unusable(
            pool,
            format!(
                "spec.selector cannot be used: {error}; see kubectl explain pool.spec.selector"
            ),
        )
    })?;
    let drives: Api<Drive> = Api::all(context.client.clone());
    let drives = drives
        .list(&ListParams::default().labels_from(&selector))
        .await
        .doing(|| format!("list the drives of Pool {}", pool.name_any()))?;
    let wanted = status::status(pool, &drives.items, Timestamp::now());
    let api: Api<Pool> = Api::all(context.client.clone());
    apply::apply_status(&api, pool, pool.status.as_ref(), &wanted).await?;
    Ok(Action::await_change())
}
