//! A controller asked by its host.

use crate::command::fabrics::FabricsCommand;
use crate::command::{AdminCommand, Sgl, Sqe};
use crate::identify::{self, ControllerType, Shape};
use crate::log::AnaState;
use crate::property::{CC, CC_ENABLED};
use crate::status::Status;
use crate::target::{Controller, Notice, Now, Reply};
use crate::{feature, log};
use uuid::Uuid;

const NOW: Now = Now {
    blocks: 256,
    ana: AnaState::Optimized,
    ana_changes: 0,
};

fn ready(kind: ControllerType) -> Controller {
    let shape = Shape {
        kind,
        subsystem: "nqn.x".into(),
        serial: "1".into(),
        controller: 1,
        uuid: Uuid::from_u128(1),
        blocks: 256,
        read_only: false,
        queue_size: 128,
    };
    let mut controller = Controller::new(shape, 4, 5000);
    let enable = FabricsCommand::PropertySet {
        offset: CC,
        wide: false,
        value: CC_ENABLED.into(),
    };
    assert_eq!(controller.answer(&enable.to_sqe(), NOW), Reply::Done(0));
    controller
}

fn ask(controller: &mut Controller, command: AdminCommand, now: Now) -> Reply {
    let sqe = Sqe {
        sgl: Sgl::transport(4096),
        ..command.to_sqe()
    };
    controller.answer(&sqe, now)
}

fn read_log(controller: &mut Controller, page: u8, retain: bool, now: Now) -> Vec<u8> {
    let command = AdminCommand::GetLog {
        page,
        specific: 0,
        offset: 0,
        length: 4096,
        retain,
    };
    match ask(controller, command, now) {
        Reply::Data(data) => data.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn listen(controller: &mut Controller, mask: u32) {
    let mask = AdminCommand::SetFeatures {
        feature: feature::ASYNC_EVENTS,
        value: mask,
        save: false,
    };
    assert_eq!(ask(controller, mask, NOW), Reply::Done(0));
    assert_eq!(ask(controller, AdminCommand::AsyncEvent, NOW), Reply::Held);
}

#[test]
fn a_resize_is_told_listed_until_read_and_identified() {
    let mut controller = ready(ControllerType::Io);
    listen(&mut controller, feature::EVENTS);
    assert_eq!(controller.next_notice(), None);
    controller.raise(Notice::Namespace);
    assert_eq!(controller.next_notice(), Some(Notice::Namespace));
    let page = log::CHANGED_NAMESPACES;
    assert_eq!(read_log(&mut controller, page, true, NOW)[0], 1);
    assert_eq!(read_log(&mut controller, page, false, NOW)[0], 1);
    assert_eq!(read_log(&mut controller, page, false, NOW)[0], 0);
    let larger = Now { blocks: 512, ..NOW };
    let identify = AdminCommand::Identify {
        cns: identify::CNS_NAMESPACE,
        nsid: 1,
        csi: 0,
    };
    let Reply::Data(namespace) = ask(&mut controller, identify, larger) else {
        panic!("no data");
    };
    assert_eq!(namespace[..8], 512u64.to_le_bytes());
}

#[test]
fn the_ana_log_tells_the_state_of_now_and_how_often_it_changed() {
    let mut controller = ready(ControllerType::Io);
    let now = Now {
        ana: AnaState::Inaccessible,
        ana_changes: 3,
        ..NOW
    };
    let page = read_log(&mut controller, log::ANA, false, now);
    assert_eq!((page[0], page[24], page[32]), (3, 3, 3));
}

#[test]
fn a_discovery_controller_has_the_discovery_log_alone() {
    let mut discovery = ready(ControllerType::Discovery);
    let get = |page| AdminCommand::GetLog {
        page,
        specific: 0,
        offset: 1024,
        length: 1024,
        retain: false,
    };
    assert_eq!(
        ask(&mut discovery, get(log::DISCOVERY), NOW),
        Reply::DiscoveryLog {
            offset: 1024,
            length: 1024
        }
    );
    let refused = Reply::Refused(Status::INVALID_LOG_PAGE, 0);
    assert_eq!(ask(&mut discovery, get(log::ANA), NOW), refused);
    let mut io = ready(ControllerType::Io);
    assert_eq!(ask(&mut io, get(log::DISCOVERY), NOW), refused);
    listen(&mut discovery, feature::DISCOVERY_NOTICE);
    discovery.raise(Notice::Discovery);
    assert_eq!(discovery.next_notice(), Some(Notice::Discovery));
    let queues = AdminCommand::SetFeatures {
        feature: feature::QUEUES,
        value: 0,
        save: false,
    };
    let refused = Reply::Refused(Status::INVALID_FIELD, 0);
    assert_eq!(ask(&mut discovery, queues, NOW), refused);
}

#[test]
fn a_discovery_controller_says_what_it_is() {
    let mut discovery = ready(ControllerType::Discovery);
    let identify = |cns| AdminCommand::Identify {
        cns,
        nsid: 0,
        csi: 0,
    };
    let Reply::Data(page) = ask(&mut discovery, identify(identify::CNS_CONTROLLER), NOW) else {
        panic!("no data");
    };
    assert_eq!((page[111], page[76]), (2, 0), "type, and no other path");
    assert_eq!(page[92..96], (1u32 << 31).to_le_bytes());
    assert_eq!(
        ask(&mut discovery, identify(identify::CNS_ACTIVE), NOW),
        Reply::Refused(Status::INVALID_FIELD, 0)
    );
}
