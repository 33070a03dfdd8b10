//! A real Linux kernel as NVMe/TCP host and as target of what Weft puts on the wire, without
//! Kubernetes.
//!
//! | file | what the kernel meets |
//! | --- | --- |
//! | `volume` | engine and drive: connect, file system, discard, verify, disconnect; digests |
//! | `controller` | discovery, controller reset, a drive that goes and comes (ANA) |
//! | `changes` | a namespace that grows and one that becomes inaccessible, both while it is used |
//! | `wire` | a wire that spoils digests and cuts connections |
//! | `initiator` | the same list the other way round: Weft's initiator, and the kernel is the target |
//! | `nvmet` | the kernel's target, and the oracle's load over the initiator |
//! | `host`, `proxy` | the guest and its log; the wire |

mod changes;
mod controller;
mod host;
mod initiator;
mod nvmet;
mod proxy;
mod volume;
mod wire;
