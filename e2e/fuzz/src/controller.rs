//! Admin commands in any order against one controller.

use weft_nvme::MAX_TRANSFER;
use weft_nvme::command::Sqe;
use weft_nvme::identify::{ControllerType, Shape};
use weft_nvme::log::AnaState;
use weft_nvme::target::{Controller, Notice, Now, Reply};
use zerocopy::FromBytes;

/// Bytes of one submission queue entry.
const ENTRY: usize = 64;

const NOW: Now = Now {
    blocks: 1024,
    ana: AnaState::Optimized,
    ana_changes: 7,
};

pub(crate) fn controller(data: &[u8]) {
    let kind = match data.len() % 4 {
        0 => ControllerType::Discovery,
        _ => ControllerType::Io,
    };
    let shape = Shape {
        kind,
        subsystem: "nqn.2026-11.storage.weft:volume:00000000-0000-0000-0000-000000000001".into(),
        serial: "weft".into(),
        controller: 7,
        uuid: uuid::Uuid::from_u128(1),
        blocks: 1024,
        read_only: false,
        queue_size: 128,
    };
    let mut controller = Controller::new(shape, 4, 5000);
    let mut held = 0;
    for entry in data.chunks_exact(ENTRY) {
        let Ok(sqe) = Sqe::read_from_bytes(entry) else {
            return;
        };
        // The connection refuses longer ones before the controller sees them.
        if sqe.sgl.length.get() > MAX_TRANSFER {
            continue;
        }
        if sqe.cid.get() % 7 == 0 {
            controller.raise(Notice::Ana);
        }
        match controller.answer(&sqe, NOW) {
            Reply::Data(answer) => {
                assert!(
                    answer.len() <= MAX_TRANSFER as usize,
                    "{} bytes",
                    answer.len()
                );
            }
            Reply::Held => {
                held += 1;
                assert!(held <= 4, "more events held than AERL allows");
            }
            Reply::DiscoveryLog { length, .. } => assert!(length <= MAX_TRANSFER),
            Reply::Done(_) | Reply::Refused(..) | Reply::Vendor { .. } => {}
        }
        while controller.next_notice().is_some() {
            assert!(held > 0, "a notice without a request");
            held -= 1;
        }
    }
}
