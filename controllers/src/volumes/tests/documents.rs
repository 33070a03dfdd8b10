use super::{drive, pass, report, secret, serving};
use crate::volumes::plan::Step;
use weft_spec::engine::{EngineState, EngineStatus, HostStatus};
use weft_spec::ids::AttachGeneration;

#[test]
fn documents_follow_the_swap_that_raised_them() {
    let mut o = serving();
    o.volume.status.as_mut().unwrap().document_generation = 6;
    let name = "db-11111111-3".to_owned();
    let put = Step::PutDocument {
        name: name.clone(),
        ip: "10.0.0.9".parse().unwrap(),
    };
    assert_eq!(pass(&o).steps, [Step::WriteDocument(name), put.clone()]);
    o.secrets = vec![secret(3, 6)];
    assert_eq!(pass(&o).steps, [put]);
    o.report = Some(report(3, 6, EngineState::Serving));
    let settled = pass(&o);
    assert_eq!(
        (
            settled.steps.len(),
            settled.status.engine.unwrap().acknowledged
        ),
        (0, 6)
    );
}

#[test]
fn an_engine_that_starts_is_put_a_document_only_when_that_can_help() {
    type Change = fn(&mut EngineStatus);
    let cases: [(bool, Change); 4] = [
        (false, |_| {}),
        (true, |r| r.reason = "DocumentOutdated".into()),
        (true, |r| {
            r.drives[0].address = "10.0.0.66:4421".parse().unwrap()
        }),
        (true, |r| r.state = EngineState::Paused),
    ];
    for (put, change) in cases {
        let mut o = serving();
        let mut starting = report(3, 0, EngineState::Starting);
        starting.reason = "DriveUnreachable".into();
        change(&mut starting);
        o.report = Some(starting);
        assert_eq!(pass(&o).steps.len(), usize::from(put));
    }
}

#[test]
fn a_document_counts_only_when_the_hosts_that_it_puts_out_have_ended() {
    let mut o = serving();
    o.volume.status.as_mut().unwrap().document_generation = 6;
    let said = o.report.insert(report(3, 6, EngineState::Serving));
    said.hosts = vec![HostStatus {
        attachment: "out".into(),
        generation: AttachGeneration(1),
        associations: 1,
        source: None,
    }];
    assert_eq!(pass(&o).status.engine.unwrap().acknowledged, 5);
    o.report.as_mut().unwrap().hosts[0].associations = 0;
    assert_eq!(pass(&o).status.engine.unwrap().acknowledged, 6);
}

#[test]
fn a_drive_that_moved_raises_the_document() {
    let mut o = serving();
    o.drives = vec![drive("d0", "10.0.0.77:4421", "4Gi")];
    let pass = pass(&o);
    assert_eq!(pass.status.members[0].address, "10.0.0.77:4421");
    assert_eq!(pass.status.document_generation, 6);
    assert!(matches!(pass.steps[0], Step::WriteDocument(_)));
}
