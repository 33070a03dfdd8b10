//! Drives that do not keep what they promise, so that the simulation is seen to find it.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use weft_block::{Disk, DiskError, Stamp, Write};
use weft_drive::store::{Carried, Mark, Store};
use weft_spec::drive::{Answer, Config, VENDOR_ANSWER, VENDOR_PUT_RECORD};
use weft_spec::ids::{FencePair, SliceUid};
use weft_spec::nqn::HostNqn;
use weft_transport::{Admission, ConnectRequest, Gate, Refusal, Vendor, VendorError};

/// What a drive does not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// It does everything.
    None,
    /// It writes for engines that are shut out.
    WritesPastTheFence,
    /// It reads for engines that are shut out.
    ReadsPastTheFence,
    /// It answers a flush without one.
    NoFlush,
    /// It says that nothing is hot.
    NothingHot,
    /// It says that nothing has changed since a config.
    NothingChanged,
    /// It says that a record is there and does not put it.
    NoRecord,
    /// It answers zeroes without writing them.
    NoZeroes,
}

/// See the module.
pub struct LyingGate {
    inner: Arc<dyn Gate>,
    lie: Lie,
    store: Arc<Store>,
    slice: SliceUid,
}

impl LyingGate {
    pub fn around(
        inner: Arc<dyn Gate>,
        lie: Lie,
        store: Arc<Store>,
        slice: SliceUid,
    ) -> Arc<dyn Gate> {
        match lie {
            Lie::None => inner,
            lie => Arc::new(Self {
                inner,
                lie,
                store,
                slice,
            }),
        }
    }
}

#[async_trait]
impl Gate for LyingGate {
    async fn connect(&self, request: ConnectRequest) -> Result<Admission, Refusal> {
        let name = HostNqn::from_wire(&request.host);
        let pair = name.parse_at_slice().and_then(|host| host.fence());
        let mut admission = self.inner.connect(request).await?;
        let export = &mut admission.export;
        export.disk = Arc::new(LyingDisk {
            inner: export.disk.clone(),
            lie: self.lie,
            store: self.store.clone(),
            slice: self.slice,
            pair: pair.unwrap_or_default(),
        });
        if let Some(inner) = export.vendor.take() {
            let lie = self.lie;
            export.vendor = Some(Arc::new(LyingVendor { inner, lie }));
        }
        Ok(admission)
    }
}

struct LyingDisk {
    inner: Arc<dyn Disk>,
    lie: Lie,
    store: Arc<Store>,
    slice: SliceUid,
    pair: FencePair,
}

#[async_trait]
impl Disk for LyingDisk {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        match self.store.slice(self.slice) {
            Some(slice) if self.lie == Lie::ReadsPastTheFence => {
                self.store.read(&slice, offset, into, ()).await
            }
            _ => self.inner.read(offset, into).await,
        }
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        match self.store.slice(self.slice) {
            Some(slice) if self.lie == Lie::WritesPastTheFence => {
                // Under whatever config the record has: only the fence keeps older ones out.
                let config = slice.record().map_or(Config(stamp.config), |r| r.config);
                let mark = Mark {
                    pair: self.pair,
                    number: stamp.number,
                };
                let carried = Carried { config, mark };
                self.store
                    .write(&slice, offset, data, mode, carried, ())
                    .await
            }
            _ => self.inner.write_stamped(offset, data, mode, stamp).await,
        }
    }

    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError> {
        match self.lie {
            Lie::NoFlush => Ok(()),
            _ => self.inner.flush_stamped(stamp).await,
        }
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        match self.lie {
            Lie::NoZeroes => Ok(()),
            _ => self.inner.write_zeroes_stamped(offset, length, stamp).await,
        }
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        self.inner.discard_stamped(offset, length, stamp).await
    }
}

struct LyingVendor {
    inner: Arc<dyn Vendor>,
    lie: Lie,
}

#[async_trait]
impl Vendor for LyingVendor {
    async fn put(&self, opcode: u8, cdw10: u32, data: Bytes) -> Result<(), VendorError> {
        match (self.lie, opcode) {
            (Lie::NoRecord, VENDOR_PUT_RECORD) => Ok(()),
            _ => self.inner.put(opcode, cdw10, data).await,
        }
    }

    async fn get(&self, opcode: u8, cdw10: u32, length: u32) -> Result<Bytes, VendorError> {
        let answer = self.inner.get(opcode, cdw10, length).await?;
        if opcode != VENDOR_ANSWER {
            return Ok(answer);
        }
        let mut told: Answer = serde_json::from_slice(&answer).expect("an answer of a drive");
        match (self.lie, &mut told) {
            (Lie::NothingHot, Answer::HotSet { regions, .. }) => regions.clear(),
            (Lie::NothingChanged, Answer::Changes { changed, holes, .. }) => {
                changed.clear();
                holes.clear();
            }
            _ => {}
        }
        Ok(serde_json::to_vec(&told).expect("it was JSON").into())
    }
}
