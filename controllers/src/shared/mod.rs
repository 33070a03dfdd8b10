//! What every controller uses.
//!
//! | file | what |
//! | --- | --- |
//! | [`context`], [`settings`], [`keys`] | what a controller is given |
//! | [`links`], [`triggers`] | the pods and what they say; a push becomes a pass over the owner |
//! | [`documents`], [`pods`] | the Secret and the pod that all data path processes have in common |
//! | [`apply`], [`finalizers`] | writing, and only when something differs |
//! | [`conditions`], [`events`], [`errors`] | telling people |
//! | [`controller`] | running |
//! | [`labels`], [`quantity`], [`nodes`] | words and numbers |
//!
//! A push reaches its controller through `Controller::reconcile_on`, which kube keeps behind its
//! feature `unstable-runtime`: the stable alternatives are polling, or reconciling every object on
//! every push (`docs/decisions/012-pushes-wake-controllers.md`).

pub mod apply;
pub mod conditions;
pub mod context;
pub mod controller;
pub mod documents;
pub mod errors;
pub mod events;
pub mod finalizers;
pub mod keys;
pub mod labels;
pub mod links;
pub mod news;
pub mod nodes;
pub mod pods;
pub mod quantity;
pub mod settings;
pub mod triggers;

pub use context::Context;
pub use errors::{Doing, Error};
