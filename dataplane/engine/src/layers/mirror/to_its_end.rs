//! A future that goes on when nobody waits for it any more.
//!
//! A change cut off in the middle would leave members that differ, and nobody who knows. So one
//! that has begun is finished in the background, with the range that it holds.

use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::runtime::Handle;

/// See the module.
pub struct ToItsEnd<F: Future<Output: Send> + Send + 'static> {
    /// Nothing once it has ended.
    future: Option<Pin<Box<F>>>,
    begun: bool,
}

impl<F: Future<Output: Send> + Send + 'static> ToItsEnd<F> {
    /// Begins when it is first polled.
    pub fn new(future: F) -> Self {
        Self {
            future: Some(Box::pin(future)),
            begun: false,
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for ToItsEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.begun = true;
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        let ended = future.as_mut().poll(cx);
        if ended.is_ready() {
            self.future = None;
        }
        ended
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for ToItsEnd<F> {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the drives' hot regions remember.
        if let Some(future) = self.future.take().filter(|_| self.begun)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(future);
        }
    }
}
