//! The worker: answers the kernel's requests until the file system is gone.

use crate::files::{self, Node};
use crate::fuse::abi::{
    self, FOPEN_DIRECT_IO, FOPEN_NOFLUSH, FOPEN_PARALLEL_DIRECT_WRITES, O_ACCMODE, O_DSYNC,
};
use crate::fuse::channel::{Answer, Buffer, Channel};
use crate::fuse::request::{Operation, Request};
use crate::path::Path;
use crate::volume::Volume;
use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weft_block::Write;

/// Greatest JSON text that may be written to `path`.
const PATH_LIMIT: usize = 4096;
/// Open files of `status` and `path` whose text is remembered; beyond, a read sees the newest.
const TEXTS: usize = 64;

/// Everything that requests are answered from.
pub struct Worker {
    channel: Channel,
    volume: Arc<Volume>,
    path: Arc<Path>,
    open: Mutex<Open>,
}

/// What is known of files and requests that are open. Lost with the worker, and not missed.
#[derive(Default)]
struct Open {
    last_handle: u64,
    /// Text of a small file as it was when it was opened, so that a reader in pieces sees one.
    texts: HashMap<u64, Bytes>,
    /// Reads of the volume that wait; an interrupted one is answered at once.
    reads: HashSet<u64>,
}

/// How a request goes on.
enum Next {
    Answer(Answer),
    /// Answered later, or never.
    Nothing,
}

impl Worker {
    /// A worker on a mounted session.
    pub fn new(channel: Channel, volume: Arc<Volume>, path: Arc<Path>) -> Arc<Self> {
        Arc::new(Self {
            channel,
            volume,
            path,
            open: Mutex::default(),
        })
    }

    /// Answers requests; returns when the file system was unmounted and nobody has it open.
    pub async fn serve(self: Arc<Self>) -> std::io::Result<()> {
        let mut buffer = Buffer::new();
        while let Some(message) = self.channel.receive(&mut buffer).await? {
            let request = match Request::parse(message) {
                Ok(request) => request,
                Err(error) => {
                    tracing::error!(%error, "the kernel sent what cannot be read");
                    if let Some((unique, errno)) = error.answer() {
                        self.channel.answer(unique, &Answer::Error(errno));
                    }
                    continue;
                }
            };
            if let Next::Answer(answer) = self.take(&request) {
                self.channel.answer(request.unique, &answer);
            }
        }
        Ok(())
    }

    /// Answers what needs no waiting, starts what does.
    fn take(self: &Arc<Self>, request: &Request<'_>) -> Next {
        match request.operation {
            Operation::Forget => return Next::Nothing,
            Operation::Interrupt { unique } => return self.interrupt(unique),
            _ => {}
        }
        let Some(node) = Node::from_id(request.node) else {
            return Next::Answer(Answer::Error(Errno::STALE));
        };
        match (node, &request.operation) {
            (Node::Volume, Operation::Read { offset, size, .. }) => {
                self.read_volume(request.unique, *offset, *size)
            }
            (
                Node::Volume,
                Operation::Write {
                    offset,
                    flags,
                    data,
                },
            ) => self.write_volume(request.unique, *offset, *flags, data),
            (Node::Volume, Operation::Fsync) => self.later(request.unique, |volume| async move {
                volume.sync().await.map(|()| Answer::Done)
            }),
            (
                Node::Volume,
                Operation::Fallocate {
                    offset,
                    length,
                    mode,
                },
            ) => {
                let (offset, length, mode) = (*offset, *length, *mode);
                self.later(request.unique, move |volume| async move {
                    volume
                        .fallocate(offset, length, mode)
                        .await
                        .map(|()| Answer::Done)
                })
            }
            (node, operation) => Next::Answer(self.at_once(node, operation)),
        }
    }

    fn at_once(&self, node: Node, operation: &Operation<'_>) -> Answer {
        match operation {
            Operation::Lookup { name } => self.lookup(node, name),
            Operation::GetAttr | Operation::SetAttr => {
                Answer::of(&node.attributes(self.size(node)))
            }
            Operation::Open { flags } => self.open(node, *flags),
            Operation::Read {
                handle,
                offset,
                size,
            } => self.read_text(node, *handle, *offset, *size),
            Operation::Write { offset, data, .. } => self.write_text(node, *offset, data),
            Operation::Release { handle } => {
                self.opened().texts.remove(handle);
                Answer::Done
            }
            Operation::OpenDir => Answer::of(&abi::OpenOut::default()),
            Operation::ReadDir { offset, size } => Answer::Bytes(files::listing(
                *offset,
                *size as usize,
                self.volume.size() > 0,
            )),
            Operation::Statfs => Answer::of(&files::statfs(self.volume.size())),
            Operation::Flush
            | Operation::Fsync
            | Operation::ReleaseDir
            | Operation::Access
            | Operation::Destroy => Answer::Done,
            Operation::Fallocate { .. } => Answer::Error(Errno::OPNOTSUPP),
            Operation::ChangeDirectory => Answer::Error(Errno::PERM),
            Operation::Other(_) | Operation::Forget | Operation::Interrupt { .. } => {
                Answer::Error(Errno::NOSYS)
            }
        }
    }

    /// `volume` is there once its size is known: nobody ever sees it empty.
    fn lookup(&self, node: Node, name: &[u8]) -> Answer {
        match Node::lookup(name) {
            _ if node != Node::Root => Answer::Error(Errno::NOTDIR),
            Some(Node::Volume) if self.volume.size() == 0 => Answer::Error(Errno::NOENT),
            Some(found) => Answer::of(&found.entry(self.size(found))),
            None => Answer::Error(Errno::NOENT),
        }
    }

    fn size(&self, node: Node) -> u64 {
        match node {
            Node::Root => 0,
            Node::Volume => self.volume.size(),
            Node::Status | Node::Path => self.text(node).len() as u64,
        }
    }

    fn open(&self, node: Node, flags: u32) -> Answer {
        let open_flags = match node {
            Node::Root => return Answer::Error(Errno::ISDIR),
            Node::Volume => FOPEN_DIRECT_IO | FOPEN_NOFLUSH | FOPEN_PARALLEL_DIRECT_WRITES,
            Node::Status if flags & O_ACCMODE != 0 => return Answer::Error(Errno::ACCESS),
            Node::Status | Node::Path => FOPEN_DIRECT_IO | FOPEN_NOFLUSH,
        };
        let mut fh = 0;
        if node != Node::Volume {
            let text = self.text(node);
            let mut open = self.opened();
            open.last_handle += 1;
            fh = open.last_handle;
            if open.texts.len() < TEXTS {
                open.texts.insert(fh, text);
            }
        }
        Answer::of(&abi::OpenOut {
            fh,
            open_flags,
            ..Default::default()
        })
    }

    fn text(&self, node: Node) -> Bytes {
        match node {
            Node::Status => json(&self.path.status()),
            Node::Path => json(&self.path.present()),
            Node::Root | Node::Volume => Bytes::new(),
        }
    }

    fn read_text(&self, node: Node, handle: u64, offset: u64, size: u32) -> Answer {
        if node == Node::Root {
            return Answer::Error(Errno::ISDIR);
        }
        let remembered = self.opened().texts.get(&handle).cloned();
        let text = remembered.unwrap_or_else(|| self.text(node));
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(text.len());
        let to = from.saturating_add(size as usize).min(text.len());
        Answer::Bytes(BytesMut::from(&text[from..to]))
    }

    fn write_text(&self, node: Node, offset: u64, data: &[u8]) -> Answer {
        if node != Node::Path {
            return Answer::Error(Errno::ACCESS);
        }
        if offset != 0 || data.len() > PATH_LIMIT {
            return Answer::Error(Errno::INVAL);
        }
        match self.path.switch(data) {
            Ok(()) => written(data.len()),
            Err(error) => {
                tracing::warn!(%error, "the path stays as it is");
                Answer::Error(match error {
                    crate::path::SwitchError::Malformed(_) => Errno::INVAL,
                    crate::path::SwitchError::Older { .. } => Errno::STALE,
                    crate::path::SwitchError::NotKept(_) => Errno::IO,
                })
            }
        }
    }

    fn read_volume(self: &Arc<Self>, unique: u64, offset: u64, size: u32) -> Next {
        self.opened().reads.insert(unique);
        let worker = self.clone();
        tokio::spawn(async move {
            let answer = worker.volume.read(offset, size).await;
            // Not there: it was interrupted, and answered.
            if worker.opened().reads.remove(&unique) {
                let answer = answer.map_or_else(Answer::Error, Answer::Bytes);
                worker.channel.answer(unique, &answer);
            }
        });
        Next::Nothing
    }

    fn write_volume(self: &Arc<Self>, unique: u64, offset: u64, flags: u32, data: &[u8]) -> Next {
        let mode = if flags & O_DSYNC == 0 {
            Write::Cached
        } else {
            Write::Durable
        };
        let data = Bytes::copy_from_slice(data);
        self.later(unique, move |volume| async move {
            let length = data.len();
            volume
                .write(offset, data, mode)
                .await
                .map(|()| written(length))
        })
    }

    fn later<F>(self: &Arc<Self>, unique: u64, work: impl FnOnce(Arc<Volume>) -> F) -> Next
    where
        F: Future<Output = Result<Answer, Errno>> + Send + 'static,
    {
        let work = work(self.volume.clone());
        let worker = self.clone();
        tokio::spawn(async move {
            let answer = work.await.unwrap_or_else(Answer::Error);
            worker.channel.answer(unique, &answer);
        });
        Next::Nothing
    }

    /// A process that waits for a read may be killed. A write must not be given up: it may be
    /// under way, and a later write of somebody else must not be overtaken by it.
    fn interrupt(&self, unique: u64) -> Next {
        if self.opened().reads.remove(&unique) {
            self.channel.answer(unique, &Answer::Error(Errno::INTR));
        }
        Next::Nothing
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn written(length: usize) -> Answer {
    Answer::of(&abi::WriteOut {
        size: length as u32,
        padding: 0,
    })
}

fn json(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
