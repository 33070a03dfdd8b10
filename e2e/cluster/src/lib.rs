//! The cluster tier: Weft installed by its chart into a real cluster on this machine.
//!
//! | file | what |
//! | --- | --- |
//! | [`lab`] | the lab program, as a person would call it |
//! | [`kubectl`] | objects as JSON, waiting on conditions with a deadline |
//! | [`install`] | images, chart, the examples of `docs/examples` |
//! | [`pods`] | pods that write, sum and compare |
//! | [`process`] | processes of a pod on its node, found and killed |
//! | [`progress`] | one line a step |
//! | [`control_plane`] | operator and API server, taken away and brought back |
//! | [`mirrors`] | volumes of two copies, and nodes that are lost |
//! | [`writer`] | a pod that writes without end and counts errors |
//! | [`tour`] | the scenario of `make demo` |
//! | [`clean`] | zero left: objects, slices, connections |

pub mod clean;
pub mod control_plane;
pub mod install;
pub mod kubectl;
pub mod lab;
pub mod mirrors;
pub mod pods;
pub mod process;
pub mod progress;
pub mod tour;
pub mod writer;
