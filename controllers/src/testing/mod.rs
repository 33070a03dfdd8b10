//! What the tests of several kinds share: settings, an API server in memory ([`api`]), and a
//! small cluster around it ([`world`]) in which whole life cycles are run with an operator that
//! dies after any single write ([`sweep`]), also of an API server that is lost ([`adoption`]).

mod adoption;
pub mod api;
mod book;
mod drain;
mod gone;
mod sweep;
mod world;

use crate::shared::context::{FabricFacts, PortNumbers};
use crate::shared::settings::{Images, Namespaces, Settings};
use weft_spec::ids::ClusterUid;

pub fn settings() -> Settings {
    let image = |name: &str| format!("weft.storage/{name}:test");
    Settings {
        namespaces: Namespaces {
            system: "weft-system".into(),
            drives: "weft-drives".into(),
            engines: "weft-engines".into(),
        },
        images: Images {
            drive: image("weft-drive"),
            engine: image("weft-engine"),
            initiator: image("weft-initiator"),
            pull_policy: "IfNotPresent".into(),
        },
        drives_root: "/var/lib/weft".into(),
        device_prefixes: vec!["/dev/disk/".into()],
        push_address: "10.0.0.2:4411".into(),
        pod_log: "info".into(),
    }
}

pub fn fabric() -> FabricFacts {
    FabricFacts {
        cluster: ClusterUid::random(),
        ports: PortNumbers {
            drive: 4421,
            engine: 4420,
            control: 4410,
            operator: 4411,
        },
        families: vec![],
    }
}
