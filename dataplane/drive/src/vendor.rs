//! The vendor specific admin commands of a slice's controller (`docs/protocol.md`).

use crate::fence::Association;
use crate::store::{Slice, Store};
use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use weft_spec::drive::{DocumentMark, SliceInspection, VENDOR_INSPECT, VENDOR_PUT_GENERATION};
use weft_transport::target::{Vendor, VendorError};

/// Answers for one association with one slice.
pub struct SliceVendor {
    store: Arc<Store>,
    slice: Arc<Slice>,
    /// None for a host that only inspects.
    association: Option<Arc<Association>>,
    peer: SocketAddr,
}

impl SliceVendor {
    /// For a host at `peer`.
    pub fn new(
        store: Arc<Store>,
        slice: Arc<Slice>,
        association: Option<Arc<Association>>,
        peer: SocketAddr,
    ) -> Self {
        Self {
            store,
            slice,
            association,
            peer,
        }
    }

    async fn put_generation(&self, data: &[u8]) -> Result<(), VendorError> {
        let association = self.association.as_ref().ok_or(VendorError::Fenced)?;
        let permit = association.enter().map_err(|_| VendorError::Fenced)?;
        let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
        let mark: DocumentMark =
            serde_json::from_slice(text).map_err(|_| VendorError::InvalidField)?;
        let (store, slice) = (self.store.clone(), self.slice.clone());
        // Goes on to its end with its permit when the connection is closed meanwhile.
        let recorded = tokio::spawn(async move {
            let recorded = match slice.row().generation >= mark.generation {
                true => Ok(true),
                false => {
                    let raise = |row: &mut crate::store::SliceRow| {
                        row.generation = row.generation.max(mark.generation);
                    };
                    store.record(&slice, raise).await
                }
            };
            drop(permit);
            recorded
        });
        match recorded.await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(VendorError::Fenced),
            Ok(Err(_)) | Err(_) => Err(VendorError::Internal),
        }
    }
}

#[async_trait]
impl Vendor for SliceVendor {
    async fn put(&self, opcode: u8, _cdw10: u32, data: Bytes) -> Result<(), VendorError> {
        match opcode {
            VENDOR_PUT_GENERATION => self.put_generation(&data).await,
            _ => Err(VendorError::InvalidOpcode),
        }
    }

    async fn get(&self, opcode: u8, _cdw10: u32, length: u32) -> Result<Bytes, VendorError> {
        if opcode != VENDOR_INSPECT {
            return Err(VendorError::InvalidOpcode);
        }
        let _permit = match &self.association {
            Some(association) => Some(association.enter().map_err(|_| VendorError::Fenced)?),
            None => None,
        };
        let row = self.slice.row();
        let inspection = SliceInspection {
            volume: row.volume,
            slice: row.uid,
            size: row.size,
            fence: row.fence,
            host_id: row.host_id,
            document_generation: row.generation,
            peer: self.peer,
        };
        let answer = serde_json::to_vec(&inspection).map_err(|_| VendorError::Internal)?;
        // An answer that does not fit would be cut in the middle: the host asks with too little.
        if answer.len() > length as usize {
            return Err(VendorError::InvalidField);
        }
        Ok(answer.into())
    }
}
