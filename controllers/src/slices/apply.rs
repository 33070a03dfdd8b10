//! The only file of this folder that writes.

use super::plan::{self, Answer, Ask, Observed, Plan};
use super::status::QUIET;
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error};
use crate::shared::links::LinkError;
use crate::shared::{apply, finalizers};
use kube::runtime::controller::Action;
use kube::{Api, Resource, ResourceExt};
use weft_crds::{Slice, SliceStatus};
use weft_spec::ids::DriveUid;

/// Does what was decided.
pub async fn perform(context: &Context, o: &Observed, plan: Plan) -> Result<Action, Error> {
    let Plan::Ask(ask) = plan else {
        return write(context, o, plan)
            .await
            .map(|()| Action::await_change());
    };
    let (answer, failure) = put(context, o, &ask).await;
    write(context, o, plan::answered(o, &ask, &answer)).await?;
    match failure {
        // Told in the status already; the policy's back-off asks again.
        Some(error @ LinkError::Refused { .. }) => {
            tracing::info!(slice = o.slice.name_any(), %error, "a drive refused");
            Ok(Action::await_change())
        }
        Some(error) => Err(error).doing(|| {
            format!(
                "ask drive {} for slice {}",
                o.slice.spec.drive,
                o.slice.name_any()
            )
        }),
        None => Ok(Action::await_change()),
    }
}

async fn put(context: &Context, o: &Observed, ask: &Ask) -> (Answer, Option<LinkError>) {
    let Ok(drive) = o.slice.spec.drive_uid.parse::<DriveUid>() else {
        return (
            Answer::Unreachable("spec.driveUid is no UUID".to_owned()),
            None,
        );
    };
    let links = &context.links;
    let answer = match ask {
        Ask::Allocate(slice, request) => links
            .put_slice(drive, *slice, request)
            .await
            .map(Answer::Allocated),
        Ask::Look(_) => links.look_at_drive(drive).await.map(Answer::Looked),
        Ask::Free(slice) => links
            .delete_slice(drive, *slice)
            .await
            .map(|()| Answer::Freed),
    };
    match answer {
        Ok(answer) => (answer, None),
        Err(LinkError::Refused { code, text }) => (
            Answer::Refused(code, text.clone()),
            Some(LinkError::Refused { code, text }),
        ),
        Err(error) => (Answer::Unreachable(error.to_string()), Some(error)),
    }
}

async fn write(context: &Context, o: &Observed, plan: Plan) -> Result<(), Error> {
    let slices: Api<Slice> = Api::all(context.client.clone());
    match plan {
        Plan::Claim => finalizers::claim(&slices, &o.slice, None).await.map(drop),
        Plan::Release => finalizers::release(&slices, &o.slice).await,
        Plan::Say(status) => say(context, &slices, &o.slice, &status).await,
        // An answer asks nothing further.
        Plan::Ask(_) => Ok(()),
    }
}

async fn say(
    context: &Context,
    slices: &Api<Slice>,
    slice: &Slice,
    status: &SliceStatus,
) -> Result<(), Error> {
    let before = slice.status.as_ref();
    if apply::apply_status(slices, slice, before, status).await? {
        let old = before.map(|s| s.conditions.as_slice()).unwrap_or_default();
        context
            .events
            .changes(&slice.object_ref(&()), old, &status.conditions, QUIET)
            .await;
    }
    Ok(())
}
