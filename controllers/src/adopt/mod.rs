//! Adopt: Volumes and Slices built again from what the drives have, for an API server that lost them.
//!
//! No controller: `weft-operator adopt` runs it once, and again as often as a person likes. The Fabric
//! with the cluster's identity and the Drives with theirs are a person's to apply; pods of drives are
//! made by the controllers as ever. What is found of each volume is judged ([`judge`]), what follows is
//! decided ([`plan`]) and written ([`apply`]). Engines are started by the controller of volumes, not
//! here.

pub mod apply;
pub mod judge;
pub mod named;
mod objects;
pub mod observe;
pub mod plan;
#[cfg(test)]
mod tests;

use crate::shared::context::Context;
use crate::shared::errors::Error;
use plan::{Plan, Wish};

/// Reads drives and objects, decides, and unless `dry` writes.
pub async fn run(context: &Context, wish: Wish, dry: bool) -> Result<Plan, Error> {
    let plan = plan::plan(&observe::observe(context, wish).await?);
    if !dry {
        apply::perform(context, &plan).await?;
    }
    Ok(plan)
}
