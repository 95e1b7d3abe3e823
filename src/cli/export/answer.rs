//! What is asked, and what is answered.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::collector::Collector;
use crate::render::prometheus;

/// The page that says whether requests are answered.
pub const HEALTHY: &str = "/-/healthy";

/// How long a scrape waits that does not say how long it can.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of the time that a scrape has, this is left to carry the answer, in hundredths.
const SPARED: f64 = 10.0;

/// The header by which Prometheus says how long a scrape can wait, in seconds.
const TIMEOUT: &str = "x-prometheus-scrape-timeout-seconds";

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// What there is to ask for.
#[derive(Clone, Debug)]
pub struct Site {
    path: String,
    landing: Bytes,
    collector: Collector,
}

impl Site {
    /// With the metrics at `path`.
    pub fn new(path: &str, collector: Collector) -> Self {
        let shown = path
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace('"', "&quot;");
        let version = env!("CARGO_PKG_VERSION");
        let landing = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>linger</title></head>\n<body>\n\
             <h1>linger {version}</h1>\n<p>Socket states of this machine, for Prometheus.</p>\n\
             <ul>\n<li><a href=\"{shown}\">Metrics</a></li>\n<li><a href=\"{HEALTHY}\">Health</a></li>\n</ul>\n</body>\n</html>\n"
        );
        Self {
            path: path.to_owned(),
            landing: Bytes::from(landing),
            collector,
        }
    }

    /// Answers a request, whose body is nobody's business.
    pub async fn answer<B: Body>(&self, request: &Request<B>) -> Answer {
        let mut answer = self.choose(request).await;
        if !request.body().is_end_stream() {
            close_behind(&mut answer);
        }
        answer
    }

    async fn choose<B>(&self, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        let metrics = path == self.path;
        if !metrics && path != "/" && path != HEALTHY {
            return words(StatusCode::NOT_FOUND, "there is no such page\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = words(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        if !metrics {
            return match path {
                HEALTHY => words(StatusCode::OK, "linger is alive\n"),
                _ => page(
                    StatusCode::OK,
                    "text/html; charset=utf-8",
                    self.landing.clone(),
                ),
            };
        }
        if request.method() == Method::HEAD {
            // Nobody would read what was read.
            return page(StatusCode::OK, prometheus::CONTENT_TYPE, Bytes::new());
        }
        let patience = patience(request.headers());
        match tokio::time::timeout(patience, self.collector.read()).await {
            Ok(Some(text)) => page(StatusCode::OK, prometheus::CONTENT_TYPE, text),
            Ok(None) => words(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the machine is not read any more\n",
            ),
            Err(_) => words(
                StatusCode::SERVICE_UNAVAILABLE,
                "the machine was not read in the time that the scrape has\n",
            ),
        }
    }
}

/// Has the connection closed behind the answer.
pub fn close_behind(answer: &mut Answer) {
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// How long to wait for a reading: less than whoever asks does.
fn patience(headers: &HeaderMap) -> Duration {
    let said = headers.get(TIMEOUT).and_then(|value| value.to_str().ok());
    let seconds = said.and_then(|text| text.trim().parse::<f64>().ok());
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds * (100.0 - SPARED) / 100.0).ok())
        .map_or(PATIENCE, |said| said.min(PATIENCE))
}

fn words(status: StatusCode, text: &'static str) -> Answer {
    page(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    )
}

fn page(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_answered_before_its_time_is_over() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_str(value).unwrap());
            patience(&headers).as_millis()
        };
        assert_eq!(of("10"), 9_000);
        assert_eq!(of("0.5"), 450);
        assert_eq!(of("1e9"), 60_000, "nobody waits for ever");
        for nonsense in ["", "ten", "-1", "0", "NaN", "inf", "1e400"] {
            assert_eq!(of(nonsense), 60_000, "{nonsense}");
        }
        assert_eq!(patience(&HeaderMap::new()), PATIENCE);
    }
}
