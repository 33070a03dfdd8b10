//! Blocks that are known to be wrong stay so over the death of the process, whatever else is
//! written beside them, until they are written.

use super::*;
use weft_block::{FaultMedium, Harm, Operation};

/// Blocks 0 to 3 written and folded: their region is cold.
async fn cold(medium: &Arc<dyn Medium>) -> (Arc<Store>, Arc<Slice>) {
    let store = open(medium).unwrap();
    let made = store.allocate(SliceUid::random(), request(BLOCKS));
    let slice = made.await.unwrap();
    check_write(&store, &slice, 0, 1, 4).await;
    store.log(Wanted::Fold).await.unwrap();
    (store, slice)
}

/// The process dies, and the next one opens the store.
async fn die(
    medium: &Arc<dyn Medium>,
    store: Arc<Store>,
    slice: Arc<Slice>,
) -> (Arc<Store>, Arc<Slice>) {
    let uid = slice.uid();
    drop(slice);
    end(store).await;
    let store = open(medium).unwrap();
    let slice = store.slice(uid).unwrap();
    (store, slice)
}

/// The tag of a block; none of one that is not whole.
async fn read(store: &Arc<Store>, slice: &Arc<Slice>, block: u64) -> Result<Option<u8>, ErrorKind> {
    let mut bytes = BytesMut::zeroed(BLOCK as usize);
    let read = store.read(slice, block * BLOCK, &mut bytes, ()).await;
    read.map_err(|error| error.kind())?;
    let tag = bytes[0];
    Ok((bytes == tagged(u32::from(tag), 1)).then_some(tag))
}

/// Block 1 is wrong and was found so. Its region becomes hot, and two processes die.
async fn stays_wrong_until_written(medium: &Arc<dyn Medium>, store: Arc<Store>, slice: Arc<Slice>) {
    check_write(&store, &slice, 2 * BLOCK, 7, 1).await;
    let (store, slice) = die(medium, store, slice).await;
    assert_eq!(read(&store, &slice, 1).await, Err(ErrorKind::MediaRead));
    assert_eq!(read(&store, &slice, 2).await, Ok(Some(7)));
    store.log(Wanted::Fold).await.unwrap();
    check_write(&store, &slice, 3 * BLOCK, 8, 1).await;
    let (store, slice) = die(medium, store, slice).await;
    assert_eq!(read(&store, &slice, 1).await, Err(ErrorKind::MediaRead));
    // Not flushed by anyone who writes it.
    check_write(&store, &slice, BLOCK, 9, 1).await;
    let (store, slice) = die(medium, store, slice).await;
    assert_eq!(read(&store, &slice, 1).await, Ok(Some(9)));
    for (block, tag) in [(0, 1), (2, 7), (3, 8)] {
        assert_eq!(read(&store, &slice, block).await, Ok(Some(tag)));
    }
    drop(slice);
    end(store).await;
}

#[tokio::test]
async fn what_a_reader_found_wrong_is_not_made_right_by_a_death() {
    let memory = Arc::new(MemoryDisk::new(SMALLEST));
    let medium: Arc<dyn Medium> = memory.clone();
    let (store, slice) = cold(&medium).await;
    let at = store.geometry.data_start + BLOCK;
    let mut torn = BytesMut::zeroed(BLOCK as usize);
    memory.read_at(at, &mut torn).unwrap();
    torn[512..].fill(3);
    memory.write_at(at, &torn, Write::Cached).unwrap();
    assert_eq!(read(&store, &slice, 1).await, Err(ErrorKind::MediaRead));
    stays_wrong_until_written(&medium, store, slice).await;
}

#[tokio::test]
async fn what_a_failed_write_has_torn_is_not_made_right_by_a_death() {
    let faulty = Arc::new(FaultMedium::new(Arc::new(MemoryDisk::new(SMALLEST))));
    let medium: Arc<dyn Medium> = faulty.clone();
    let (store, slice) = cold(&medium).await;
    let at = store.geometry.data_start + BLOCK;
    faulty.script(move |request| {
        let hit = request.operation == Operation::Write && request.offset == at;
        if hit {
            Harm::ShortAndTold(512)
        } else {
            Harm::None
        }
    });
    let write = store.write(
        &slice,
        BLOCK,
        tagged(5, 1),
        Write::Cached,
        Carried::default(),
        (),
    );
    assert_eq!(write.await.unwrap_err().kind(), ErrorKind::MediaWrite);
    faulty.heal();
    // Nobody reads it before the process dies.
    stays_wrong_until_written(&medium, store, slice).await;
}
