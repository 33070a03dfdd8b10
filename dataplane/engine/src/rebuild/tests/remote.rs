//! A slice asked over a socket answers as the store does.

use super::support::*;
use crate::layers::mirror::*;
use crate::rebuild::*;
use async_trait::async_trait;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;
use weft_block::{Disk, ErrorKind};
use weft_drive::fence::Fence;
use weft_drive::store::REGION;
use weft_drive::vendor::SliceVendor;
use weft_spec::drive::Config;
use weft_transport::{
    Admission, ConnectOptions, ConnectRequest, Events, Export, Gate, Limits as Bounds, Refusal,
    RemoteDisk,
};

/// Admits everybody to one slice.
struct Open(Arc<Stored>);

#[async_trait]
impl Gate for Open {
    async fn connect(&self, request: ConnectRequest) -> Result<Admission, Refusal> {
        let Stored { store, slice, .. } = &*self.0;
        let fence = Arc::new(Fence::default());
        let (association, ended) = fence.admit(PAIR, Arc::new(|| {}));
        let vendor = SliceVendor::new(
            store.clone(),
            slice.clone(),
            Some(association),
            request.peer,
        );
        let export = Export {
            disk: self.0.clone(),
            uuid: slice.uid().0,
            serial: "open".into(),
            first_controller: 1,
            read_only: false,
            events: Events::new(),
            vendor: Some(Arc::new(vendor)),
        };
        Ok(Admission {
            export,
            revoke: CancellationToken::new(),
            ended: Box::new(ended),
        })
    }
}

async fn serve(stored: &Arc<Stored>) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::new(Open(stored.clone()));
    let serving = tokio::spawn(async move {
        weft_transport::serve(listener, gate, Bounds::default())
            .await
            .unwrap();
    });
    (address, AbortOnDropHandle::new(serving))
}

async fn connect(address: SocketAddr) -> Arc<RemoteDisk> {
    let host = format!("nqn.2014-08.org.nvmexpress:uuid:{}", Uuid::from_u128(5));
    let options = ConnectOptions::new(address, "nqn.slice", host, Uuid::from_u128(5));
    Arc::new(RemoteDisk::connect(options).await.unwrap())
}

#[tokio::test]
async fn a_slice_behind_an_association_answers_as_its_store_does() {
    let rig = Rig::new(1, &[0]).await;
    for chunk in (0..CHUNKS).step_by(2) {
        rig.write(chunk, 1).await;
    }
    rig.discard(4, 1).await;
    let stored = &rig.slices[0];
    let (address, _serving) = serve(stored).await;
    let remote = RemoteSlice::new(connect(address).await, REGION);
    let found = remote.changes(Config(1), ChunkIndex(0)).await.unwrap();
    let mut known = stored.changes(Config(1), ChunkIndex(0)).await.unwrap();
    // It answers with fewer at a time.
    while let Some(next) = known.next {
        let more = stored.changes(Config(1), next).await.unwrap();
        known.changed.extend(more.changed);
        known.holes.extend(more.holes);
        known.next = more.next;
    }
    assert_eq!(found, known);
    let first = Region(0);
    assert_eq!(
        remote.hot(first).await.unwrap(),
        stored.hot(first).await.unwrap()
    );
    let span = Span {
        start: CHUNK,
        end: 5 * CHUNK,
    };
    // Questions asked at one time do not take each other's answers.
    let other = Span {
        start: 0,
        end: CHUNK,
    };
    let (hash, another, changes) = tokio::join!(
        remote.hash(span),
        remote.hash(other),
        remote.changes(Config(2), ChunkIndex(0))
    );
    assert_eq!(hash.unwrap(), stored.hash(span).await.unwrap());
    assert_eq!(another.unwrap(), stored.hash(other).await.unwrap());
    assert_eq!(changes.unwrap(), Changes::default());
    let regions = remote.hot(first).await.unwrap().regions;
    remote.equal(&regions).await.unwrap();
    stored.store.close().await.unwrap();
    assert_eq!(remote.hot(first).await.unwrap(), HotRegions::default());
}

#[tokio::test]
async fn a_mirror_of_remote_slices_is_rebuilt_and_a_lost_association_is_a_lost_member() {
    let rig = Rig::new(2, &[0]).await;
    for chunk in [0, 9, 100] {
        rig.write(chunk, chunk as u8 + 1).await;
    }
    let mirror = Arc::new(Mirror::new(CancellationToken::new()));
    let (mut members, mut asked, mut served) = (vec![], vec![], vec![]);
    for stored in &rig.slices {
        let (address, serving) = serve(stored).await;
        let disk = connect(address).await;
        members.push(Member {
            slice: stored.slice.uid(),
            disk: disk.clone(),
        });
        asked.push(Arc::new(RemoteSlice::new(disk.clone(), REGION)));
        served.push((disk, serving));
    }
    let compose = |config, in_sync: &[Member], targets: &[Member]| {
        let composition = Composition {
            config: Config(config),
            in_sync: in_sync.to_vec(),
            targets: targets.to_vec(),
            leader: members[0].slice,
        };
        mirror.compose(composition, []).unwrap();
    };
    compose(2, &members[..1], &members[1..]);
    let options = Options {
        disk: members[1].disk.clone(),
        asked: asked[1].clone(),
        sources: vec![Source {
            slice: members[0].slice,
            asked: asked[0].clone(),
        }],
        ..rig.options(1, &[0])
    };
    let rebuild = Rebuild::new(mirror.clone(), options, Frontier::full());
    rebuild.run().await.unwrap();
    rig.assert_equal(0, 1).await;
    mirror.hold(Hold::Changes);
    compose(3, &members, &[]);
    mirror.discard(0, CHUNK).await.unwrap();
    rig.assert_equal(0, 1).await;
    served[1].0.disconnect().await;
    let flush = tokio::spawn({
        let mirror = mirror.clone();
        async move { mirror.flush().await }
    });
    let mut report = mirror.report();
    let drained = report.wait_for(|report| report.flow == Flow::Drained);
    assert_eq!(drained.await.unwrap().failed[0].failure, Failure::Lost);
    compose(4, &members[..1], &[]);
    flush.await.unwrap().unwrap();
    let gone = asked[1]
        .changes(Config(1), ChunkIndex(0))
        .await
        .unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Gone);
}
