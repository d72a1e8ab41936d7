//! Checks of a whole broker: what is there after a start, and that everything comes to an end.

use ringway_engine::shard::Event;
use ringway_wire::request::{FetchRequest, Request};
use ringway_wire::{ErrorCode, Offset};

use crate::log::batch::BatchNumber;
use crate::log::history::{Broken, ensure};
use crate::log::node::{Node, Observer};
use crate::log::replies::Waiting;

/// Bytes that a start after a clean stop may read of each partition: the tail block, once more
/// with the block behind it when a header could begin at its end, and a block of `next.log`.
const CLEAN_START_BYTES_MAX: u64 = 4 * 4096;

impl Node {
    /// Reads every log from its start to its end and compares it with what clients remember.
    pub(super) fn audit(&mut self, observer: Observer<'_>) -> Result<(), Broken> {
        for log in self.world.live_logs() {
            let end = self.audit_log(log, observer)?;
            let place = self.world.history.logs[log].log;
            if let Some(opened) = self.opened.get(&place)
                && !self.damage_expected
            {
                ensure!(
                    end >= opened.log_end,
                    "{place} ended at {}, now {end}",
                    opened.log_end
                );
            }
        }
        Ok(())
    }

    fn audit_log(&mut self, log: usize, observer: Observer<'_>) -> Result<Offset, Broken> {
        let place = self.world.history.logs[log].log;
        let mut batches: Vec<(Offset, BatchNumber)> = Vec::new();
        let mut offset = self.world.history.logs[log].start;
        loop {
            let request = Request::Fetch(FetchRequest {
                topic: place.topic,
                partition: place.partition,
                offset,
                last_epoch: None,
                bytes_max: 4 << 20,
                records_max: 0,
                wait_ms: 0,
            });
            match self.ask(&request, Waiting::Audit { log, offset }, observer)? {
                Ok((out, watermark)) => {
                    batches.extend(out.batches);
                    if out.end == offset || out.end == watermark {
                        ensure!(
                            out.end == watermark,
                            "{place}: nothing comes at {offset}, below {watermark}"
                        );
                        if !self.damage_expected {
                            self.world.history.complete(log, &batches, watermark)?;
                        }
                        return Ok(watermark);
                    }
                    offset = out.end;
                }
                Err((fault, safe))
                    if fault.code == ErrorCode::OffsetOutOfRange
                        && offset < self.world.history.logs[log].start =>
                {
                    // Retention was faster.
                    batches.clear();
                    offset = safe;
                }
                Err((fault, _)) if !self.damage_expected => {
                    return Err(format!("{place} can't be read at {offset}: {fault}"));
                }
                Err((fault, safe)) => {
                    if fault.code != ErrorCode::DamagedBatch {
                        return Ok(offset);
                    }
                    ensure!(
                        safe > offset,
                        "{place}: behind the damage at {offset} comes {safe}"
                    );
                    offset = safe;
                }
            }
        }
    }

    /// Sends a request and lets the device work until it is answered.
    fn ask(
        &mut self,
        request: &Request,
        waiting: Waiting,
        observer: Observer<'_>,
    ) -> Result<Answer, Broken> {
        self.request(request, &[], Some(waiting));
        self.pump(observer)?;
        for _ in 0..100_000 {
            let audited = self.waiting.iter().find_map(|(&correlation, waiting)| {
                matches!(waiting, Waiting::Audited { .. }).then_some(correlation)
            });
            if let Some(correlation) = audited {
                let Some(Waiting::Audited { answer }) = self.waiting.remove(&correlation) else {
                    unreachable!("it was just found");
                };
                return Ok(answer);
            }
            if !self.complete(observer)? {
                self.jump();
                self.pump(observer)?;
            }
        }
        Err(format!("no answer comes to {request:?}"))
    }

    /// Faults are off: whoever waits gets an answer, and every producer gets through.
    pub(super) fn settle(&mut self, observer: Observer<'_>) -> Result<(), Broken> {
        self.device.heal();
        let give_up_ns = self.world.now.mono_ns + 120_000_000_000;
        while self.world.now.mono_ns < give_up_ns {
            let mut open = false;
            for index in 0..self.world.producers.len() {
                if !self.may_produce(index) {
                    continue;
                }
                open |= !self.world.producers[index].window.is_empty();
                if self.world.producers[index].resend {
                    self.send_again(index);
                }
            }
            self.pump(observer)?;
            let worked = self.complete(observer)?;
            if !open && self.waiting.is_empty() && !worked {
                return Ok(());
            }
            if !worked {
                self.jump();
                self.pump(observer)?;
            }
        }
        let windows: Vec<_> = self.world.producers.iter().map(|at| &at.window).collect();
        Err(format!(
            "after two minutes without faults {:?} wait, {windows:?}",
            self.waiting
        ))
    }

    /// A clean stop.
    pub(super) fn drain(&mut self, observer: Observer<'_>) -> Result<(), Broken> {
        self.shard.apply(Event::Drain, self.world.now);
        self.pump(observer)?;
        for _ in 0..100_000 {
            if self.drained {
                return Ok(());
            }
            if !self.complete(observer)? {
                self.jump();
                self.pump(observer)?;
            }
        }
        Err("a clean stop doesn't end".to_owned())
    }

    /// After a clean stop without faults a start doesn't search for the log's end.
    pub(super) fn check_clean_start(&self) -> Result<(), Broken> {
        for (log, opened) in &self.opened {
            ensure!(
                opened.scanned_bytes <= CLEAN_START_BYTES_MAX,
                "after a clean stop {} bytes of {log} were read",
                opened.scanned_bytes
            );
        }
        Ok(())
    }
}

/// What a check's fetch brought: batches and the high watermark, or a fault and where to go on.
type Answer = Result<(crate::log::history::HandedOut, Offset), (ringway_wire::Fault, Offset)>;
