//! What the membership asks for, done.

use super::assembly::{Assembly, End, Happened};
use super::weave::{REGION, spans};
use super::{attempts, link};
use crate::layers::mirror::{ComposeError, Hold, Mirror, Span};
use crate::membership::{self, Access, Action, Event, Region, Testimony};
use crate::network::{Association, Network};
use crate::rebuild::{Frontier, Limits, Options, Rebuild, RemoteSlice, Slice, Source};
use crate::slice_link::canonical;
use crate::way::Way;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use weft_block::Disk;
use weft_spec::drive::{Config, RecordSwap};
use weft_spec::ids::{FencePair, SliceUid};
use weft_transport::Probe;

/// How soon a member that says nothing is noticed while nobody asks it for anything.
const KEEP_ALIVE_MS: u32 = 5000;
/// And while it is asked: in less than two seconds, in which hosts wait. One that answers a
/// keep-alive is waited for, however slow its disk is.
const PROBE: Probe = Probe {
    quiet: Duration::from_millis(400),
    answer: Duration::from_millis(1000),
};

impl Assembly {
    /// In their order. What follows at once from one of them comes after all.
    pub(super) fn perform(&mut self, actions: Vec<Action>) {
        let mut left = std::collections::VecDeque::from(actions);
        while let Some(action) = left.pop_front() {
            left.extend(self.act(action));
        }
        left.extend(self.weave());
        if !left.is_empty() {
            return self.perform(left.into());
        }
        self.publish();
    }

    fn act(&mut self, action: Action) -> Vec<Action> {
        match action {
            Action::Inspect(slice) => self.inspect(slice),
            Action::Connect(slice, pair) => self.connect(slice, pair),
            Action::Put(slice, swap) => self.put(slice, *swap),
            Action::Mark(slice, generation) => self.over(slice, move |disk| async move {
                link::mark(&*disk, generation).await?;
                Ok(Event::Marked(slice, generation))
            }),
            Action::Flush(slice) => self.over(slice, move |disk| async move {
                disk.flush().await?;
                Ok(Event::Flushed(slice))
            }),
            Action::Drain(survivors) => self.drain(&survivors),
            Action::Adopt(view) => {
                self.rebuilds.clear();
                self.weave.adopt(view);
            }
            Action::Equalise(regions) => self.weave.unequal(regions),
            Action::Reconnected(_) => self.weave.again(),
            Action::Rebuild(rebuild) => self.rebuild(rebuild),
            Action::Access(access) => self.access(access),
            // Who may not be is not composed: another record is on its way.
            Action::Read(members) => self.readers = members.into_iter().collect(),
            Action::Admit(generation) => self.admitted = Some(generation),
            Action::Park => {
                // From here on no answer leaves.
                self.fenced.cancel();
                self.state
                    .send_modify(|state| state.end = Some(End::Parked));
            }
            Action::StartAgain => self.state.send_modify(|state| state.end = Some(End::Again)),
        }
        Vec::new()
    }

    fn inspect(&mut self, slice: SliceUid) {
        let (ways, network) = (self.ways.subscribe(), self.network.clone());
        self.wait_for(slice, async move {
            let inspection = |way| inspected(network.clone(), way);
            let testimony = attempts::until(slice, ways, inspection).await;
            Happened::Event(Event::Inspected(slice, testimony))
        });
    }

    fn connect(&mut self, slice: SliceUid, pair: FencePair) {
        let (ways, network) = (self.ways.subscribe(), self.network.clone());
        self.wait_for(slice, async move {
            let connection = |way| connected(network.clone(), way, pair);
            attempts::until(slice, ways, connection).await
        });
    }

    /// One at a time for each slice: the newer one counts.
    fn wait_for(&mut self, slice: SliceUid, what: impl Future<Output = Happened> + Send + 'static) {
        let task = self.tasks.spawn(what);
        if let Some(older) = self.waits.insert(slice, task) {
            older.abort();
        }
    }

    fn put(&mut self, slice: SliceUid, swap: RecordSwap) {
        self.over(slice, move |disk| async move {
            link::put_record(&*disk, &swap).await?;
            Ok(Event::Recorded(slice))
        });
    }

    /// Does something over the association of a slice. Without one there is no answer: whoever
    /// asked has been told, or will be, that it is lost.
    fn over<F>(&mut self, slice: SliceUid, what: impl FnOnce(Arc<dyn Association>) -> F)
    where
        F: Future<Output = Result<Event, weft_block::DiskError>> + Send + 'static,
    {
        let Some(link) = self.links.get(&slice) else {
            return;
        };
        let (done, serial) = (what(link.slice.disk().clone()), link.serial);
        self.tasks
            .spawn(async move { Happened::Done(slice, serial, done.await) });
    }
}

impl Assembly {
    /// New changes wait; who is not named is waited for no longer.
    fn drain(&mut self, survivors: &[SliceUid]) {
        self.weave.forget();
        self.mirror.hold(Hold::Changes);
        let left = self.weave.members().iter();
        left.filter(|slice| !survivors.contains(slice))
            .for_each(|slice| self.mirror.give_up(*slice));
        self.is_draining = true;
    }

    /// The slice gets changes from the next composition on; what it lacks is copied then.
    fn rebuild(&mut self, rebuild: membership::Rebuild) {
        self.weave.add(rebuild.target);
        self.rebuilds.push(rebuild);
    }

    fn begin_rebuilds(&mut self) {
        for wanted in std::mem::take(&mut self.rebuilds) {
            let slice = wanted.target;
            let Some(target) = self.asked(slice) else {
                continue;
            };
            tracing::info!(%slice, since = wanted.since.0, "brings a slice up to date");
            let options = Options {
                target: slice,
                disk: target.disk().clone(),
                asked: target,
                sources: self.sources(),
                limits: Limits::default(),
            };
            let frontier = match wanted.since {
                Config(0) => Frontier::full(),
                since => Frontier::new(since),
            };
            let rebuild = Rebuild::new(self.mirror.clone(), options, frontier);
            let copied = self.copied(slice);
            self.tasks.spawn(async move {
                let done = rebuild.run().await;
                if let Err(error) = &done {
                    let cause = error.source().map(ToString::to_string);
                    tracing::warn!(%slice, %error, cause, "not brought up to date");
                }
                Happened::Rebuilt(slice, copied, done.is_ok())
            });
        }
    }

    /// Current members that can be asked, who leads first.
    fn sources(&self) -> Vec<Source> {
        let mut members = self.weave.members().to_vec();
        members.sort_by_key(|slice| Some(*slice) != self.weave.leader());
        let source = |slice| {
            let asked = self.asked(slice)?;
            Some(Source { slice, asked })
        };
        members.into_iter().filter_map(source).collect()
    }

    fn access(&mut self, access: Access) {
        let is_paused = access == Access::Paused;
        if is_paused {
            self.mirror.hold(Hold::Everything);
        } else if self.is_paused {
            // What was held begins again with a composition, be it the same.
            self.weave.again();
        }
        self.is_paused = is_paused;
    }

    /// Makes the mirror what is wanted, as soon as it has drained.
    fn weave(&mut self) -> Vec<Action> {
        if self.is_draining || self.weave.is_wanted() {
            self.mirror.hold(Hold::Changes);
        }
        if !self.is_drained() {
            return Vec::new();
        }
        if std::mem::take(&mut self.is_draining) {
            return self.membership.step(Event::Drained);
        }
        self.compose()
    }

    fn compose(&mut self) -> Vec<Action> {
        let disks = self.links.iter();
        let disks: BTreeMap<_, Arc<dyn Disk>> = disks
            .map(|(slice, link)| (*slice, link.slice.disk().clone() as Arc<dyn Disk>))
            .collect();
        let Some((composition, unequal)) = self.weave.take(&disks, &self.readers) else {
            return Vec::new();
        };
        let sizes = composition.in_sync.iter().map(|member| member.disk.size());
        let size = sizes.min().unwrap_or(0);
        let spans: Vec<Span> = spans(&unequal, size).collect();
        match self.mirror.compose(composition, spans) {
            Ok(()) => self.composed(unequal, size),
            // Who ends too soon or has missed something is no member: it has to be brought up to date.
            Err(ComposeError::TooSmall(slice) | ComposeError::Missed(slice)) => {
                let mut actions = self.lose(slice);
                actions.extend(self.membership.step(Event::GivenUp(slice)));
                return actions;
            }
            Err(ComposeError::Fenced) => {}
            Err(error) => tracing::error!(%error, "the membership has asked for what cannot be"),
        }
        Vec::new()
    }

    fn composed(&mut self, unequal: Vec<Region>, size: u64) {
        self.is_resending = true;
        if self.is_paused {
            self.mirror.hold(Hold::Everything);
        }
        self.begin_rebuilds();
        if !unequal.is_empty() {
            let members = self.weave.members().iter();
            let members = members.filter_map(|slice| self.asked(*slice)).collect();
            let equal = make_equal(self.mirror.clone(), members, unequal, size);
            self.tasks.spawn(equal);
        }
    }

    fn asked(&self, slice: SliceUid) -> Option<Arc<RemoteSlice>> {
        self.links.get(&slice).map(|link| link.slice.clone())
    }
}

/// Makes regions equal and lets their drives forget that they might differ. With each kept for the
/// moment: a change that only some of the members have would else be forgotten.
async fn make_equal(
    mirror: Arc<Mirror>,
    members: Vec<Arc<RemoteSlice>>,
    regions: Vec<Region>,
    size: u64,
) -> Happened {
    while mirror.make_equal().await {}
    for region in regions {
        let Some(span) = spans(&[region], size).next() else {
            continue;
        };
        let _kept = mirror.keep(span).await;
        if let Err(error) = mirror.flush().await {
            tracing::warn!(%error, "regions made equal are not durable; they stay hot");
            break;
        }
        for member in &members {
            // One that does not hear it keeps the region hot, which costs time at its next start.
            if let Err(error) = member.equal(&[region]).await {
                tracing::debug!(%error, "a region stays hot");
            }
        }
    }
    Happened::Equal
}

async fn inspected(network: Arc<dyn Network>, way: Way) -> Option<Testimony> {
    let inspection = link::inspect(&*network, &way).await;
    inspection
        .inspect_err(|error| tracing::debug!(slice = %way.member.slice, %error, "no inspection"))
        .ok()
}

/// An association as the engine of that pair, or what the drive that refuses it says.
async fn connected(network: Arc<dyn Network>, way: Way, pair: FencePair) -> Option<Happened> {
    let slice = way.member.slice;
    let mut options = way.as_engine(pair);
    options.keep_alive_ms = KEEP_ALIVE_MS;
    options.probe = Some(PROBE);
    match network.connect(options).await {
        Ok(disk) => {
            let asked = Arc::new(RemoteSlice::new(disk, REGION));
            let (testimony, peer) = link::testify(&way, &asked).await.ok()?;
            Some(Happened::Connected(
                slice,
                asked,
                testimony,
                canonical(peer),
            ))
        }
        Err(error) if error.is_invalid_host() => {
            let testimony = inspected(network, way).await?;
            Some(Happened::Event(Event::Refused(slice, testimony)))
        }
        Err(error) => {
            tracing::debug!(%slice, %error, "not connected");
            None
        }
    }
}
