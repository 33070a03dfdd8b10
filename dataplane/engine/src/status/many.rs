//! What the engine of a mirror reports.

use crate::members::State;
use crate::membership::{Obstacle, Phase as Membership};
use crate::plan::{Engine, Path, Phase};
use weft_spec::drive::MemberState;
use weft_spec::engine::{DriveWire, EngineState, MemberStatus, SliceMember};
use weft_spec::ids::SliceUid;

pub fn verdict(engine: &Engine, state: Option<&State>) -> (EngineState, &'static str, String) {
    match (engine.phase(), engine.path()) {
        (Phase::Serving, Path::Up) => serves(engine, state),
        (Phase::Serving, Path::Lost(why)) => {
            let away = away(engine, state);
            let message = format!("{why}: waits for {away}; hosts wait, I/O goes on by itself");
            (EngineState::Paused, "MembersUnreachable", message)
        }
        (Phase::Parked(by), _) => {
            let by = by.map(|pair| format!(" {pair}")).unwrap_or_default();
            let message = format!(
                "a newer engine{by} owns the slices; this one was {} and does nothing more: delete its pod",
                engine.pair()
            );
            (EngineState::Parked, "Fenced", message)
        }
        _ => starts(engine, state),
    }
}

fn serves(engine: &Engine, state: Option<&State>) -> (EngineState, &'static str, String) {
    let record = state.and_then(|state| state.record.as_ref());
    let out = record.map_or(0, |record| record.out_of_sync.len());
    if let Some(least) = engine.too_small() {
        let message = format!(
            "a slice has {least} bytes, the volume shall have {}: serves {} until its drive tells that it has grown",
            engine.document().size,
            engine.size()
        );
        return (EngineState::Serving, "SliceTooSmall", message);
    }
    let loss = record.and_then(|record| record.loss);
    let untold = engine.admitted().iter();
    let untold = untold.filter(|host| Some(host.generation) <= loss);
    let untold: Vec<_> = untold.map(|host| host.attachment.as_str()).collect();
    if !untold.is_empty() {
        let message = format!(
            "serves with fence {}, but all members have lost writes that were acknowledged and not flushed: \
             Flush and FUA of {} fail until what uses the volume is ended and attached anew",
            engine.pair(),
            untold.join(", ")
        );
        return (EngineState::Serving, "WritesLost", message);
    }
    if out == 0 {
        let message = format!("serves with fence {}", engine.pair());
        return (EngineState::Serving, "Serving", message);
    }
    let names = record.into_iter().flat_map(|record| &record.out_of_sync);
    let names: Vec<_> = names.map(|out| name(engine, out.slice)).collect();
    let message = format!(
        "serves with fence {} and {out} member fewer: {} is brought up to date when its drive answers",
        engine.pair(),
        names.join(", ")
    );
    (EngineState::Serving, "Degraded", message)
}

fn starts(engine: &Engine, state: Option<&State>) -> (EngineState, &'static str, String) {
    let named = |slices: &[SliceUid]| {
        let names: Vec<_> = slices.iter().map(|slice| name(engine, *slice)).collect();
        names.join(", ")
    };
    let outdated = |known| {
        let message = format!(
            "the document at hand has generation {}, the slices have recorded {known}: admits nobody until a document of generation {known} or later is put",
            engine.document().generation
        );
        ("DocumentOutdated", message)
    };
    let served = state.filter(|state| state.phase == Membership::Serving);
    if let Some(known) = served.and_then(|state| state.outdated) {
        let (reason, message) = outdated(known);
        return (EngineState::Starting, reason, message);
    }
    let (reason, message) = match state.map(|state| &state.phase) {
        Some(Membership::Inspecting(Obstacle::Outdated(known))) => outdated(*known),
        None | Some(Membership::Inspecting(Obstacle::None)) => {
            ("Inspecting", "asks the slices what they have".to_owned())
        }
        Some(Membership::Inspecting(Obstacle::NoMajority(slices))) => {
            let slices = named(slices);
            (
                "NoMajority",
                format!("no majority of the slices answers; waits for {slices}"),
            )
        }
        Some(Membership::Inspecting(Obstacle::NoLeader(slices))) => {
            let slices = named(slices);
            (
                "NoLeader",
                format!("no slice that answers has all writes; waits for one of {slices}"),
            )
        }
        Some(Membership::Inspecting(Obstacle::NotFormed(slices))) => {
            let slices = named(slices);
            (
                "NotFormed",
                format!("slices are empty that should not be, or do not answer: {slices}"),
            )
        }
        Some(Membership::Fencing) => ("Fencing", format!("raises the fence to {}", engine.pair())),
        Some(_) => ("Recording", "puts its record in force".to_owned()),
    };
    (EngineState::Starting, reason, message)
}

fn away(engine: &Engine, state: Option<&State>) -> String {
    let is_there = |slice| state.is_some_and(|state| state.wires.contains_key(&slice));
    let slices = engine.document().stack.slices();
    let away = slices.iter().filter(|member| !is_there(member.slice));
    let names: Vec<_> = away.map(|member| describe(member)).collect();
    names.join(", ")
}

fn name(engine: &Engine, slice: SliceUid) -> String {
    let slices = engine.document().stack.slices();
    let member = slices.into_iter().find(|member| member.slice == slice);
    member.map_or_else(|| format!("slice {slice}"), describe)
}

fn describe(member: &SliceMember) -> String {
    format!(
        "slice {} on drive {} at {}",
        member.slice, member.drive_name, member.address
    )
}

pub fn drives(engine: &Engine, state: &State) -> Vec<DriveWire> {
    let slices = engine.document().stack.slices();
    let wire = |member: &SliceMember| {
        let wire = state.wires.get(&member.slice);
        DriveWire {
            slice: member.slice,
            drive_name: member.drive_name.clone(),
            connected: wire.is_some(),
            address: member.address,
            local: wire.map(|wire| wire.local),
            seen_by_drive: wire.map(|wire| wire.seen_by_drive),
            identity: wire.map(|wire| wire.identity.clone()),
            reason: String::new(),
        }
    };
    slices.into_iter().map(wire).collect()
}

pub fn members(engine: &Engine, state: &State) -> Vec<MemberStatus> {
    let Some(record) = &state.record else {
        return Vec::new();
    };
    let current = record
        .in_sync
        .iter()
        .map(|one| (one.slice, MemberState::Current));
    let rebuilding = record
        .out_of_sync
        .iter()
        .map(|one| (one.slice, MemberState::Rebuilding));
    let status = |(slice, state)| MemberStatus { slice, state };
    let mut members: Vec<_> = current.chain(rebuilding).map(status).collect();
    let wanted = engine.document().stack.slices();
    // A vote that is still needed: whoever has it may not be deleted yet.
    for voter in record.voters.iter().chain(&record.old_voters).copied() {
        let known = members.iter().any(|member| member.slice == voter);
        if !known && wanted.iter().all(|member| member.slice != voter) {
            members.push(status((voter, MemberState::Retired)));
        }
    }
    members
}
