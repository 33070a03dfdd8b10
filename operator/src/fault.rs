//! A test instrument, not for use: with `WEFT_TEST_FAULTS=1` the admin server takes
//! `POST /debug/exit-after-writes` with a number N, and the process aborts right after the API server
//! has answered the Nth write from then on with success. A sweep over N kills the operator after each
//! write of an operation in turn, and what comes out must be the same.
//!
//! Leases and Events do not count: they come with time, not with the operation. A process that was
//! started again is not armed. Without the variable there is no such path.

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Name of the environment variable.
pub const VARIABLE: &str = "WEFT_TEST_FAULTS";

/// Aborts after the Nth write once it is armed; else it passes everything through.
#[derive(Clone)]
pub struct ExitAfterWrites {
    /// Zero: not armed.
    left: Arc<AtomicU64>,
    exit: fn(),
}

impl Default for ExitAfterWrites {
    fn default() -> Self {
        Self::new(|| std::process::abort())
    }
}

impl ExitAfterWrites {
    /// Whether the environment asks for the instrument.
    pub fn wanted() -> bool {
        std::env::var_os(VARIABLE).is_some_and(|value| value == "1")
    }

    fn new(exit: fn()) -> Self {
        Self {
            left: Arc::default(),
            exit,
        }
    }

    /// The `writes`th write from now on is the last; zero takes it back. Gives what was left
    /// before: zero from a process that is not the one that was armed.
    pub fn arm(&self, writes: u64) -> u64 {
        tracing::warn!(
            writes,
            "this process aborts after so many writes; after 0, never"
        );
        self.left.swap(writes, Ordering::SeqCst)
    }

    fn count(&self) {
        let before = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if before == Ok(1) {
            (self.exit)();
        }
    }
}

fn counts(method: &Method, path: &str) -> bool {
    let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    writes && !path.contains("/leases") && !path.contains("/events")
}

impl<S> Layer<S> for ExitAfterWrites {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted {
            inner,
            fault: self.clone(),
        }
    }
}

/// The service with the counter around it.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    fault: ExitAfterWrites,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let counts = counts(request.method(), request.uri().path());
        let (fault, answer) = (self.fault.clone(), self.inner.call(request));
        Box::pin(async move {
            let answer = answer.await;
            if counts
                && answer
                    .as_ref()
                    .is_ok_and(|answer| answer.status().is_success())
            {
                fault.count();
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::AtomicU64;
    use tower::{ServiceExt, service_fn};

    static EXITS: AtomicU64 = AtomicU64::new(0);

    #[tokio::test]
    async fn it_exits_after_the_nth_successful_write_and_counts_nothing_else() {
        let fault = ExitAfterWrites::new(|| {
            EXITS.fetch_add(1, Ordering::SeqCst);
        });
        fault.count();
        assert_eq!(fault.arm(2), 0);
        let rows = [
            ("GET", "/apis/weft.storage/v1alpha1/drives", 200, 0),
            ("POST", "/api/v1/namespaces/a/pods", 201, 0),
            ("POST", "/api/v1/namespaces/a/pods", 409, 0),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/x",
                200,
                0,
            ),
            (
                "POST",
                "/apis/events.k8s.io/v1/namespaces/default/events",
                201,
                0,
            ),
            (
                "PATCH",
                "/apis/weft.storage/v1alpha1/drives/a/status",
                200,
                1,
            ),
            ("DELETE", "/api/v1/namespaces/a/pods/x", 200, 1),
        ];
        for (method, path, code, exits) in rows {
            let inner = service_fn(move |_: Request<()>| async move {
                Ok::<_, Infallible>(Response::builder().status(code).body(()).unwrap())
            });
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(())
                .unwrap();
            fault.layer(inner).oneshot(request).await.unwrap();
            assert_eq!(
                EXITS.load(Ordering::SeqCst),
                exits,
                "{method} {path} {code}"
            );
        }
    }
}
