//! The control link between one pod and the operator: TLS 1.3, both certificates pinned
//! (design section 4, step 5). Absent when a process runs without Kubernetes.
//!
//! | who serves | request | meaning |
//! | --- | --- | --- |
//! | pod | `GET /status` | the status, whole |
//! | pod | `PUT /document` | a newer document; 200 once accepted **and durable**, 409 with the reason |
//! | drive pod | `GET /slices` | every slice with its membership record ([`crate::drive::RecordedSlice`]); 503 while nothing is served |
//! | drive pod | `PUT /slices/<slice uid>` | allocate or grow ([`crate::drive::SliceRequest`]); 200 [`crate::drive::SliceStatus`], 409, 507 |
//! | drive pod | `DELETE /slices/<slice uid>` | free; 200 also when there is none |
//! | operator | `POST /status/<drive\|engine>/<uid>` | a status that changed |

use serde::{Deserialize, Serialize};

/// Everything a pod needs to be reached by the operator and to reach it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlLink {
    /// TCP port that the pod serves the link on (all addresses of the pod).
    pub port: u16,
    /// The pod's own certificate, PEM.
    pub certificate: String,
    /// The pod's private key, PEM.
    pub key: String,
    /// The operator's certificate, PEM: the only peer accepted, both ways.
    pub operator_certificate: String,
    /// Where the operator takes pushes, `address:port`.
    pub operator: String,
}

impl std::fmt::Debug for ControlLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlLink")
            .field("port", &self.port)
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}
