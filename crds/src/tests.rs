//! CEL rules, run as an API server would run them: each row is a change to a good object and the
//! words that its refusal must contain (`None`: it is accepted).

use crate::{Attachment, Drive, Fabric, Pool, Slice, Volume};
use kube::core::cel::ValidationErrors;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

type Validate<T> = fn(&T) -> Result<(), ValidationErrors>;
type ValidateUpdate<T> = fn(&T, &T) -> Result<(), ValidationErrors>;

fn object<T: DeserializeOwned>(kind: &str, spec: Value) -> T {
    serde_json::from_value(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": kind,
        "metadata": {"name": "default"}, "spec": spec,
    }))
    .unwrap()
}

/// Sets the dotted `path` in `base` to `value`; null removes it.
fn changed(base: &Value, path: &str, value: Value) -> Value {
    let mut spec = base.clone();
    let mut at = &mut spec;
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        at = at.get_mut(part).unwrap();
    }
    let at = at.as_object_mut().unwrap();
    match value {
        Value::Null => at.remove(last),
        value => at.insert(last.to_owned(), value),
    };
    spec
}

#[track_caller]
fn expect(what: &str, result: Result<(), ValidationErrors>, words: Option<&str>) {
    match (result, words) {
        (Ok(()), None) => {}
        (Ok(()), Some(words)) => panic!("{what}: accepted, but should be refused with {words:?}"),
        (Err(error), None) => panic!("{what}: refused: {error}"),
        (Err(error), Some(words)) => {
            assert!(
                error.to_string().contains(words),
                "{what}: {error} lacks {words:?}"
            );
        }
    }
}

struct Kind<T> {
    name: &'static str,
    good: Value,
    validate: Validate<T>,
    validate_update: ValidateUpdate<T>,
}

impl<T: DeserializeOwned> Kind<T> {
    #[track_caller]
    fn create(&self, rows: &[(&str, Value, Option<&str>)]) {
        expect(
            "the good object",
            (self.validate)(&object(self.name, self.good.clone())),
            None,
        );
        for (path, value, words) in rows {
            let spec = changed(&self.good, path, value.clone());
            let what = format!("{}.{path} = {value}", self.name);
            expect(&what, (self.validate)(&object(self.name, spec)), *words);
        }
    }

    #[track_caller]
    fn update(&self, rows: &[(&str, Value, Option<&str>)]) {
        let old = object(self.name, self.good.clone());
        for (path, value, words) in rows {
            let new = object(self.name, changed(&self.good, path, value.clone()));
            let what = format!("{}.{path} becomes {value}", self.name);
            expect(&what, (self.validate_update)(&new, &old), *words);
        }
    }
}

const UID: &str = "5b0f7c1e-96a4-4f0b-a1ef-0d3f0a6b3c11";
const OTHER_UID: &str = "5b0f7c1e-96a4-4f0b-a1ef-0d3f0a6b3c12";

fn device_drive() -> Kind<Drive> {
    Kind {
        name: "Drive",
        good: json!({"uid": UID, "hostExport": {"node": "n1", "device": "/dev/disk/by-id/nvme-eui.00"}}),
        validate: Drive::validate_cel,
        validate_update: Drive::validate_cel_update,
    }
}

fn file_drive() -> Kind<Drive> {
    Kind {
        good: json!({"hostExport": {"node": "n1", "file": {"path": "/var/lib/weft/d0.img", "size": "1Gi"}}}),
        ..device_drive()
    }
}

fn volume() -> Kind<Volume> {
    Kind {
        name: "Volume",
        good: json!({"uid": UID, "pool": "fast", "size": "20Gi"}),
        validate: Volume::validate_cel,
        validate_update: Volume::validate_cel_update,
    }
}

#[test]
fn a_drive_has_exactly_one_medium_with_a_name_that_stays() {
    device_drive().create(&[
        ("uid", Value::Null, None),
        ("uid", json!("not-a-uuid"), Some("uid must be a UUID")),
        (
            "hostExport.device",
            Value::Null,
            Some("exactly one of device and file"),
        ),
        (
            "hostExport.file",
            json!({"path": "/x/y", "size": "1Gi"}),
            Some("exactly one of device and file"),
        ),
        ("hostExport.device", json!("/dev/sda"), Some("stable name")),
        (
            "hostExport.device",
            json!("/dev/nvme0n1"),
            Some("/dev/disk/by-id/"),
        ),
        (
            "hostExport.device",
            json!("/dev/disk/by-id/../../sda"),
            Some("without '..'"),
        ),
        (
            "hostExport.device",
            json!("/etc/passwd"),
            Some("below /dev/"),
        ),
        ("hostExport.device", json!("/dev/mapper/vg-lv"), None),
    ]);
    file_drive().create(&[
        ("hostExport.file.size", json!("0"), Some("greater than 0")),
        (
            "hostExport.file.size",
            json!("-1Gi"),
            Some("greater than 0"),
        ),
        (
            "hostExport.file.size",
            json!("1000"),
            Some("multiple of 4Ki"),
        ),
        (
            "hostExport.file.size",
            json!("much"),
            Some("multiple of 4Ki"),
        ),
        (
            "hostExport.file.path",
            json!("d0.img"),
            Some("absolute path"),
        ),
        (
            "hostExport.file.path",
            json!("/var/lib/weft/../../etc/shadow"),
            Some("without '..'"),
        ),
        (
            "hostExport.file.path",
            json!("/var/lib/weft/"),
            Some("path of a file"),
        ),
    ]);
}

#[test]
fn a_drive_keeps_its_identity_node_and_medium() {
    device_drive().update(&[
        ("adoption", json!("Adopt"), None),
        ("uid", json!(OTHER_UID), Some("uid cannot be changed")),
        ("uid", Value::Null, Some("uid cannot be removed")),
        (
            "hostExport.node",
            json!("n2"),
            Some("node cannot be changed"),
        ),
        (
            "hostExport.device",
            json!("/dev/disk/by-id/other"),
            Some("device cannot be changed"),
        ),
        (
            "hostExport",
            json!({"node": "n1", "file": {"path": "/x/y", "size": "1Gi"}}),
            Some("between device and file"),
        ),
    ]);
    file_drive().update(&[
        ("uid", json!(UID), None),
        ("hostExport.file.size", json!("1024Mi"), None),
        (
            "hostExport.file.size",
            json!("2Gi"),
            Some("size cannot be changed"),
        ),
        (
            "hostExport.file.path",
            json!("/x/y"),
            Some("path cannot be changed"),
        ),
    ]);
}

#[test]
fn a_volume_has_a_size_in_blocks_and_at_most_three_replicas() {
    volume().create(&[
        ("size", json!("0"), Some("size must be greater than 0")),
        ("size", json!("-4096"), Some("size must be greater than 0")),
        ("size", json!("4097"), Some("multiple of 4Ki")),
        ("size", json!("500m"), Some("multiple of 4Ki")),
        ("size", json!("4096"), None),
        ("replicas", json!(1), None),
        ("replicas", json!(2), None),
        ("replicas", json!(3), None),
        ("replicas", json!(4), Some("replicas must be 1, 2 or 3")),
        ("replicas", json!(0), Some("replicas must be 1, 2 or 3")),
        ("onNoData", json!("Fail"), Some("onNoData must be Pause")),
        ("uid", json!("X"), Some("uid must be a UUID")),
    ]);
}

#[test]
fn a_volume_grows_but_does_not_shrink_or_move() {
    volume().update(&[
        ("size", json!("30Gi"), None),
        ("size", json!("20480Mi"), None),
        ("size", json!("10Gi"), Some("make a new Volume and copy")),
        ("size", json!("20479Mi"), Some("size cannot shrink")),
        ("size", json!("21474840577"), Some("multiple of 4Ki")),
        ("pool", json!("slow"), Some("pool cannot be changed")),
        ("replicas", json!(2), Some("docs/limits.md")),
        ("evict", json!(["d1"]), None),
        ("uid", json!(OTHER_UID), Some("uid cannot be changed")),
        ("uid", Value::Null, Some("uid cannot be removed")),
    ]);
}

#[test]
fn a_slice_keeps_its_volume_and_drive() {
    let slice = Kind {
        name: "Slice",
        good: json!({"uid": UID, "volume": "v", "volumeUid": UID, "drive": "d", "driveUid": UID, "size": "1Gi"}),
        validate: Slice::validate_cel,
        validate_update: Slice::validate_cel_update,
    };
    slice.create(&[
        ("size", json!("0"), Some("greater than 0")),
        ("uid", json!("x"), Some("UUID")),
    ]);
    slice.update(&[
        ("size", json!("2Gi"), None),
        ("size", json!("1Mi"), Some("make a smaller Volume")),
        ("size", json!("1025"), Some("cannot shrink")),
        ("size", json!("1073741825"), Some("multiple of 4Ki")),
        ("uid", json!(OTHER_UID), Some("uid cannot be changed")),
        ("volume", json!("w"), Some("volume cannot be changed")),
        (
            "volumeUid",
            json!(OTHER_UID),
            Some("volumeUid cannot be changed"),
        ),
        ("drive", json!("e"), Some("drive cannot be changed")),
        (
            "driveUid",
            json!(OTHER_UID),
            Some("driveUid cannot be changed"),
        ),
    ]);
}

#[test]
fn an_attachment_is_for_one_volume_on_one_node() {
    let attachment = Kind {
        name: "Attachment",
        good: json!({"volume": "v", "node": "n1"}),
        validate: Attachment::validate_cel,
        validate_update: Attachment::validate_cel_update,
    };
    attachment.create(&[
        (
            "access",
            json!("ReadOnlyMany"),
            Some("needs readOnly: true"),
        ),
        ("readOnly", json!(true), None),
    ]);
    attachment.update(&[
        ("volume", json!("w"), Some("volume cannot be changed")),
        ("node", json!("n2"), Some("node cannot be changed")),
        ("readOnly", json!(true), Some("readOnly cannot be changed")),
        (
            "initiator",
            json!("Kernel"),
            Some("initiator cannot be changed"),
        ),
    ]);
}

#[test]
fn a_pool_promises_at_least_what_there_is() {
    let pool = Kind {
        name: "Pool",
        good: json!({"selector": {"matchLabels": {"weft.storage/tier": "fast"}}}),
        validate: Pool::validate_cel,
        validate_update: Pool::validate_cel_update,
    };
    pool.create(&[
        ("overcommit", json!("200%"), None),
        ("overcommit", json!("50%"), Some("percentage from 100%")),
        ("overcommit", json!("2"), Some("percentage from 100%")),
        ("selector", json!({}), None),
    ]);
    let pool: Pool = object("Pool", json!({"overcommit": "250%"}));
    assert_eq!(pool.spec.overcommit_percent(), 250);
    assert_eq!(pool.spec.spread_by, ["kubernetes.io/hostname"]);
}

#[test]
fn the_fabric_is_valid_empty_and_keeps_identity_and_ports() {
    let fabric = Kind {
        name: "Fabric",
        good: json!({}),
        validate: Fabric::validate_cel,
        validate_update: Fabric::validate_cel_update,
    };
    fabric.create(&[
        ("families", json!(["IPv6", "IPv4"]), None),
        (
            "families",
            json!(["IPv4", "IPv4"]),
            Some("each family once"),
        ),
        (
            "ports",
            json!({"drive": 4410}),
            Some("ports.control must differ"),
        ),
    ]);
    fabric.update(&[
        ("uid", json!(UID), None),
        (
            "ports",
            json!({"drive": 4999}),
            Some("ports cannot be changed"),
        ),
    ]);
    let mut other: Fabric = object("Fabric", json!({}));
    other.metadata.name = Some("second".to_owned());
    expect(
        "another name",
        other.validate_cel(),
        Some("metadata.name must be default"),
    );
}
