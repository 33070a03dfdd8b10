//! Tries to reach a slice until it is reached, by the newest way there is.

use crate::pauses::Pauses;
use crate::way::Way;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use weft_spec::ids::SliceUid;

/// Pause before the second attempt in a row, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How each slice of the volume is reached.
pub(super) type Ways = BTreeMap<SliceUid, Way>;

/// Attempts until one has a result. A newer way ends the attempt that is under way: nobody answers any
/// more where a drive has been.
pub(super) async fn until<T, F>(
    slice: SliceUid,
    mut ways: watch::Receiver<Ways>,
    attempt: impl Fn(Way) -> F,
) -> T
where
    F: Future<Output = Option<T>>,
{
    let mut pauses = Pauses::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let (way, pause) = (ways.borrow_and_update().get(&slice).cloned(), pauses.next());
        let once = async {
            sleep(pause).await;
            match way {
                Some(way) => attempt(way).await,
                // No slice of the volume any more.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = once => if let Some(done) = done {
                return done;
            },
            Ok(()) = ways.changed() => pauses.begin_anew(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::net::SocketAddr;
    use uuid::Uuid;
    use weft_spec::engine::SliceMember;
    use weft_spec::ids::{DriveUid, Term, VolumeUid};
    use weft_spec::keys::Key;

    fn ways(slice: SliceUid, port: u16) -> Ways {
        let member = SliceMember {
            slice,
            drive: DriveUid::random(),
            drive_name: "d0".into(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            key: Key::random(),
        };
        let way = Way {
            member,
            volume: VolumeUid::random(),
            term: Term(1),
            process: Uuid::new_v4(),
        };
        BTreeMap::from([(slice, way)])
    }

    #[tokio::test(start_paused = true)]
    async fn a_drive_that_has_moved_is_tried_where_it_is_now() {
        let slice = SliceUid::random();
        let (sender, receiver) = watch::channel(ways(slice, 1));
        let tried = RefCell::new(Vec::new());
        let (sender, tried) = (&sender, &tried);
        let reached = until(slice, receiver, |way: Way| async move {
            let port = way.member.address.port();
            tried.borrow_mut().push(port);
            match port {
                1 => {
                    sender.send_replace(ways(slice, 2));
                    std::future::pending().await
                }
                2 => None,
                _ => Some(port),
            }
        });
        let moves_again = async {
            sleep(LONGEST_PAUSE * 3).await;
            sender.send_replace(ways(slice, 3));
        };
        let (reached, ()) = tokio::join!(reached, moves_again);
        assert_eq!(reached, 3);
        let tried = tried.borrow();
        assert_eq!((tried[0], tried[1]), (1, 2));
        assert!(tried.len() > 4, "{tried:?}");
    }
}
