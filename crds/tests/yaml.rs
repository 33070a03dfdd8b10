//! The checked-in YAML is what the types print.

use kube::core::ResourceExt;
use std::path::Path;

#[test]
fn the_checked_in_yaml_is_what_the_types_print() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let mut wanted = Vec::new();
    for crd in weft_crds::all() {
        let file = format!(
            "{}.yaml",
            crd.spec.names.singular.clone().unwrap_or_default()
        );
        let printed = serde_yaml::to_string(&crd).unwrap();
        let found = std::fs::read_to_string(directory.join(&file)).unwrap_or_default();
        assert!(
            found == printed,
            "crds/yaml/{file} ({}) is not what the types print: run `make crds`",
            crd.name_any()
        );
        wanted.push(file);
    }
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            wanted.contains(&name),
            "crds/yaml/{name} belongs to no kind: delete it"
        );
    }
}

#[test]
fn no_schema_uses_an_integer_format_that_api_servers_do_not_know() {
    for crd in weft_crds::all() {
        let text = serde_yaml::to_string(&crd).unwrap();
        for format in ["uint8", "uint16", "uint32", "uint64", "uint", "double"] {
            assert!(
                !text.contains(&format!("format: {format}\n")),
                "{}: {format}",
                crd.name_any()
            );
        }
    }
}
