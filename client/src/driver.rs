//! The task that keeps the time of a producer's or consumer's core and tells it of changed metadata.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::time::sleep_until;

use crate::shared::Shared;

/// What a driver drives.
pub(crate) trait Driven: Send + Sync + 'static {
    /// Carries out what the core asks for; when to look again if nothing happens before.
    fn pump(self: &Arc<Self>) -> Option<Instant>;
    /// Tells the core what is known of its topics now.
    fn update_topics(&self);
    /// Tells the driver to look at once.
    fn wake(&self) -> &Notify;
    /// The client's state.
    fn shared(&self) -> &Shared;
}

/// What the driver is woken by.
enum Woken {
    Core,
    Metadata,
}

/// Drives for as long as the task lives.
pub(crate) async fn drive(driven: Arc<impl Driven>) {
    let mut changes = driven.shared().changes();
    let mut timer = pin!(sleep_until(Instant::now().into()));
    loop {
        let next = driven.pump();
        if let Some(next) = next
            && timer.deadline() != next.into()
        {
            timer.as_mut().reset(next.into());
        }
        let mut wake = pin!(driven.wake().notified());
        let mut changed = pin!(changes.changed());
        let woken = poll_fn(|context| {
            if wake.as_mut().poll(context).is_ready() {
                return Poll::Ready(Woken::Core);
            }
            if let Poll::Ready(Ok(())) = changed.as_mut().poll(context) {
                return Poll::Ready(Woken::Metadata);
            }
            if next.is_some() && timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Woken::Core);
            }
            Poll::Pending
        });
        match woken.await {
            Woken::Core => {}
            Woken::Metadata => driven.update_topics(),
        }
    }
}
