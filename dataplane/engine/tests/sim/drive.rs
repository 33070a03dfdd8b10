//! A drive: a medium, and the process that serves its one slice with the real store behind the real
//! gate. It is started again by its supervisor when it dies or cannot go on.

use crate::lies::{Lie, LyingGate};
use crate::medium::{Open, PAGE, Platter};
use crate::network::{Listener, Network};
use crate::oracle::Oracle;
use crate::target::Watch;
use crate::world::{Place, World, say};
use bytes::BytesMut;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::Medium;
use weft_drive::gate::{SliceGate, Slices};
use weft_drive::store::{Breakage, Opening, Store};
use weft_drive::superblock::{CHUNK, Copies, Geometry, SMALLEST, Superblock};
use weft_spec::drive::SliceRequest;
use weft_spec::engine::SliceMember;
use weft_spec::ids::{ClusterUid, DriveUid, SliceUid, Term, VolumeUid};
use weft_spec::keys::Key;
use weft_transport::Gate;

/// Bytes of the volume: eight regions.
pub const SIZE: u64 = 8 << 20;
/// Bytes of a witness.
const WITNESS: u64 = 16 << 10;
pub const VOLUME: VolumeUid = VolumeUid(Uuid::from_u128(0x700));
/// Before a process that ended is there again, if nothing else is said.
const RESTART: Duration = Duration::from_millis(100);
/// Before a medium that did not open is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Drive {
    number: usize,
    pub place: Place,
    world: Arc<World>,
    network: Arc<Network>,
    platter: Arc<Mutex<Platter>>,
    state: Mutex<State>,
    lie: Lie,
    oracle: Arc<Oracle>,
}

#[derive(Default)]
struct State {
    /// Of the machine's kernel.
    boot: u128,
    /// Starts that were asked for: a later one takes the place of an earlier one.
    starts: u64,
    process: Option<Process>,
    /// How often acknowledged bytes may have gone.
    losses: u64,
}

/// The process that has the medium open.
#[derive(Clone)]
struct Process {
    medium: Arc<Open>,
    store: Arc<Store>,
    death: CancellationToken,
    is_silent: Arc<AtomicBool>,
}

fn slice_of(number: usize) -> SliceUid {
    SliceUid(Uuid::from_u128(0x500 + number as u128))
}

fn key_of(number: usize) -> Key {
    Key::from_bytes([number as u8 + 1; 32])
}

impl Drive {
    /// With a formatted medium and an empty slice; its process is started.
    pub fn new(
        number: usize,
        is_witness: bool,
        lie: Lie,
        world: Arc<World>,
        network: Arc<Network>,
        oracle: Arc<Oracle>,
    ) -> Arc<Self> {
        let drive = Arc::new(Self {
            number,
            place: Place::drive(number),
            world,
            network,
            platter: Arc::new(Mutex::new(formatted(number, is_witness))),
            state: Mutex::default(),
            lie,
            oracle,
        });
        drive.start();
        drive
    }

    pub fn slice(&self) -> SliceUid {
        slice_of(self.number)
    }

    /// As a document of this term names it.
    pub fn member(&self, term: Term) -> SliceMember {
        SliceMember {
            slice: self.slice(),
            drive: drive_of(self.number),
            drive_name: format!("d{}", self.number),
            address: crate::network::address(self.place),
            key: key_of(self.number).slice(self.slice(), term),
        }
    }

    /// Starts the process, if nothing runs.
    pub fn start(self: &Arc<Self>) {
        let mut state = self.state.lock().unwrap();
        if state.process.is_some() {
            return;
        }
        match self.open(state.boot) {
            Ok(process) => {
                say!(self.world, "drive {} serves", self.number);
                state.process = Some(process.clone());
                drop(state);
                tokio::spawn(self.clone().watch(process));
            }
            Err(why) => {
                say!(self.world, "drive {} does not open: {why}", self.number);
                drop(state);
                self.start_after(RETRY);
            }
        }
    }

    fn open(self: &Arc<Self>, boot: u128) -> Result<Process, String> {
        let death = CancellationToken::new();
        let medium = Arc::new(Open::new(
            self.platter.clone(),
            self.world.clone(),
            death.clone(),
            geometry().data_start,
        ));
        let as_medium: Arc<dyn Medium> = medium.clone();
        let found = Superblock::read(&*as_medium).map_err(|error| error.to_string())?;
        let Copies::Good(superblock) = found else {
            panic!("drive {} has lost its superblock", self.number);
        };
        let opening = Opening {
            session: Uuid::from_u128(boot + 1),
            atomic: !self.world.tears(),
            breakage: Breakage::NONE,
        };
        let store = Store::open(as_medium, superblock, opening);
        let store = store.map_err(|error| format!("{error:?}"))?;
        let slices = Slices::new(store.clone(), key_of(self.number));
        let is_silent = Arc::new(AtomicBool::new(false));
        let gate: Arc<dyn Gate> = Arc::new(SliceGate(slices));
        self.network.listen(Listener {
            gate: LyingGate::around(gate, self.lie, store.clone(), self.slice()),
            place: self.place,
            death: death.clone(),
            is_silent: is_silent.clone(),
            watch: Arc::new(Watch::new(self.oracle.clone())),
        });
        Ok(Process {
            medium,
            store,
            death,
            is_silent,
        })
    }

    /// A process whose store fails ends, and is started again; so is one that has died at its medium.
    async fn watch(self: Arc<Self>, process: Process) {
        let mut failure = process.store.failure();
        let failed = async {
            let _ = failure.wait_for(Option::is_some).await;
        };
        tokio::select! {
            biased;
            () = process.death.cancelled() => {}
            () = failed => {
                say!(self.world, "drive {} cannot record", self.number);
                self.end();
                self.state.lock().unwrap().losses += 1;
                self.start_after(RESTART);
            }
        }
    }

    /// The process is gone. False if there was none.
    fn end(&self) -> bool {
        let process = self.state.lock().unwrap().process.take();
        if let Some(process) = &process {
            process.medium.die();
        }
        process.is_some()
    }

    fn start_after(self: &Arc<Self>, time: Duration) {
        let mut state = self.state.lock().unwrap();
        state.starts += 1;
        let (drive, start) = (self.clone(), state.starts);
        tokio::spawn(async move {
            sleep(time).await;
            if drive.state.lock().unwrap().starts == start {
                drive.start();
            }
        });
    }

    /// The process dies, and is there again after a time.
    pub fn kill(self: &Arc<Self>, back: Duration) {
        say!(self.world, "drive {} is killed", self.number);
        self.end();
        self.start_after(back);
    }

    /// The process dies in the middle of what it does at its medium.
    pub fn kill_within(self: &Arc<Self>, requests: u64, back: Duration) {
        let process = self.state.lock().unwrap().process.clone();
        let Some(Process { medium, death, .. }) = process else {
            return;
        };
        say!(
            self.world,
            "drive {} dies after {requests} requests",
            self.number
        );
        medium.die_after(requests);
        let drive = self.clone();
        tokio::spawn(async move {
            death.cancelled().await;
            let is_this = |process: &Process| Arc::ptr_eq(&process.medium, &medium);
            let mine = drive
                .state
                .lock()
                .unwrap()
                .process
                .as_ref()
                .is_some_and(is_this);
            if mine {
                drive.kill(back);
            }
        });
    }

    /// The machine's power goes.
    pub fn cut_power(self: &Arc<Self>, back: Duration) {
        if let Some(process) = &self.state.lock().unwrap().process {
            process.is_silent.store(true, Relaxed);
        }
        self.end();
        let world = self.world.clone();
        let lost = self
            .platter
            .lock()
            .unwrap()
            .lose_power(world.tears(), &mut |limit| world.below(limit));
        say!(
            self.world,
            "power of drive {} is cut; lost something: {lost}",
            self.number
        );
        let mut state = self.state.lock().unwrap();
        state.boot += 1;
        state.losses += 1;
        drop(state);
        self.start_after(back);
    }

    /// A block of the slice's data becomes unreadable.
    pub fn spoil(&self) {
        let world = self.world.clone();
        let data = geometry().data_start;
        let at = self
            .platter
            .lock()
            .unwrap()
            .spoil(data, &mut |limit| world.below(limit));
        say!(self.world, "drive {} spoils page {at:?}", self.number);
    }

    /// Whether its acknowledged bytes were there all the time.
    pub fn never_lost(&self) -> bool {
        self.state.lock().unwrap().losses == 0
    }

    /// Back as soon as it can be.
    pub fn heal(self: &Arc<Self>) {
        if let Some(process) = &self.state.lock().unwrap().process {
            process.medium.die_after(u64::MAX);
        }
        self.start_after(RESTART);
    }

    pub fn runs(&self) -> bool {
        self.store().is_some()
    }

    fn store(&self) -> Option<Arc<Store>> {
        let state = self.state.lock().unwrap();
        state.process.as_ref().map(|process| process.store.clone())
    }

    /// Every block of the slice as the store gives it; nothing for one that it refuses to give.
    pub async fn blocks(&self) -> Vec<Option<BytesMut>> {
        let store = self.store().expect("the drive runs");
        let slice = store.slice(self.slice()).expect("the slice is there");
        let mut blocks = vec![];
        for chunk in (0..slice.size()).step_by(CHUNK as usize) {
            let mut bytes = BytesMut::zeroed(CHUNK as usize);
            if store.read(&slice, chunk, &mut bytes, ()).await.is_ok() {
                blocks.extend((0..CHUNK as usize / PAGE).map(|_| Some(bytes.split_to(PAGE))));
                continue;
            }
            for block in (chunk..chunk + CHUNK).step_by(PAGE) {
                let mut bytes = BytesMut::zeroed(PAGE);
                let read = store.read(&slice, block, &mut bytes, ()).await;
                blocks.push(read.is_ok().then_some(bytes));
            }
        }
        blocks
    }
}

fn drive_of(number: usize) -> DriveUid {
    DriveUid(Uuid::from_u128(0xd00 + number as u128))
}

fn geometry() -> Geometry {
    Geometry::of(SMALLEST).unwrap()
}

/// A medium with a slice in it, made once for all simulations.
fn formatted(number: usize, is_witness: bool) -> Platter {
    static MADE: [OnceLock<Platter>; 8] = [const { OnceLock::new() }; 8];
    let at = 2 * number + usize::from(is_witness);
    let made = MADE[at].get_or_init(|| {
        // Not on the thread of the simulation, which has a runtime already.
        let format = || format(number, if is_witness { WITNESS } else { SIZE });
        std::thread::scope(|scope| scope.spawn(format).join().unwrap())
    });
    made.clone()
}

fn format(number: usize, size: u64) -> Platter {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::quiet();
        let platter = Arc::new(Mutex::new(Platter::new(SMALLEST)));
        let death = CancellationToken::new();
        let open = Open::new(platter.clone(), world, death, 0);
        let medium: Arc<dyn Medium> = Arc::new(open);
        let cluster = ClusterUid(Uuid::from_u128(0xc1));
        let blank = Superblock::new(drive_of(number), cluster, geometry());
        let blank = blank.write_next(&*medium).unwrap();
        let superblock = blank.write_next(&*medium).unwrap();
        let opening = Opening {
            session: Uuid::from_u128(1),
            atomic: true,
            breakage: Breakage::NONE,
        };
        let store = Store::open(medium.clone(), superblock, opening).unwrap();
        let request = SliceRequest {
            volume: VOLUME,
            size,
            overcommit_percent: 100,
        };
        store.allocate(slice_of(number), request).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        medium.flush().unwrap();
        platter.lock().unwrap().clone()
    })
}
