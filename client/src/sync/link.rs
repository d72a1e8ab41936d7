//! A cluster as one producer or consumer of the synchronous face reaches it: connections of its own,
//! what is known of brokers and topics, and questions to them. Nothing is shared with others.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use ringway_wire::limits::METADATA_TOPICS_MAX;
use ringway_wire::request::{Reply, Request};
use ringway_wire::{MetadataEpoch, PartitionIndex, TopicId, TopicPartition};

use crate::calls::{
    Call, GetMetadata, LeaderInquiry, Verdict, is_put_off, no_leader, unmentioned, usable,
    within_limits,
};
use crate::config::{Address, ClientConfig};
use crate::core::Token;
use crate::core::detours::{Detours, Way};
use crate::core::inquiry::{Inquiry, Step};
use crate::core::metadata::{Metadata, TopicView};
use crate::core::outbox::Submission;
use crate::error::{ConnectError, ConnectionLost, RequestError};
use crate::limits::SHARD_CONNECT_TIMEOUT;
use crate::machine::random;
use crate::sync::Idle;
use crate::sync::connection::{Connection, Event, Outcome, Who};

/// Connections, metadata and questions.
#[derive(Debug)]
pub(super) struct Link {
    config: ClientConfig,
    idle: Idle,
    bootstrap: Vec<Address>,
    connections: Vec<Connection>,
    detours: Detours,
    metadata: Metadata,
    /// The broker that answered last.
    good: Option<Address>,
    /// The question about topics in doubt.
    refresh: Option<(GetMetadata, Asking)>,
    /// What was heard and not told yet; kept for its space.
    heard: Vec<Event>,
    /// For the core.
    events: VecDeque<(Token, Outcome)>,
    answers: Vec<(u64, Result<Reply, ConnectionLost>)>,
    questions: u64,
    random: u64,
}

impl Link {
    pub(super) fn new(config: ClientConfig, bootstrap: Vec<Address>, idle: Idle) -> Self {
        Self {
            bootstrap,
            config,
            idle,
            connections: Vec::new(),
            detours: Detours::default(),
            metadata: Metadata::default(),
            good: None,
            refresh: None,
            heard: Vec::new(),
            events: VecDeque::new(),
            answers: Vec::new(),
            questions: 0,
            random: random(),
        }
    }

    pub(super) const fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Learns the brokers from the first one that answers; each is tried once.
    pub(super) fn first_contact(&mut self) -> Result<(), ConnectError> {
        let mut tried = Vec::new();
        for address in self.bootstrap.clone() {
            let call = GetMetadata { topics: Vec::new() };
            let question = self.ask_at(&address, call.request());
            match self.answer_to(question) {
                Ok(Reply::Metadata(reply)) => {
                    if let Some(fault) = reply.fault {
                        return Err(ConnectError::Refused(fault));
                    }
                    self.good = Some(address);
                    self.metadata.apply(reply, Instant::now());
                    return Ok(());
                }
                Ok(_) => unreachable!("a connection gives replies of the request's kind"),
                Err(lost) => tried.push(lost),
            }
        }
        match tried.iter().find_map(|lost| lost.refused.clone()) {
            Some(fault) => Err(ConnectError::Refused(fault)),
            None => Err(ConnectError::Unreachable { tried }),
        }
    }

    /// A random number, for spreading pauses and first choices.
    pub(super) const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    }

    /// Does what can be done without waiting; whether anything was.
    pub(super) fn turn(&mut self, now: Instant) -> bool {
        let mut busy = false;
        let mut place = 0;
        while place < self.connections.len() {
            match self.connections[place].turn(now, &mut self.heard) {
                Ok(did) => {
                    busy |= did;
                    place += 1;
                }
                Err(stop) => {
                    let ended = self.connections.swap_remove(place);
                    // First, so that whoever hears of the loss and tries again finds what it means.
                    self.detours.ended(&ended.address, ended.is_open(), now);
                    ended.end(stop, &mut self.heard);
                    busy = true;
                }
            }
        }
        self.sort();
        self.refresh(now);
        busy
    }

    /// Sorts what was heard by whom it is for.
    fn sort(&mut self) {
        for (who, outcome) in self.heard.drain(..) {
            match (who, outcome) {
                (Who::Connection, _) => {}
                (Who::Core(token), outcome) => self.events.push_back((token, outcome)),
                (Who::Question(number), Outcome::Replied(reply, _)) => {
                    self.answers.push((number, Ok(reply)));
                }
                (Who::Question(number), Outcome::Lost(lost)) => {
                    self.answers.push((number, Err(lost)));
                }
                (Who::Question(_), Outcome::Written) => {}
            }
        }
    }

    /// What became of a request of the core.
    pub(super) fn next_event(&mut self) -> Option<(Token, Outcome)> {
        self.events.pop_front()
    }

    /// Lets others have the core, if that is wanted and the last turn found nothing to do.
    pub(super) fn rest(&self, busy: bool) {
        match self.idle {
            _ if busy => {}
            Idle::Spin => std::hint::spin_loop(),
            Idle::Yield => thread::yield_now(),
        }
    }

    /// The connection to a port, begun if there is none.
    fn connection(&mut self, to: &Address, shared: Option<&Address>) -> &mut Connection {
        let found = self.connections.iter().position(|each| each.address == *to);
        let place = found.unwrap_or_else(|| {
            let mut timeout = self.config.connect_timeout;
            if let Some(shared) = shared {
                timeout = SHARD_CONNECT_TIMEOUT;
                self.detours.begun(to, shared);
            }
            let now = Instant::now();
            let begun = Connection::begin(to.clone(), &self.config, timeout, now);
            self.connections.push(begun);
            self.connections.len() - 1
        });
        &mut self.connections[place]
    }

    /// The connection to the leader of a partition, if one is known.
    fn leader(&mut self, of: TopicPartition) -> Option<&mut Connection> {
        let leader = self.metadata.leader(of)?;
        let Some(own) = leader.own else {
            return Some(self.connection(&leader.shared, None));
        };
        let connections = &self.connections;
        let is_open = || {
            let found = connections.iter().find(|each| each.address == own);
            found.is_some_and(Connection::is_open)
        };
        Some(match self.detours.way(&own, is_open, Instant::now()) {
            Way::Direct => self.connection(&own, Some(&leader.shared)),
            Way::Around { probe } => {
                if probe {
                    self.connection(&own, Some(&leader.shared));
                }
                self.connection(&leader.shared, None)
            }
        })
    }

    /// Sends a request of the core to the leader of a partition; false if none is known.
    pub(super) fn submit(&mut self, to: TopicPartition, submission: Submission<Token>) -> bool {
        let mut heard = std::mem::take(&mut self.heard);
        let leader = self.leader(to);
        let known = leader.is_some();
        if let Some(connection) = leader {
            let Submission {
                request,
                data,
                who,
                deadline,
                answered,
            } = submission;
            let submission = Submission {
                request,
                data,
                who: Who::Core(who),
                deadline,
                answered,
            };
            connection.submit(submission, &mut heard);
        }
        self.heard = heard;
        self.sort();
        known
    }

    /// When a request that may wait so long is overdue.
    pub(super) fn request_deadline(&self, now: Instant, wait: Duration) -> Instant {
        now + self.config.request_timeout + wait
    }

    /// Puts a question to a broker; its number.
    fn ask_at(&mut self, address: &Address, request: Request) -> u64 {
        let submission = self.question(request);
        let number = self.questions;
        let mut heard = std::mem::take(&mut self.heard);
        self.connection(address, None)
            .submit(submission, &mut heard);
        self.heard = heard;
        self.sort();
        number
    }

    fn question(&mut self, request: Request) -> Submission<Who> {
        self.questions += 1;
        Submission {
            request,
            data: None,
            who: Who::Question(self.questions),
            deadline: self.request_deadline(Instant::now(), Duration::ZERO),
            answered: true,
        }
    }

    fn take_answer(&mut self, question: u64) -> Option<Result<Reply, ConnectionLost>> {
        let place = self
            .answers
            .iter()
            .position(|(number, _)| *number == question)?;
        Some(self.answers.swap_remove(place).1)
    }

    /// Turns until a question is answered.
    fn answer_to(&mut self, question: u64) -> Result<Reply, ConnectionLost> {
        loop {
            let busy = self.turn(Instant::now());
            if let Some(answer) = self.take_answer(question) {
                return answer;
            }
            self.rest(busy);
        }
    }

    /// Asks any broker; again, with pauses, until the request time-out.
    pub(super) fn call<C: Call>(&mut self, call: &C) -> Result<C::Output, RequestError> {
        let mut asking = Asking::new(call, self.config.request_timeout)?;
        loop {
            let now = Instant::now();
            let busy = self.turn(now);
            if let Some(answer) = asking.poll(self, now) {
                return asking.read(call, answer);
            }
            self.rest(busy);
        }
    }

    /// A topic, asked for if it isn't known.
    pub(super) fn topic(&mut self, name: &str) -> Result<TopicView, RequestError> {
        if let Some(view) = self.metadata.topic(name) {
            return Ok(view.clone());
        }
        self.load(name)
    }

    /// A topic, asked for if it isn't known, or not to have a partition that is wanted: somebody
    /// may have added it.
    pub(super) fn topic_with(
        &mut self,
        name: &str,
        wanted: Option<PartitionIndex>,
    ) -> Result<TopicView, RequestError> {
        let view = self.topic(name)?;
        match wanted.is_none_or(|wanted| view.at(wanted).is_ok()) {
            true => Ok(view),
            false => self.load(name),
        }
    }

    fn load(&mut self, name: &str) -> Result<TopicView, RequestError> {
        let topics = vec![name.to_owned()];
        let reply = self.call(&GetMetadata { topics })?;
        let usable = usable(&reply, name);
        self.metadata.apply(reply, Instant::now());
        usable?;
        let known = self.metadata.topic(name);
        known.cloned().ok_or_else(|| unmentioned(name))
    }

    /// Asks the leader of a partition; again, with pauses, while leaders change.
    pub(super) fn call_leader(
        &mut self,
        what: impl Fn() -> String,
        topic: &str,
        partition: PartitionIndex,
        make: impl Fn(TopicPartition) -> Request,
    ) -> Result<Reply, RequestError> {
        let mut inquiry = LeaderInquiry::new(Instant::now(), self.config.request_timeout);
        loop {
            let view = self.topic_with(topic, Some(partition))?;
            let at = view.at(partition)?;
            let answer = match self.ask_leader(at, make(at)) {
                Some(question) => self.answer_to(question),
                None => Err(no_leader(&what())),
            };
            let (now, random) = (Instant::now(), self.random());
            match inquiry.judge(&what, answer, now, random)? {
                Verdict::Done(reply) => return Ok(reply),
                Verdict::Again(at) => {
                    self.metadata.doubt(&view.name);
                    while Instant::now() < at {
                        let busy = self.turn(Instant::now());
                        self.rest(busy);
                    }
                }
            }
        }
    }

    fn ask_leader(&mut self, at: TopicPartition, request: Request) -> Option<u64> {
        let submission = self.question(request);
        let number = self.questions;
        let mut heard = std::mem::take(&mut self.heard);
        let leader = self.leader(at);
        let asked = leader.map(|connection| {
            connection.submit(submission, &mut heard);
            number
        });
        self.heard = heard;
        self.sort();
        asked
    }

    /// What is known of brokers and topics.
    pub(super) const fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Notes the epoch that a reply about a topic carried.
    pub(super) fn note_epoch(&mut self, topic: Option<TopicId>, epoch: MetadataEpoch) {
        if let Some(topic) = topic {
            self.metadata.note_epoch(topic, epoch);
        }
    }

    /// Asks again for what is in doubt.
    fn refresh(&mut self, now: Instant) {
        if self.refresh.is_none() {
            self.begin_refresh(now);
        }
        let Some((call, mut asking)) = self.refresh.take() else {
            return;
        };
        match asking.poll(self, now) {
            None => self.refresh = Some((call, asking)),
            Some(answer) => match asking.read(&call, answer) {
                Ok(reply) => self.metadata.apply(reply, now),
                Err(_) => self.metadata.refresh_failed(now),
            },
        }
    }

    fn begin_refresh(&mut self, now: Instant) {
        if !self.metadata.is_in_doubt() {
            return;
        }
        let Some((at, mut topics)) = self.metadata.refresh_due(now) else {
            return;
        };
        if at > now {
            return;
        }
        topics.truncate(METADATA_TOPICS_MAX);
        let call = GetMetadata { topics };
        match Asking::new(&call, self.config.request_timeout) {
            Ok(asking) => self.refresh = Some((call, asking)),
            Err(_) => self.metadata.refresh_failed(now),
        }
    }
}

/// A question to any broker that is under way.
#[derive(Debug)]
pub(super) struct Asking {
    inquiry: Inquiry,
    request: Request,
    within: Duration,
    /// The number of the question that was put, and to whom.
    put: Option<(u64, Address)>,
    /// Nothing is to be done before.
    pause_until: Instant,
}

impl Asking {
    pub(super) fn new<C: Call>(call: &C, within: Duration) -> Result<Self, RequestError> {
        let request = call.request();
        within_limits(|| call.what(), &request)?;
        let now = Instant::now();
        Ok(Self {
            inquiry: Inquiry::new(C::REPEAT, now, within),
            request,
            within,
            put: None,
            pause_until: now,
        })
    }

    /// Goes on asking; the answer once there is one.
    pub(super) fn poll(
        &mut self,
        link: &mut Link,
        now: Instant,
    ) -> Option<Result<Reply, ConnectionLost>> {
        if now < self.pause_until {
            return None;
        }
        loop {
            if let Some((question, address)) = &self.put {
                match link.take_answer(*question)? {
                    Ok(reply) => {
                        link.good = Some(address.clone());
                        let random = link.random();
                        if !is_put_off(&reply) || !self.inquiry.put_off(now, random) {
                            return Some(Ok(reply));
                        }
                    }
                    Err(lost) => self.inquiry.lost(lost, now),
                }
                self.put = None;
            }
            let random = link.random();
            let candidates = || {
                let good = link.good.clone();
                link.metadata.candidates(good, &link.bootstrap)
            };
            match self.inquiry.step(now, random, candidates) {
                Step::Ask(address) => {
                    let question = link.ask_at(&address, self.request.clone());
                    self.put = Some((question, address));
                }
                Step::Pause(until) => {
                    self.pause_until = until;
                    return None;
                }
                Step::Fail(lost) => return Some(Err(lost)),
            }
        }
    }

    /// Reads the answer.
    pub(super) fn read<C: Call>(
        &self,
        call: &C,
        answer: Result<Reply, ConnectionLost>,
    ) -> Result<C::Output, RequestError> {
        match answer {
            Ok(reply) => call.read(reply),
            Err(lost) => Err(RequestError::Unreachable {
                what: call.what(),
                within: self.within,
                lost,
            }),
        }
    }
}
