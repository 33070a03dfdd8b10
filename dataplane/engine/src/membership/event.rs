//! What the membership is told and what it asks for.

use uuid::Uuid;
use weft_spec::drive::{Config, RecordSwap, SliceRecord};
use weft_spec::ids::{AttachGeneration, DocumentGeneration, FencePair, SliceUid, Term, VolumeUid};

/// Number of a region of the volume, as the drives count them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Region(pub u32);

/// What the document of the engine says of the volume's slices.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Assignment {
    /// The volume.
    pub volume: VolumeUid,
    /// The pod's term.
    pub term: Term,
    /// Of the document.
    pub generation: DocumentGeneration,
    /// Greatest generation of the attachments that the document admits.
    pub attachments: AttachGeneration,
    /// The volume has had a record: empty slices are never taken for a new one.
    pub formed: bool,
    /// The lineage that a volume is formed with.
    pub lineage: Uuid,
    /// Slices that hold the data.
    pub data: Vec<SliceUid>,
    /// Slices that shall vote, witnesses among them; an odd number.
    pub voters: Vec<SliceUid>,
    /// A person's word to go on from one slice, whatever is lost by it.
    pub recovery: Option<Recovery>,
}

/// Forced recovery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Recovery {
    /// The slice to go on from.
    pub from: SliceUid,
    /// The lineage that begins with it. Done once a record of it is there, so that a document that
    /// still has the word does nothing more.
    pub lineage: Uuid,
}

/// What a slice says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Testimony {
    /// Greatest pair heard.
    pub fence: FencePair,
    /// Its record.
    pub record: Option<SliceRecord>,
    /// Of its drive.
    pub incarnation: Uuid,
    /// Its hot set.
    pub hot: Vec<Region>,
    /// Greatest generation of the engine's document made durable there.
    pub generation: DocumentGeneration,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// A slice answered an inspection, which raises nothing.
    Inspected(SliceUid, Testimony),
    /// The Connect is done: the pair is durable at the drive and older ones are drained. What the
    /// slice says was read after that.
    Promised(SliceUid, Testimony),
    /// The drive refused the Connect; what an inspection said after that.
    Refused(SliceUid, Testimony),
    /// The association is lost, and each command on it without an answer.
    Lost(SliceUid),
    /// There was no association for as long as a member may be waited for. Comes after
    /// [`Event::Lost`], or instead of an answer to the first inspection or Connect.
    GivenUp(SliceUid),
    /// A command was refused because a newer pair is in force.
    Fenced(SliceUid),
    /// The record asked for is durable at the slice.
    Recorded(SliceUid),
    /// The document's generation is durable at the slice.
    Marked(SliceUid, DocumentGeneration),
    /// No write is in flight at any of the slices that [`Action::Drain`] named.
    Drained,
    /// Every write that [`Action::Adopt`] had to send again is acknowledged by all members.
    Resent,
    /// The slice has every chunk that [`Action::Rebuild`] asked for.
    Rebuilt(SliceUid),
    /// The Flush that [`Action::Flush`] asked for is done.
    Flushed(SliceUid),
    /// A newer document is at hand.
    Assigned(Assignment),
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Inspect the slice until it answers.
    Inspect(SliceUid),
    /// Connect to the slice as this pair until that is promised or refused.
    Connect(SliceUid, FencePair),
    /// Put the record at the slice, over its association.
    Put(SliceUid, Box<RecordSwap>),
    /// Make the generation durable at the slice.
    Mark(SliceUid, DocumentGeneration),
    /// Begin no write; nothing is written any more to slices that are not named, and what they still
    /// answer, refusals among it, counts for nothing. Answered by
    /// [`Event::Drained`], unless a later one or [`Action::Adopt`] takes its place.
    Drain(Vec<SliceUid>),
    /// Flush the slice, after everything that was written to it.
    Flush(SliceUid),
    /// This is in force: send again, to all its members and under its config, each write that one
    /// of the members before has not acknowledged. Answered by [`Event::Resent`], unless a Drain
    /// takes its place.
    Adopt(View),
    /// The slice is connected again and has lost nothing: send it again what it has not answered.
    Reconnected(SliceUid),
    /// These regions may differ between the members: make each equal from the leader, under the
    /// config in force, before anything of it is read.
    Equalise(Vec<Region>),
    /// Write to the slice too, and bring it up to date.
    Rebuild(Rebuild),
    /// What hosts may do has changed.
    Access(Access),
    /// These members may be read, and no others: comes before anything is done over an association
    /// that a step has told of.
    Read(Vec<SliceUid>),
    /// The hosts of this document, and no others, may connect.
    Admit(DocumentGeneration),
    /// Answer nobody any more, and exit so that nothing starts this engine again.
    Park,
    /// Exit so that the engine is started again in its pod.
    StartAgain,
}

/// The in-sync set in force, as the mirror needs it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct View {
    /// Carried by each write.
    pub config: Config,
    /// Members, each of which has every acknowledged write.
    pub in_sync: Vec<SliceUid>,
    /// The member that regions are made equal from.
    pub leader: SliceUid,
    /// Flush and FUA of hosts admitted with this generation or an earlier one get a write fault.
    pub loss: Option<AttachGeneration>,
}

/// How a slice is brought up to date.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rebuild {
    /// The slice.
    pub target: SliceUid,
    /// It lacks what was changed under this config or a later one. 0: it is emptied, before
    /// anything else is written to it, and gets everything.
    pub since: Config,
    /// It may lack anything in these regions.
    pub hot: Vec<Region>,
}

/// What hosts may do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Nothing: hosts wait. An answer to a read that comes now is not passed on.
    Paused,
    /// Read; writes and Flushes wait.
    Held,
    /// Read, write and Flush.
    Open,
}
