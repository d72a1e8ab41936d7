//! What becomes of a record that was sent: one shared state per batch, and for each record a small
//! handle into it. Any executor can wait for it, and a thread without one can look.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ringway_wire::request::{Durability, StageTimes};
use ringway_wire::{Offset, PartitionIndex, TopicPartition};

use crate::error::ProduceError;

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The topic's id and the partition.
    pub topic_partition: TopicPartition,
    /// The partition.
    pub partition: PartitionIndex,
    /// The record's offset; with acks none the broker never says it, and it is `None`.
    pub offset: Option<Offset>,
    /// When the leader appended it, in microseconds since 1970; 0 with acks none.
    pub append_time_us: i64,
    /// Where the record is now: on stable storage, or, in a topic with durability `memory`, in the
    /// broker's memory, from which a crash may take it back. `None` with acks none.
    pub durability: Option<Durability>,
    /// Where the broker spent the time, if the producer asked with `trace`.
    pub stages: Option<StageTimes>,
}

/// What became of a batch, for those who count rather than wait for each record.
#[derive(Clone, Copy, Debug)]
pub struct BatchReport<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition.
    pub partition: PartitionIndex,
    /// How many records it has.
    pub records: u32,
    /// The delivery of its first record, or why all of them failed.
    pub result: &'a Result<Delivered, ProduceError>,
}

/// Told of every batch; see [`ProducerBuilder::on_batch`](crate::ProducerBuilder::on_batch).
#[derive(Clone)]
pub(crate) struct OnBatch(Arc<dyn Fn(&BatchReport<'_>) + Send + Sync>);

impl OnBatch {
    pub(crate) fn new(told: impl Fn(&BatchReport<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl fmt::Debug for OnBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnBatch")
    }
}

/// A batch's state, shared by the producer and the records' [`Delivery`] handles.
#[derive(Debug)]
pub(crate) struct BatchOutcome {
    topic: Arc<str>,
    partition: PartitionIndex,
    on_batch: Option<OnBatch>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The delivery of the batch's first record.
    result: Option<Result<Delivered, ProduceError>>,
    /// Tasks to wake; at most one per record, each remembered by its place.
    wakers: Vec<Waker>,
}

impl BatchOutcome {
    /// A batch of a partition without a result.
    pub(crate) fn new(
        topic: Arc<str>,
        partition: PartitionIndex,
        on_batch: Option<OnBatch>,
    ) -> Self {
        Self {
            topic,
            partition,
            on_batch,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the result of the batch's `records` records unless there is one, tells of it, and
    /// wakes everybody who waits. Called under the producer's lock, one call at a time.
    pub(crate) fn resolve(&self, records: u32, result: Result<Delivered, ProduceError>) {
        if self.lock().result.is_some() {
            return;
        }
        if let Some(OnBatch(told)) = &self.on_batch {
            told(&BatchReport {
                topic: &self.topic,
                partition: self.partition,
                records,
                result: &result,
            });
        }
        let wakers = {
            let mut state = self.lock();
            state.result = Some(result);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The fate of one record: a future that resolves when it is acknowledged or given up. Dropping it
/// doesn't take the record back.
#[derive(Debug)]
#[must_use = "a delivery says whether the record arrived"]
pub struct Delivery {
    outcome: Arc<BatchOutcome>,
    /// The record's ordinal in its batch.
    index: u32,
    /// This handle's place among the batch's wakers.
    waker: Option<usize>,
}

impl Delivery {
    /// The handle of a batch's record.
    pub(crate) const fn new(outcome: Arc<BatchOutcome>, index: u32) -> Self {
        Self {
            outcome,
            index,
            waker: None,
        }
    }

    /// The result if it is known, without waiting.
    #[must_use]
    pub fn result(&self) -> Option<Result<Delivered, ProduceError>> {
        self.of(&self.outcome.lock())
    }

    fn of(&self, state: &State) -> Option<Result<Delivered, ProduceError>> {
        let first = state.result.clone()?;
        Some(first.map(|first| Delivered {
            offset: first.offset.map(|offset| offset.plus(self.index.into())),
            ..first
        }))
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.outcome.lock();
        if let Some(result) = this.of(&state) {
            return Poll::Ready(result);
        }
        match this.waker {
            Some(place) => state.wakers[place].clone_from(context.waker()),
            None => {
                this.waker = Some(state.wakers.len());
                state.wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_record_gets_its_own_offset_and_one_wake_up() {
        let told = Arc::new(AtomicUsize::new(0));
        let on_batch = OnBatch::new({
            let told = Arc::clone(&told);
            move |report| {
                assert_eq!((report.topic, report.partition), ("t", PartitionIndex(0)));
                told.fetch_add(report.records as usize, Ordering::Relaxed);
            }
        });
        let outcome = Arc::new(BatchOutcome::new(
            "t".into(),
            PartitionIndex(0),
            Some(on_batch),
        ));
        let mut deliveries: Vec<_> = (0..3)
            .map(|index| Delivery::new(Arc::clone(&outcome), index))
            .collect();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        for delivery in &mut deliveries {
            assert!(Pin::new(&mut *delivery).poll(&mut context).is_pending());
            assert!(Pin::new(delivery).poll(&mut context).is_pending());
        }
        let first = Delivered {
            topic_partition: TopicPartition::default(),
            partition: PartitionIndex(0),
            offset: Some(Offset(10)),
            append_time_us: 1,
            durability: Some(Durability::Fsync),
            stages: None,
        };
        outcome.resolve(3, Ok(first));
        outcome.resolve(
            3,
            Ok(Delivered {
                offset: Some(Offset(99)),
                ..first
            }),
        );
        assert_eq!(count.0.load(Ordering::Relaxed), 3);
        assert_eq!(told.load(Ordering::Relaxed), 3);
        let offsets: Vec<_> = deliveries
            .iter()
            .map(|each| each.result().unwrap().unwrap().offset)
            .collect();
        assert_eq!(offsets, [10, 11, 12].map(|offset| Some(Offset(offset))));
    }
}
