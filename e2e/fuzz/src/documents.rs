//! Documents and statuses: JSON between operator and pods.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use weft_spec::{drive, engine};

/// What is understood is written, and understood again as the same.
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else {
        return;
    };
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(again, value);
}

pub(crate) fn documents(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 5 {
        0 => same::<engine::EngineDocument>(rest),
        1 => same::<drive::DriveDocument>(rest),
        2 => same::<drive::SliceRequest>(rest),
        3 => same::<engine::EngineStatus>(rest),
        _ => same::<drive::DriveStatus>(rest),
    }
}
