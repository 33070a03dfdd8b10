//! What engines record at a drive in memory.

use uuid::Uuid;
use weft_spec::drive::{Config, InSync, MemberState, RecordedSlice, SliceRecord, SliceStatus};
use weft_spec::engine::{EngineDocument, SliceMember, Stack};
use weft_spec::ids::{Boot, DocumentGeneration, FencePair, SliceUid};

/// Of one drive.
#[derive(Default)]
pub struct Book {
    generation: DocumentGeneration,
    record: Option<SliceRecord>,
    listed: Vec<SliceUid>,
}

impl Book {
    /// An engine has made this document durable, and of a mirror a record with all members in-sync.
    pub fn write(&mut self, document: &EngineDocument) {
        self.generation = self.generation.max(document.generation);
        let Stack::Mirror(mirror) = &document.stack else {
            return;
        };
        let uid = |member: &SliceMember| member.slice;
        let in_sync = |slice| InSync {
            slice,
            incarnation: Uuid::nil(),
        };
        let voters = mirror.members.iter().chain(&mirror.witnesses).map(uid);
        let fence = FencePair {
            term: document.term,
            boot: Boot(1),
        };
        self.listed = document.stack.slices().into_iter().map(uid).collect();
        self.record = Some(SliceRecord {
            volume: document.volume,
            lineage: mirror.lineage,
            fence,
            config: Config(document.generation.0),
            in_sync: mirror.members.iter().map(uid).map(in_sync).collect(),
            out_of_sync: vec![],
            voters: voters.collect(),
            old_voters: vec![],
            loss: None,
            state: MemberState::Current,
        });
    }

    /// A slice with what is recorded of it.
    pub fn of(&self, status: SliceStatus) -> RecordedSlice {
        let listed = self.listed.contains(&status.slice);
        RecordedSlice {
            document_generation: self.generation,
            record: self.record.clone().filter(|_| listed),
            status,
        }
    }
}
