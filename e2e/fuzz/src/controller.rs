//! Admin commands in any order against one controller.

use std::collections::HashSet;
use weft_nvme::MAX_TRANSFER;
use weft_nvme::command::Sqe;
use weft_nvme::identify::Shape;
use weft_nvme::target::{Controller, Reply};
use zerocopy::FromBytes;

/// Bytes of one submission queue entry.
const ENTRY: usize = 64;

pub(crate) fn controller(data: &[u8]) {
    let shape = Shape {
        subsystem: "nqn.2026-11.storage.weft:volume:00000000-0000-0000-0000-000000000001".into(),
        serial: "weft".into(),
        controller: 7,
        uuid: uuid::Uuid::from_u128(1),
        blocks: 1024,
        read_only: false,
        queue_size: 128,
    };
    let mut controller = Controller::new(shape, 4, 5000);
    let mut held = HashSet::new();
    for entry in data.chunks_exact(ENTRY) {
        let Ok(sqe) = Sqe::read_from_bytes(entry) else {
            return;
        };
        // The connection refuses longer ones before the controller sees them.
        if sqe.sgl.length.get() > MAX_TRANSFER {
            continue;
        }
        match controller.answer(&sqe, 1024) {
            Reply::Data(answer) => {
                assert!(
                    answer.len() <= MAX_TRANSFER as usize,
                    "{} bytes",
                    answer.len()
                );
            }
            Reply::Held => {
                held.insert(held.len());
                assert!(held.len() <= 4, "more events held than AERL allows");
            }
            Reply::Done(_) | Reply::Refused(..) | Reply::Vendor { .. } => {}
        }
    }
}
