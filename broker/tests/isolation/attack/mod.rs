//! Clients that mean no good, in a process of their own. With `RINGWAY_HOSTILE_IDLE=1` it gets only
//! the time that nobody else wants: on a machine of their own they wouldn't take any from the
//! broker and its good clients.

mod connection;
mod deaf;
mod flood;
mod garbage;
mod slow;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway_testing::{sys, variable};
use ringway_wire::TopicId;

/// Set in the process that attacks: its [`Plan`].
const PLAN: &str = "RINGWAY_TEST_ATTACK";
/// What the attacking process says begins with this, among the test harness's own lines.
const MARK: &str = "attack: ";

/// Who attacks what.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The ports, the shared one and the shards'.
    pub(crate) ports: Vec<SocketAddr>,
    /// A topic with records in its partition 0, which nobody adds to.
    pub(crate) topic: TopicId,
    /// How many.
    pub(crate) records: u64,
    /// Connections that are silent, drip, or idle.
    pub(crate) slow: usize,
    /// Connections that ask and never read.
    pub(crate) deaf: usize,
    /// Connections that ask for topics that aren't there, as fast as they are answered.
    pub(crate) floods: usize,
    /// Threads that open a connection, send what is no request, and open the next.
    pub(crate) garbage: usize,
}

impl Plan {
    fn to_text(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(SocketAddr::to_string).collect();
        let numbers = [self.slow, self.deaf, self.floods, self.garbage];
        let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
        let (ports, numbers) = (ports.join(","), numbers.join(","));
        format!("{ports} {} {} {numbers}", self.topic.0, self.records)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let ports = parts.next()?.split(',').map(|port| port.parse().ok());
        let ports = ports.collect::<Option<Vec<_>>>()?;
        let topic = TopicId(parts.next()?.parse().ok()?);
        let records = parts.next()?.parse().ok()?;
        let numbers = parts.next()?.split(',').map(|number| number.parse().ok());
        let numbers = numbers.collect::<Option<Vec<usize>>>()?;
        let [slow, deaf, floods, garbage] = numbers.try_into().ok()?;
        Some(Self {
            ports,
            topic,
            records,
            slow,
            deaf,
            floods,
            garbage,
        })
    }
}

/// What attackers count.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    closed: AtomicU64,
    sent_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }
}

/// What every attacker shares.
#[derive(Debug)]
struct Field {
    plan: Plan,
    on: AtomicBool,
    counts: Counts,
}

impl Field {
    fn on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

/// The attacking process. Dropping it ends it.
pub(crate) struct Attack {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Attack {
    /// Starts the process; it doesn't attack yet.
    pub(crate) fn prepare(plan: &Plan) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["attack::process", "--exact", "--nocapture"])
            .env(PLAN, plan.to_text())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut attack = Self {
            child,
            orders,
            answers,
        };
        attack.answer();
        attack
    }

    /// Attacks from now on.
    pub(crate) fn begin(&mut self) {
        self.order("begin");
    }

    /// Ends every attack and closes every connection; tells what was done so far.
    pub(crate) fn end(&mut self) -> String {
        self.order("end")
    }

    fn order(&mut self, what: &str) -> String {
        writeln!(self.orders, "{what}").expect("the attackers live");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line).unwrap();
            assert!(read > 0, "the attackers have died");
            // The harness writes the test's name in front of the first.
            if let Some((_, answer)) = line.split_once(MARK) {
                return answer.trim().to_owned();
            }
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The attacking process itself; an empty test unless it is started as one.
#[test]
fn process() {
    let Some(plan) = std::env::var_os(PLAN) else {
        return;
    };
    let plan = plan.to_str().and_then(Plan::from_text);
    let plan = plan.expect("a plan that was written here");
    if variable("RINGWAY_HOSTILE_IDLE", 0) != 0 {
        sys::run_when_idle().unwrap();
    }
    sys::raise_nofile().unwrap();
    let field = Arc::new(Field {
        plan,
        on: AtomicBool::new(false),
        counts: Counts::default(),
    });
    println!("{MARK}ready");
    let mut attackers = Vec::new();
    for order in std::io::stdin().lines() {
        match order.unwrap().as_str() {
            "begin" => {
                field.on.store(true, Ordering::Relaxed);
                attackers = begin(&field);
            }
            _ => {
                field.on.store(false, Ordering::Relaxed);
                for attacker in attackers.drain(..) {
                    attacker.join().expect("an attacker has no defect");
                }
            }
        }
        let counts = &field.counts;
        let [connections, closed, sent, read] = [
            &counts.connections,
            &counts.closed,
            &counts.sent_bytes,
            &counts.read_bytes,
        ]
        .map(|count| count.load(Ordering::Relaxed));
        println!(
            "{MARK}{connections} connections, {closed} of them ended by the broker, \
             {sent} bytes sent, {read} read"
        );
    }
}

/// What one thread of the attackers does, with its number.
type Behaviour = fn(&Field, u64);

fn begin(field: &Arc<Field>) -> Vec<std::thread::JoinHandle<()>> {
    let kinds: [(Behaviour, usize); 4] = [
        (slow::attack, usize::from(field.plan.slow > 0)),
        (deaf::attack, usize::from(field.plan.deaf > 0)),
        (flood::attack, usize::from(field.plan.floods > 0)),
        (garbage::attack, field.plan.garbage),
    ];
    let mut attackers = Vec::new();
    for (attack, threads) in kinds {
        for thread in 0..threads {
            let field = Arc::clone(field);
            attackers.push(std::thread::spawn(move || attack(&field, thread as u64)));
        }
    }
    attackers
}

/// A moment without work, short enough for an end to be noticed.
fn rest() {
    std::thread::sleep(Duration::from_millis(1));
}
