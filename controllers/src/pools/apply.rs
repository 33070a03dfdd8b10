//! Writes a Pool's budget and status.

use super::observe::observe;
use super::plan::{Observed, Plan, plan};
use super::{domains, objects, status};
use crate::shared::context::Context;
use crate::shared::errors::Error;
use crate::shared::{apply, finalizers};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{Selector, SelectorExt};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use weft_crds::{Drive, Pool};

/// One pass over one Pool. Two passes at a time could each open a domain, and a volume be in both: the
/// caller sees to it that there is one.
pub async fn reconcile(context: &Context, pool: &Pool) -> Result<Action, Error> {
    let selector = Selector::try_from(pool.spec.selector.clone()).map_err(|error| {
        Error::unusable(
            pool,
            format!(
                "spec.selector cannot be used: {error}; see kubectl explain pool.spec.selector"
            ),
        )
    })?;
    let observed = observe(context, pool).await?;
    let plan = plan(&observed);
    write_budget(context, &observed, &plan).await?;
    let selected = observed
        .drives
        .iter()
        .filter(|d| selector.matches(d.labels()));
    let selected: Vec<Drive> = selected.cloned().collect();
    let wanted = status::status(&observed, &selected, &plan.why);
    let api: Api<Pool> = Api::all(context.client.clone());
    apply::apply_status(&api, pool, pool.status.as_ref(), &wanted).await?;
    Ok(plan
        .again
        .map_or_else(Action::await_change, Action::requeue))
}

/// A pool that goes has its budget taken away by Kubernetes, which must not be made again meanwhile.
async fn write_budget(context: &Context, o: &Observed, plan: &Plan) -> Result<(), Error> {
    let namespace = context.settings.namespaces.drives.as_str();
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(context.client.clone(), namespace);
    let present = domains::own_budget(o);
    match (&plan.budget, present) {
        _ if finalizers::is_deleting(&o.pool) => {}
        (Some(wanted), _) => {
            let budget = objects::budget(&context.settings, &o.pool, wanted);
            apply::apply(&budgets, present, &budget).await?;
        }
        (None, Some(present)) => apply::delete(&budgets, present).await?,
        (None, None) => {}
    }
    Ok(())
}
