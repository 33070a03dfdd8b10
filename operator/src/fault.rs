//! A test instrument, not for use: with `WEFT_EXIT_AFTER_WRITES=N` the process aborts right after
//! the API server has answered the Nth write with success. A sweep over N kills the operator after
//! each write of an operation in turn, and what comes out must be the same.
//!
//! Leases and Events do not count: they come with time, not with the operation. Without the
//! variable the layer passes everything through.

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Name of the environment variable.
pub const VARIABLE: &str = "WEFT_EXIT_AFTER_WRITES";

/// Aborts after the Nth write, or does nothing.
#[derive(Clone)]
pub struct ExitAfterWrites {
    left: Option<Arc<AtomicU64>>,
    exit: fn(),
}

impl ExitAfterWrites {
    /// From the environment.
    pub fn from_environment() -> Self {
        let left = std::env::var(VARIABLE)
            .ok()
            .and_then(|text| text.parse().ok());
        if let Some(left) = left {
            tracing::warn!(left, "{VARIABLE} is set: this process will abort itself");
        }
        Self::new(left, || std::process::abort())
    }

    fn new(left: Option<u64>, exit: fn()) -> Self {
        Self {
            left: left
                .filter(|left| *left > 0)
                .map(|left| Arc::new(AtomicU64::new(left))),
            exit,
        }
    }

    fn count(&self) {
        let Some(left) = &self.left else { return };
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
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
        let fault = ExitAfterWrites::new(Some(2), || {
            EXITS.fetch_add(1, Ordering::SeqCst);
        });
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
