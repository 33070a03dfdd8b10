//! Figures that decide the size of a region: what a heat-up costs, and what a hot region costs
//! after an unclean end. Printed, not asserted: `cargo test -p weft-drive measure -- --ignored`.

use super::*;
use std::time::Instant;
use weft_block::{FileMedium, Io};

const SIZE: u64 = 512 << 20;
const HEATS: u64 = 64;

#[test]
#[ignore = "prints figures, on the disk of the temporary directory"]
fn what_a_region_costs() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = place.path().join("medium");
    let mut medium = FileMedium::open_file(&path, SIZE, Io::Auto, || ()).unwrap();
    medium.extend(SIZE).unwrap();
    let medium: Arc<dyn Medium> = Arc::new(medium);
    run(async {
        let store = open(&medium).unwrap();
        let slice = store
            .allocate(SliceUid::random(), request((HEATS + 1) * REGION / BLOCK))
            .await
            .unwrap();
        for region in 0..HEATS {
            let data = tagged(1, REGION / BLOCK);
            put(&store, &slice, region * REGION, data).await.unwrap();
        }
        store.log(Wanted::Fold).await.unwrap();
        let each = |round: u32| {
            let (store, slice) = (store.clone(), slice.clone());
            async move {
                let started = Instant::now();
                for region in 0..HEATS {
                    check_write(&store, &slice, region * REGION, round, 1).await;
                }
                started.elapsed() / HEATS as u32
            }
        };
        let (cold, hot) = (each(2).await, each(3).await);
        println!("a write and a read of a block: {cold:?} in a cold region, {hot:?} in a hot one");
        drop(slice);
        end(store).await;
        let started = Instant::now();
        let store = open_after(&medium, AFTER_CUT).unwrap();
        let took = started.elapsed();
        println!("opening with {HEATS} hot regions of {REGION} bytes: {took:?}");
        drop(store);
    });
}
