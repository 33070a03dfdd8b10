//! Waiting for objects: by watch, and never longer than the caller does.

use kube::api::Api;
use kube::runtime::wait::await_condition;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

/// How long a call waits when its caller does not say how long it will.
const DEFAULT: Duration = Duration::from_secs(60);
/// What is kept of the caller's patience for an answer that says what was waited for.
const MARGIN: Duration = Duration::from_millis(700);
/// Between attempts when the API server does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// When a call has to be answered: a little before the caller gives up.
pub fn deadline(metadata: &MetadataMap) -> Instant {
    let header = metadata
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok());
    let patience = header.and_then(parse_timeout).unwrap_or(DEFAULT);
    // A caller in a hurry gets half of its time rather than none.
    let patience = patience
        .checked_sub(MARGIN)
        .unwrap_or_default()
        .max(patience / 2);
    let now = Instant::now();
    now.checked_add(patience).unwrap_or(now + DEFAULT)
}

/// The `grpc-timeout` header: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Waits until `done` says so of the object (`None`: it does not exist). `Ok(None)` in the
/// outer option when the time is over.
pub async fn until<K>(
    api: &Api<K>,
    name: &str,
    end: Instant,
    done: impl Fn(Option<&K>) -> bool,
) -> Option<Option<K>>
where
    K: kube::Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let watched = async {
        loop {
            match await_condition(api.clone(), name, &done).await {
                Ok(object) => return object,
                Err(error) => tracing::warn!(name, %error, "watch is repeated"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout_at(end, watched).await.ok()
}

/// What an error of the API server means to a caller of CSI.
pub fn api_status(what: &str, error: &kube::Error) -> Status {
    let code = match error {
        kube::Error::Api(status) => match status.code {
            404 => Code::NotFound,
            409 => Code::Aborted,
            403 => Code::PermissionDenied,
            400 | 422 => Code::InvalidArgument,
            _ => Code::Unavailable,
        },
        _ => Code::Unavailable,
    };
    let said = match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    };
    Status::new(code, format!("{what}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_header_is_digits_and_a_unit() {
        let table = [
            ("15S", Some(Duration::from_secs(15))),
            ("119999990u", None),
            ("99999990u", Some(Duration::from_micros(99_999_990))),
            ("2M", Some(Duration::from_secs(120))),
            ("S", None),
            ("", None),
            ("5x", None),
            ("1ü", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_answer_comes_before_the_caller_gives_up() {
        let left = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata) - Instant::now()
        };
        assert!(left("10S") < Duration::from_millis(9_400));
        assert!(left("10S") > Duration::from_secs(8));
        let hurry = left("400m");
        assert!(hurry > Duration::from_millis(100) && hurry <= Duration::from_millis(200));
        assert!(deadline(&MetadataMap::new()) - Instant::now() > Duration::from_secs(50));
    }
}
