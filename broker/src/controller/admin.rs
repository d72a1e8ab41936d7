//! The admin HTTP server: /metrics for Prometheus, /healthz for supervisors, /status and
//! /debug/trace for people and programs that want to know more.

mod exposition;
mod limited;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use ringway_engine::meta::Image;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::broker::Ready;
use crate::flight::write_trace;
use crate::flight_dumper::copy_flight;
use crate::metrics::ShardMetrics;
use limited::Limited;

/// Questions to the controller that may wait; more are told to come back.
pub(crate) const QUERIES_MAX: usize = 16;

/// How the broker is, as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Partitions are being recovered.
    Starting,
    /// It does everything.
    Serving,
    /// It can't make anything durable; reads go on.
    Impaired(String),
    /// It finishes what it has accepted.
    Stopping,
}

impl Health {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Impaired(_) => "impaired",
            Self::Stopping => "stopping",
        }
    }

    pub(crate) fn reason(&self) -> Option<&str> {
        match self {
            Self::Impaired(reason) => Some(reason),
            _ => None,
        }
    }
}

/// A question that only the controller can answer.
#[derive(Debug)]
pub(crate) enum Query {
    /// Everything that /status shows.
    Status(oneshot::Sender<serde_json::Value>),
}

/// What doesn't change while the broker runs, and the few numbers that the controller keeps.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) ready: Ready,
    pub(crate) started_us: i64,
    pub(crate) topics: AtomicU64,
    pub(crate) partitions: AtomicU64,
}

impl About {
    pub(crate) fn new(ready: Ready) -> Self {
        Self {
            ready,
            started_us: super::outside::unix_us(),
            topics: AtomicU64::new(0),
            partitions: AtomicU64::new(0),
        }
    }

    /// Counts what is in the image.
    pub(crate) fn metadata(&self, image: &Image) {
        let (topics, partitions) = image.topics().fold((0, 0), |(topics, partitions), topic| {
            (topics + 1, partitions + topic.partitions.len() as u64)
        });
        self.topics.store(topics, Ordering::Relaxed);
        self.partitions.store(partitions, Ordering::Relaxed);
    }
}

/// What the server answers from.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) about: Arc<About>,
    pub(crate) shards: Arc<[Arc<ShardMetrics>]>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) queries: mpsc::Sender<Query>,
}

/// Serves for ever.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let routes = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/status", get(status))
        .route("/debug/trace", get(trace))
        .with_state(admin);
    let served = axum::serve(Limited::new(listener), routes).await;
    // Accepting never ends by itself.
    tracing::error!(?served, "the admin server has ended");
}

async fn index() -> &'static str {
    "Ringway broker\n/metrics      for Prometheus\n/healthz      200 while it serves\n/status       as JSON\n\
     /debug/trace  what the shards did last, for ui.perfetto.dev\n"
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = exposition::shards(&admin.shards);
    let about = &admin.about;
    let version = env!("CARGO_PKG_VERSION");
    let health = admin.health.borrow().clone();
    let started = about.started_us as f64 / 1e6;
    let gauges = [
        (
            "build_info",
            format!("{{version=\"{version}\"}}"),
            1.0,
            "The version that runs.",
        ),
        (
            "start_time_seconds",
            String::new(),
            started,
            "When it was started, since 1970.",
        ),
        (
            "serving",
            String::new(),
            f64::from(health == Health::Serving),
            "1 while it does everything, else 0.",
        ),
        (
            "metadata_topics",
            String::new(),
            about.topics.load(Ordering::Relaxed) as f64,
            "Topics of the cluster.",
        ),
        (
            "metadata_partitions",
            String::new(),
            about.partitions.load(Ordering::Relaxed) as f64,
            "Partitions of the cluster.",
        ),
    ];
    for (name, labels, value, help) in gauges {
        exposition::family(&mut text, name, "gauge", help);
        let _ = writeln!(text, "ringway_{name}{labels} {value}");
    }
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}

/// The flight recorder's events, all or those of the last `?ms=N` milliseconds.
async fn trace(State(admin): State<Admin>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let answer = |code, kind, body| (code, [(header::CONTENT_TYPE, kind)], body);
    let last = match query.as_deref().map(|query| query.strip_prefix("ms=")) {
        None => Ok(None),
        Some(Some(ms)) => ms.parse::<u32>().map(Some).map_err(drop),
        Some(None) => Err(()),
    };
    let Ok(last_ms) = last else {
        let text = "only ms=N is known: the milliseconds to look back\n".to_owned();
        return answer(StatusCode::BAD_REQUEST, "text/plain", text.into_bytes());
    };
    // Some hundred thousand lines: not on the controller's thread.
    let written = tokio::task::spawn_blocking(move || {
        let mut flight = copy_flight("asked for over HTTP".to_owned(), &admin.shards);
        if let Some(ms) = last_ms {
            flight.keep_last(u64::from(ms) * 1_000_000);
        }
        let mut out = Vec::new();
        write_trace(&flight, &mut out).map(|()| out)
    });
    match written.await {
        Ok(Ok(json)) => answer(StatusCode::OK, "application/json", json),
        failed => {
            let text = format!("{failed:?}\n").into_bytes();
            answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", text)
        }
    }
}

async fn healthz(State(admin): State<Admin>) -> (StatusCode, String) {
    let health = admin.health.borrow().clone();
    let code = match health {
        Health::Serving => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let reason = health
        .reason()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    (code, format!("{}{reason}\n", health.name()))
}

async fn status(State(admin): State<Admin>) -> impl IntoResponse {
    let (answer, answered) = oneshot::channel();
    let busy = || {
        let problem = serde_json::json!({"error": "the controller is busy: try again"});
        (StatusCode::SERVICE_UNAVAILABLE, problem)
    };
    let asked = admin.queries.try_send(Query::Status(answer));
    let (code, body) = match asked {
        Ok(()) => answered
            .await
            .map_or_else(|_| busy(), |status| (StatusCode::OK, status)),
        Err(_) => busy(),
    };
    (
        code,
        [(header::CONTENT_TYPE, "application/json")],
        format!("{body:#}\n"),
    )
}
